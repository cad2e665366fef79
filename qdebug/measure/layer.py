"""Layer, Block, Part and Source: the interface of a source. No arithmetic, no file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid
from qdebug.errors import LayerError
from qdebug.measure.outputs import Output
from qdebug.names import printable


@dataclass(frozen=True, eq=False)
class Layer:
    """One quantized tensor, without its data.

    Attributes:
        name: as in the source: untrusted data.
        quantization: how it is quantized: by scales and zero points, or by a `Grid` if steps
            differ within a channel (block scales, codebooks). `axis` counts from 0.
        shape: of the tensor; if several files hold pieces of it, of the first piece.
        op: the operator (``CONV_2D``), if known.
        kind: ``activation``, ``weight`` or ``bias``, if known.
        nodes: the float model's names for the operator that makes the tensor or reads the weight:
            names of ONNX nodes, or of a TFLite operator's output tensors. Quantizers take these.
        problems: one line per file that could not be read, if other files hold the layer too.
        inputs: names of the layers that feed its operator: the nearest activations upstream and
            the operator's weights and biases, in the order in which they are read. Empty for a
            constant or a model's input; None if the source does not say.
        view: for a layer with one scale, the axis and length to cut blocks along, to view the
            tensor by channel; None for blocks of one channel.
        clamp: the range to which a ReLU or Clip of the float model limits the tensor, if the
            quantized model has no such operator and leaves it to the range of the codes.
    """

    name: str
    quantization: QuantParams | Grid
    shape: tuple[int, ...]
    op: str | None = None
    kind: str | None = None
    nodes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None
    view: tuple[int, int] | None = None
    clamp: tuple[float, float] | None = None

    @property
    def params(self) -> QuantParams:
        """Scales and zero points.

        Raises:
            LayerError: the layer has a grid instead.
        """
        if isinstance(self.quantization, Grid):
            raise LayerError(
                f"layer '{printable(self.name)}': found {printable(self.quantization.name)}, "
                "expected one scale and zero point per tensor or channel"
            )
        return self.quantization


@dataclass(frozen=True)
class UnreadableLayer:
    """A layer whose arrays do not make a pair, and the reason: one line for the user.

    `problems` are further reasons, if several files hold data of it. `inputs` is as in `Layer`.
    """

    name: str
    reason: str
    problems: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None


def is_affine(layer: Layer | UnreadableLayer) -> TypeGuard[Layer]:
    """Whether the layer has `params`: a scale and zero point per tensor or channel."""
    return isinstance(layer, Layer) and isinstance(layer.quantization, QuantParams)


@dataclass(frozen=True, eq=False)
class Block:
    """A slab of a layer that fits the cache: arrays of shape (outer, channels, inner).

    `first_channel` is the layer's channel at index 0 of the slab's channel axis; a layer with one
    scale has one channel. `model_float` is the same slab of a whole float run; `weights_float` that
    of the float operator with the quantized model's weights, and `floats` itself if the operator
    has none. Both are None if unknown.

    A layer with a `Grid` has `codes` that are decoded already: the floats that they stand for. Then
    `below`, `above` and `ends` tell their cells, as in `arithmetic.grids.Decoded`; None if unknown.

    A source with such layers (GGUF, safetensors) yields one `Layer` for each tensor,
    ``Layer(name, Grid("Q4_K", channels=rows, axis=0), shape, kind="weight")``, and in `Part.read`
    passes some rows at a time to `slabs.hand_over_decoded(visitor, layer, floats, decoded,
    first_row)`: a matrix of floats (rows, columns), and a `Decoded` of the same shape, whose
    `values, below, above` are what the format's reader computes. Everything else (statistics,
    figures, diagnosis, rendering) follows from `Layer.quantization`.
    """

    floats: NDArray[Any]
    codes: NDArray[Any]
    model_float: NDArray[Any] | None = None
    first_channel: int = 0
    weights_float: NDArray[Any] | None = None
    below: NDArray[Any] | None = None
    above: NDArray[Any] | None = None
    ends: NDArray[Any] | None = None

    def as_one_channel(self) -> "Block":
        """The same elements as one channel."""
        if self.floats.shape[1] == 1 and not self.first_channel:
            return self
        return joined([self], lambda arrays: arrays[0].reshape(1, 1, -1))


_OPTIONAL = ("model_float", "weights_float", "below", "above", "ends")


def joined(
    blocks: Sequence[Block],
    join: Callable[[Sequence[NDArray[Any]]], NDArray[Any]],
    first_channel: int = 0,
) -> Block:
    """One block of several that are alike: `join` makes one array of each array of theirs."""

    def of(name: str) -> NDArray[Any] | None:
        arrays = [getattr(block, name) for block in blocks]
        return None if arrays[0] is None else join(arrays)

    floats = join([block.floats for block in blocks])
    codes = join([block.codes for block in blocks])
    same = blocks[0].weights_float is blocks[0].floats
    weights = floats if same else of("weights_float")
    cells = of("below"), of("above"), of("ends")
    return Block(floats, codes, of("model_float"), first_channel, weights, *cells)


def are_alike(one: Block, other: Block) -> bool:
    """Whether two blocks have the same arrays, so that they can be joined."""
    return all(
        (getattr(one, name) is None) == (getattr(other, name) is None) for name in _OPTIONAL
    ) and (one.weights_float is one.floats) == (other.weights_float is other.floats)


class Visitor(Protocol):
    """The receiver of a part's data."""

    def take(self, layer: Layer, block: Block) -> None:
        """Take one slab of a layer; `block` is valid until this returns."""

    def fail(self, layer: Layer, reason: str) -> None:
        """Note that the layer's data in the part is unusable; the part's other layers are not."""


class Whole(Protocol):
    """Data cut into parts that are accepted or rejected together. Equal wholes are one."""

    @property
    def parts(self) -> int:
        """How many parts it is cut into."""

    def __hash__(self) -> int: ...

    def check(self, receipts: Sequence[Any]) -> None:
        """Check the receipts of the parts, one each, in any order.

        Raises:
            LayerError: the whole is broken, and none of it can be used.
        """


class Part(Protocol):
    """A share of a source's data that any thread or machine can read by itself."""

    @property
    def whole(self) -> Whole | None:
        """What it is cut from; None if it is independent."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers whose data it holds."""

    @property
    def num_elements(self) -> int:
        """Its approximate number of elements."""

    @property
    def waits(self) -> bool:
        """Whether reading it mostly waits for a network."""

    def read(self, visitor: Visitor) -> Any:
        """Pass all data to the visitor, slab by slab.

        Returns:
            A receipt for `Whole.check`; its contents are private to the source.

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
        """One line per file that could not be read at all."""

    @property
    def notes(self) -> Sequence[str]:
        """Choices that may surprise the user, one line each."""

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of each quantized tensor that is not a layer."""

    @property
    def layers(self) -> Sequence[Layer | UnreadableLayer]:
        """The layers, in the source's order; their names are unique."""

    def outputs(self) -> Sequence[Output]:
        """The model's outputs over all samples; empty if the source has no such outputs.

        Samples that no part has run so far are run now.

        Raises:
            QdebugError: a run fails.
        """

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """All data of only these layers.

        Blocks are cut along `Layer.view`. If the data does not fit it, the blocks come with a layer
        whose `view` is None.
        """
