"""Quantized tensors as kernels see them, and how a kernel rescales. Knows no operator."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.multiplier import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    Multiplier,
    MultiplierRounding,
    multiply,
    multiply_reduced,
    wrapped,
)

Activation = Literal["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

_LIMITS: dict[Activation, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Codes:
    """A quantized tensor: its codes, of any shape, and how they are to be read."""

    values: NDArray[Any]
    params: QuantParams

    @property
    def centred(self) -> Int64Array:
        """The codes less their zero point, in 64 bits."""
        zero_point = self.params.along(self.values.ndim)[1]
        return self.values.astype(np.int64) - zero_point

    @property
    def scale(self) -> float:
        """The only scale of a tensor that has one."""
        return float(self.params.scale[0])

    @property
    def zero_point(self) -> int:
        """The only zero point of a tensor that has one."""
        return int(self.params.zero_point[0])


@dataclass(frozen=True)
class Arithmetic:
    """How a kernel turns accumulators into codes.

    The defaults are the specification's, with its first rounding. The others describe kernels that
    compute something else, so that a difference can be held against a known fault.

    Attributes:
        rounding: of the multiplication by the fixed-point multiplier.
        shift: bits by which the multiplier's shift is off.
        accumulator_bits: width at which accumulators saturate; None: int32, which wraps around, or
            int64.
        offset: whether the output's zero point is added.
    """

    rounding: MultiplierRounding = "single"
    shift: int = 0
    accumulator_bits: int | None = None
    offset: bool = True

    def accumulated(self, exact: Int64Array, *, wide: bool = False) -> tuple[Int64Array, int]:
        """Exact sums as the accumulator keeps them, and how many do not fit int32.

        A `wide` accumulator is int64, as for int16 activations, and all sums fit.
        """
        beyond = (exact > INT32_MAX) | (exact < INT32_MIN)
        over = 0 if wide else int(np.count_nonzero(beyond))
        if self.accumulator_bits is not None:
            half = 1 << (self.accumulator_bits - 1)
            return np.clip(exact, -half, half - 1), over
        return (wrapped(exact) if over else exact), over

    def rescaled(self, accumulators: Int64Array, multiplier: Multiplier) -> Int64Array:
        """Accumulators times the multiplier."""
        return multiply(accumulators, self._off(multiplier), self.rounding)

    def rescaled_wide(self, accumulators: Int64Array, multiplier: Multiplier) -> Int64Array:
        """int64 accumulators times a 16-bit mantissa."""
        return multiply_reduced(accumulators, self._off(multiplier), self.rounding)

    def coded(
        self, centred: Int64Array, output: QuantParams, activation: "Activation" = "NONE"
    ) -> NDArray[Any]:
        """Values around the zero point as codes of its type, within the activation's limits."""
        zero_point = int(output.zero_point[0]) if self.offset else 0
        codes = np.clip(centred + zero_point, *limits(output, activation))
        return codes.astype(output.dtype)

    def _off(self, multiplier: Multiplier) -> Multiplier:
        return multiplier.shifted(self.shift) if self.shift else multiplier


SPECIFIED = Arithmetic()


@dataclass(frozen=True, eq=False)
class Computed:
    """An operator's output codes, and how many of its sums did not fit their int32 accumulator."""

    codes: NDArray[Any]
    overflows: int = 0


def limits(output: QuantParams, activation: Activation = "NONE") -> tuple[int, int]:
    """The least and largest output code of an operator with a fused activation.

    The activation's ends are quantized in float32, as ``CalculateActivationRangeQuantized`` does.

    >>> limits(QuantParams.of(0.05, -100, "int8"), "RELU6")
    (-100, 20)
    """
    qmin, qmax = output.qmin, output.qmax
    scale, zero_point = np.float32(output.scale[0]), int(output.zero_point[0])
    low, high = (
        None
        if end is None
        else zero_point + int(np.trunc(np.float32(end) / scale + np.copysign(np.float32(0.5), end)))
        for end in _LIMITS[activation]
    )
    return (
        qmin if low is None else max(qmin, low),
        qmax if high is None else min(qmax, high),
    )
