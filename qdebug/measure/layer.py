"""Layer and Block: what a source hands on. No arithmetic, no file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.sources.npz.checksum import RangeSum


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
        inputs: names of the layers that feed its operator: the nearest activations upstream and
            the operator's weights and biases, in the order in which they are read. Empty for a
            constant or a model's input; None where the source does not say.
    """

    name: str
    params: QuantParams
    shape: tuple[int, ...]
    op: str | None = None
    kind: str | None = None
    nodes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UnreadableLayer:
    """A layer whose arrays do not make a pair, and the reason: one line for the user.

    `problems` are more of them, where several files hold data of it. `inputs` are a Layer's.
    """

    name: str
    reason: str
    problems: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None


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


# A file, and a layer of which it holds data.
Piece = tuple[str, str]


class Part(Protocol):
    """A share of a source's data that can be read by itself, by any thread."""

    @property
    def piece(self) -> Piece:
        """What is checked as a whole: parts of one piece stand and fall together."""

    @property
    def of(self) -> int:
        """How many parts the piece is cut into."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers that it holds data of."""

    @property
    def num_elements(self) -> int:
        """About how many elements it holds, for showing progress."""

    def blocks(self, sums: list[RangeSum]) -> Iterator[tuple[Layer, Block]]:
        """The data, slab by slab, each with its layer; a block is valid until the next is taken.

        Where the piece is cut into parts, checksums of what was read are added to `sums` in the
        end, for whoever has those of all parts to compare.

        Raises:
            LayerError: the data turns out to be broken; nothing of the piece can be used.
        """


class WholePiece:
    """What all parts have in common that are pieces of their own."""

    of = 1
    layers: Sequence[Layer]

    @property
    def piece(self) -> Piece:
        """By its first layer, which no other part has."""
        return "", self.layers[0].name


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
        """What was done otherwise than one would think: a line each."""

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of each quantized tensor that is no layer."""

    @property
    def layers(self) -> Sequence[Layer | UnreadableLayer]:
        """The layers, in the source's order; their names are unique."""

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """All data of these layers and of no others.

        Blocks are cut along the axis that `params` of the layer given here has, so that whoever
        wants to see a tensor by channel gives a layer with an axis where the source's has none.
        """
