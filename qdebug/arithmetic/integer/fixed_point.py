"""exp, 1/(1+x), logistic and tanh in fixed point, as gemmlowp defines them for int32.

Numbers are int64 arrays that hold int32 mantissas; ``q`` is the number of integer bits, so that
mantissa m stands for m * 2^(q - 31). Source: gemmlowp's ``fixedpoint/fixedpoint.h`` and its
``doc/quantization.md``, which TensorFlow Lite's reference kernels use.
"""

import numpy as np
from numpy.typing import ArrayLike

from qdebug.arithmetic.integer.multiplier import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    divide_by_power_of_two,
    doubling_high_multiply,
)

_ONE = INT32_MAX  # 1 with no integer bits, as near as it gets

_EXP_MINUS_EIGHTH = round(np.exp(-1 / 8) * 2**31)
_THIRD = round(2**31 / 3)
# exp(-2^k) for the bits of a whole and a quarter part, by the exponent k.
_EXP_POWERS = {k: round(float(np.exp(-(2.0**k))) * 2**31) for k in range(-2, 5)}
_48_17 = round(48 / 17 * 2**29)  # with two integer bits
_MINUS_32_17 = -round(32 / 17 * 2**29)


def exp_on_negative(values: ArrayLike, q: int) -> Int64Array:
    """The exponential of a <= 0 with q integer bits; the result has none.

    >>> (exp_on_negative([-(1 << 27)], 4) / 2**31).round(6)  # exp(-1)
    array([0.36788])
    """
    a = np.asarray(values, np.int64)
    fraction_bits = 31 - q
    quarter = 1 << (fraction_bits - 2)
    part = (a & (quarter - 1)) - quarter  # in [-1/4, 0)
    result = _exp_between_quarter_and_zero(rescaled(part, q, 0))
    remainder = part - a
    for exponent, factor in _EXP_POWERS.items():
        if q > exponent:
            bit = 1 << (fraction_bits + exponent)
            result = np.where(remainder & bit, doubling_high_multiply(result, factor), result)
    if q > 5:
        result = np.where(a < -(1 << (36 - q)), 0, result)
    return np.where(a == 0, _ONE, result)


def one_over_one_plus(values: ArrayLike) -> Int64Array:
    """1 / (1 + a) of a in [0, 1] without integer bits.

    >>> (one_over_one_plus([1 << 30]) / 2**31).round(6)  # 1 / 1.5
    array([0.666667])
    """
    return rescaled(_quotient(np.asarray(values, np.int64)), 1, 0)  # half of it: one bit less


def one_minus_over_one_plus(values: ArrayLike) -> Int64Array:
    """(1 - a) / (1 + a) of a in [0, 1] without integer bits.

    >>> (one_minus_over_one_plus([1 << 30]) / 2**31).round(6)  # 0.5 / 1.5
    array([0.333333])
    """
    return rescaled(_quotient(np.asarray(values, np.int64)) - (1 << 29), 2, 0)


def logistic(values: ArrayLike, q: int) -> Int64Array:
    """Logistic function 1 / (1 + exp(-a)) of a with q integer bits; the result has none.

    >>> (logistic([1 << 27], 4) / 2**31).round(6)
    array([0.731059])
    """
    a = np.asarray(values, np.int64)
    above = one_over_one_plus(exp_on_negative(-np.abs(a), q))
    found = np.where(a > 0, above, _ONE - above)
    return np.where(a == 0, 1 << 30, found)


def tanh(values: ArrayLike, q: int) -> Int64Array:
    """Hyperbolic tangent of a with q integer bits; the result has none.

    >>> (tanh([1 << 27], 4) / 2**31).round(6)
    array([0.761594])
    """
    a = np.asarray(values, np.int64)
    # 2a has the same mantissa with one integer bit more.
    below = one_minus_over_one_plus(exp_on_negative(-np.abs(a), q + 1))
    return np.where(a == 0, 0, np.where(a < 0, -below, below))


def rescaled(values: Int64Array, q: int, to: int) -> Int64Array:
    """The same number with another number of integer bits: rounded, or saturated.

    >>> rescaled(np.array([1 << 29, 1 << 30]), 2, 0).tolist()
    [2147483647, 2147483647]
    """
    if q >= to:
        return np.asarray(np.clip(values << (q - to), INT32_MIN, INT32_MAX))
    return divide_by_power_of_two(values, to - q)


def _exp_between_quarter_and_zero(a: Int64Array) -> Int64Array:
    """The exponential of [-1/4, 0), no integer bits: its Taylor series around -1/8."""
    x = a + (1 << 28)
    x2 = doubling_high_multiply(x, x)
    x3 = doubling_high_multiply(x2, x)
    x4 = doubling_high_multiply(x2, x2)
    cubic = doubling_high_multiply(divide_by_power_of_two(x4, 2) + x3, _THIRD)
    tail = divide_by_power_of_two(cubic + x2, 1)
    return np.asarray(_EXP_MINUS_EIGHTH + doubling_high_multiply(_EXP_MINUS_EIGHTH, x + tail))


def _quotient(a: Int64Array) -> Int64Array:
    """2 / (1 + a), two integer bits: three steps of Newton's method."""
    half = _half_sum(a, _ONE)
    x = _48_17 + doubling_high_multiply(half, _MINUS_32_17)
    for _ in range(3):
        left = (1 << 29) - doubling_high_multiply(half, x)
        x = x + rescaled(doubling_high_multiply(x, left), 4, 2)
    return np.asarray(x)


def _half_sum(a: Int64Array, b: int) -> Int64Array:
    """Half of a + b, halves away from zero."""
    total = a + b
    up = total + np.where(total >= 0, 1, -1)
    return np.where(up >= 0, up >> 1, -(-up >> 1))
