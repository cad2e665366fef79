"""Layer, Block, Part and Source: what a source hands on. No arithmetic, no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams


@dataclass(frozen=True, eq=False)
class Layer:
    """One quantized tensor, without its data.

    Attributes:
        name: as the source has it: hostile data.
        params: how it is quantized; `params.axis` counts from 0.
        shape: of the tensor; of the first piece where several files hold pieces of it.
        op: the operator (``CONV_2D``), where known.
        kind: ``activation``, ``weight`` or ``bias``, where known.
        nodes: what the float model calls the operator that makes the tensor, or reads the weight:
            names of ONNX nodes, or of a TFLite operator's output tensors. Quantizers take these.
        problems: what of it could not be read, where files hold other data of it: a line each.
        view: axis and length to cut blocks along where there is one scale, to look at a tensor by
            channel; None for blocks of one channel.
    """

    name: str
    params: QuantParams
    shape: tuple[int, ...]
    op: str | None = None
    kind: str | None = None
    nodes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    view: tuple[int, int] | None = None


@dataclass(frozen=True)
class UnreadableLayer:
    """A layer whose arrays do not make a pair, and the reason: one line for the user.

    `problems` are more of them, where several files hold data of it.
    """

    name: str
    reason: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """A slab of a layer that fits the cache: arrays of shape (outer, channels, inner).

    `first_channel` is the layer's channel at index 0 of the slab's channel axis; a layer with one
    scale has one channel. `model_float` is the same slab of an end-to-end float run, where known.
    """

    floats: NDArray[Any]
    codes: NDArray[Any]
    model_float: NDArray[Any] | None = None
    first_channel: int = 0

    def as_one_channel(self) -> "Block":
        """The same elements as one channel."""
        if self.floats.shape[1] == 1 and not self.first_channel:
            return self
        model = None if self.model_float is None else self.model_float.reshape(1, 1, -1)
        return Block(self.floats.reshape(1, 1, -1), self.codes.reshape(1, 1, -1), model)


class Visitor(Protocol):
    """Who is handed the data of a part."""

    def take(self, layer: Layer, block: Block) -> None:
        """One slab of a layer; `block` is valid until this returns."""

    def fail(self, layer: Layer, reason: str) -> None:
        """The layer's data in the part cannot be used; that of the part's other layers can."""


class Whole(Protocol):
    """Something cut into several parts that stand and fall together. Equal wholes are one."""

    @property
    def parts(self) -> int:
        """How many parts it is cut into."""

    def __hash__(self) -> int: ...

    def check(self, receipts: Sequence[Any]) -> None:
        """Check what the parts handed back, one receipt each, in any order.

        Raises:
            LayerError: the whole is not what it should be, and none of it can be used.
        """


class Part(Protocol):
    """A share of a source's data that any thread or machine can read by itself."""

    @property
    def whole(self) -> Whole | None:
        """What it is cut from; None where it stands by itself."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers it holds data of."""

    @property
    def num_elements(self) -> int:
        """About how many elements it holds."""

    @property
    def waits(self) -> bool:
        """Whether reading it waits for a network more than it computes."""

    def read(self, visitor: Visitor) -> Any:
        """Hand all data to the visitor, slab by slab.

        Returns:
            A receipt that only the part's whole understands.

        Raises:
            LayerError: the data is broken; nothing of the whole can be used.
        """


class Source(Protocol):
    """Where layers come from: pair files, or a live pair of models."""

    @property
    def files(self) -> Sequence[str]:
        """The files read, by the names the user gave them."""

    @property
    def problems(self) -> Sequence[str]:
        """Files that could not be read at all, where others could: a line each."""

    @property
    def notes(self) -> Sequence[str]:
        """Choices that may surprise the user: a line each."""

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of each quantized tensor that is no layer."""

    @property
    def layers(self) -> Sequence[Layer | UnreadableLayer]:
        """The layers, in the source's order; their names are unique."""

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """All data of these layers and of no others.

        Blocks are cut as the layers given here say (`Layer.view`), and come with a layer whose
        `view` is None where the data did not fit it.
        """
