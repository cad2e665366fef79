"""One run of one operator: what it read, and what it must write. Computes nothing."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import ACTIVATIONS, Activation, Codes

Array = NDArray[Any]
# What an operator reads: codes, plain numbers (shapes, axes, floats), or nothing.
Read = Codes | Array | None


@dataclass(frozen=True, eq=False)
class Step:
    """One run of an operator: what it read, and what it must write.

    Attributes:
        op: the operator's name.
        options: as its flatbuffer has them.
        reads: its inputs, in order.
        makes: how its outputs are quantized.
        shapes: of the outputs.
        activation: fused into the operator.
    """

    op: str
    options: Any
    reads: tuple[Read, ...]
    makes: tuple[QuantParams, ...]
    shapes: tuple[tuple[int, ...], ...]
    activation: Activation = "NONE"

    @property
    def output(self) -> QuantParams:
        """How the only output is quantized."""
        return self.makes[0]

    def codes(self, place: int) -> Codes:
        """An input that is quantized."""
        found = self.reads[place]
        assert isinstance(found, Codes)
        return found

    def plain(self, place: int) -> Array | None:
        """An input as plain numbers: of a bias, its codes."""
        found = self.reads[place] if place < len(self.reads) else None
        return found.values if isinstance(found, Codes) else found

    def integers(self, place: int) -> list[int]:
        """An input of integers."""
        values = self.plain(place)
        assert values is not None
        return [int(value) for value in values.reshape(-1)]


def activation_of(options: Any) -> Activation:
    """The activation fused into an operator with these options."""
    return FUSED[getattr(options, "fusedActivationFunction", 0)]


# As TensorFlow Lite's schema numbers them.
FUSED: dict[int, Activation] = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
assert set(FUSED.values()) == set(ACTIVATIONS)
