"""Fixed-point multipliers: a real number as an int32 and a shift, and multiplication by it.

Knows no tensor and no operator. Source of the forms: B. Jacob et al., *Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference*, arXiv 1712.05877, section 2.2, and
TensorFlow Lite's kernels (``QuantizeMultiplier``, ``MultiplyByQuantizedMultiplier``).
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.errors import FieldError

Int64Array = NDArray[np.int64]

# single: one 64-bit product, one rounding shift. double: the product's upper half, rounded, then a
# rounding shift, halves away from zero. double_up: the same with halves up, as vector instructions
# round (NEON's VRSHL; ruy). float: a float32 product, rounded half to even, as XNNPACK does it.
# floor: one shift that does not round, which no specification has: the fault of many a port.
MultiplierRounding = Literal["single", "double", "double_up", "float", "floor"]
ROUNDINGS: tuple[MultiplierRounding, ...] = get_args(MultiplierRounding)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
# Beyond these a kernel's shift of int32 is undefined.
_LEAST_SHIFT, _MOST_SHIFT = -31, 30


@dataclass(frozen=True, eq=False)
class Multiplier:
    """Real multipliers M = m0 * 2^(shift - 31), one or one each per channel.

    Attributes:
        real: shape () or (channels,), M itself.
        m0: the int32 mantissas, in [2^30, 2^31), or 0.
        shift: TensorFlow Lite's shift: above 0 to the left.
        float32: M as a kernel that multiplies in float32 computes it.
    """

    real: NDArray[np.float64]
    m0: Int64Array
    shift: Int64Array
    float32: NDArray[np.float32]

    @property
    def n(self) -> Int64Array:
        """The n of M = m0 * 2^-n.

        >>> int(quantize_multiplier(0.5).n)
        31
        """
        return np.asarray(31 - self.shift)

    @property
    def value(self) -> NDArray[np.float64]:
        """The multiplier that the fixed-point form stands for."""
        value: NDArray[np.float64] = np.ldexp(self.m0.astype(np.float64), self.shift - 31)
        return value

    @property
    def relative_error(self) -> NDArray[np.float64]:
        """(value - M) / M; 0 for M = 0."""
        real = np.where(self.real == 0, 1.0, self.real)
        error: NDArray[np.float64] = (self.value - self.real) / real
        return error

    def shifted(self, by: int) -> "Multiplier":
        """The multiplier with another shift: what a kernel uses that is off by `by` bits."""
        float32 = np.ldexp(self.float32, by)
        return Multiplier(np.ldexp(self.real, by), self.m0, self.shift + by, float32)


def quantize_multiplier(real: ArrayLike, float32: NDArray[np.float32] | None = None) -> Multiplier:
    """The fixed-point form of real multipliers of 0 or more, of shape () or (channels,).

    `float32` is the same, computed in float32 throughout; None for the nearest to `real`.

    M = q * 2^shift with q in [1/2, 1) is `frexp`'s form; m0 is q * 2^31, rounded, and halved if
    that gives 2^31. An M below 2^-32 has the form 0; one of 2^30 or more has the largest.

    >>> found = quantize_multiplier([0.5, 0.75, 1.0, 0.0003921])
    >>> found.m0.tolist(), found.shift.tolist()
    ([1073741824, 1610612736, 1073741824, 1724474037], [0, 0, 1, -11])

    Raises:
        FieldError: a multiplier below 0, or not finite.
    """
    values = np.asarray(real, np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        found = values.reshape(-1)[int(np.flatnonzero(wrong)[0])]
        raise FieldError("multiplier", found=f"{found}", expected="a finite number of 0 or more")
    fraction, exponent = np.frexp(values)
    m0 = np.floor(np.asarray(fraction) * 2.0**31 + 0.5).astype(
        np.int64
    )  # of numbers above 0: half away
    shift = np.asarray(exponent, np.int64)
    full = m0 == 2**31
    m0, shift = np.where(full, m0 // 2, m0), np.where(full, shift + 1, shift)
    tiny, huge = shift < _LEAST_SHIFT, shift > _MOST_SHIFT
    m0 = np.where(tiny, 0, np.where(huge, INT32_MAX, m0))
    shift = np.where(tiny, 0, np.where(huge, _MOST_SHIFT, shift))
    return Multiplier(values, m0, shift, values.astype(np.float32) if float32 is None else float32)


def multiply(
    x: ArrayLike, multiplier: Multiplier, rounding: MultiplierRounding = "single"
) -> Int64Array:
    """Accumulators `x` times the multiplier, rounded to integers; both broadcast.

    `x` are int32, or for `single` and `floor` of up to 48 bits.

    >>> multiply([2, -2, 40], quantize_multiplier(0.25))
    array([ 1,  0, 10])
    >>> multiply([2, -2, 40], quantize_multiplier(0.25), "double")
    array([ 1, -1, 10])
    >>> multiply([2, -2, 40], quantize_multiplier(0.25), "double_up")
    array([ 1,  0, 10])
    """
    values = np.asarray(x, np.int64)
    m0, shift = multiplier.m0, multiplier.shift
    if rounding in ("double", "double_up"):
        high = doubling_high_multiply(wrapped(values << np.maximum(shift, 0)), m0)
        right = np.maximum(-shift, 0)
        if rounding == "double":
            return divide_by_power_of_two(high, right)
        return np.asarray((high + ((np.int64(1) << right) >> 1)) >> right, np.int64)
    if rounding == "float":
        products = values.astype(np.float32) * multiplier.float32
        return np.asarray(np.rint(products), np.int64)
    total = 31 - shift
    half = 0 if rounding == "floor" else np.int64(1) << (total - 1)
    # In two halves, since the accumulators of int16 activations have up to 48 bits.
    low = (values & 0xFFFF) * m0 + half
    high = (values >> 16) * m0 + (low >> 16)
    kept = np.where(total >= 16, high, (high << 16) + (low & 0xFFFF))
    return np.asarray(kept >> np.where(total >= 16, total - 16, total), np.int64)


def multiply_reduced(
    x: ArrayLike, multiplier: Multiplier, rounding: MultiplierRounding = "single"
) -> Int64Array:
    """int64 accumulators `x`, of up to 48 bits, times the multiplier reduced to 16 bits.

    The kernels for int16 activations do this, so that the product fits 64 bits. It is rounded once,
    halves up, whatever `rounding` is; only `floor` does not round.

    >>> multiply_reduced([2**40], quantize_multiplier(2.0**-30))
    array([1024])
    """
    total = 15 - multiplier.shift
    mantissa = reduced_mantissa(multiplier.m0)
    half = 0 if rounding == "floor" else np.int64(1) << (total - 1)
    return np.asarray((np.asarray(x, np.int64) * mantissa + half) >> total, np.int64)


def reduced_mantissa(m0: ArrayLike) -> Int64Array:
    """The int16 mantissas of int32 ones: m0 / 2^16, rounded, at most 2^15 - 1.

    >>> reduced_mantissa([2**30, 2**31 - 1])
    array([16384, 32767])
    """
    mantissa = np.asarray(m0, np.int64)
    return np.asarray(np.minimum((mantissa + (1 << 15)) >> 16, 2**15 - 1))


def reduced(multiplier: Multiplier) -> Multiplier:
    """The multiplier with a mantissa of 16 bits, in the upper half of `m0`.

    >>> found = reduced(quantize_multiplier(0.7))
    >>> int(found.m0) >> 16, round(float(found.value), 6)
    (22938, 0.700012)
    """
    mantissa = reduced_mantissa(multiplier.m0) << 16
    return replace(multiplier, m0=mantissa)


def doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> Int64Array:
    """The upper half of 2ab, of int32 a and b; halves are rounded up.

    Both INT32_MIN, the only case that overflows, gives INT32_MAX (gemmlowp's
    ``SaturatingRoundingDoublingHighMul``).

    >>> doubling_high_multiply([1 << 30, INT32_MIN], [1 << 30, INT32_MIN])
    array([ 536870912, 2147483647])
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))  # C divides toward zero
    return np.minimum(high, INT32_MAX)


def divide_by_power_of_two(x: ArrayLike, exponent: ArrayLike) -> Int64Array:
    """Quotient x / 2^exponent, rounded half away from zero (gemmlowp's ``RoundingDivideByPOT``).

    >>> divide_by_power_of_two([5, -5, 6, -6], 2)
    array([ 1, -1,  2, -2])
    """
    values, bits = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << bits) - 1
    threshold = (mask >> 1) + (values < 0)
    return np.asarray((values >> bits) + ((values & mask) > threshold), np.int64)


def wrapped(x: Int64Array) -> Int64Array:
    """The integers as int32 keeps them: modulo 2^32.

    >>> wrapped(np.array([2**31, -1]))
    array([-2147483648,          -1])
    """
    return (x + 2**31) % 2**32 - 2**31
