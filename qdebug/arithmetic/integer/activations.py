"""Logistic, tanh and softmax of 8-bit codes, in the reference kernels' fixed point.

Other kernels look the values up in tables made with float functions.
Sources: ``integer_ops/logistic.h``, ``integer_ops/tanh.h`` and ``softmax.h`` of TensorFlow Lite.
"""

import math
from collections.abc import Callable

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer import fixed_point
from qdebug.arithmetic.integer.codes import Codes, Computed
from qdebug.arithmetic.integer.multiplier import (
    Int64Array,
    Multiplier,
    divide_by_power_of_two,
    doubling_high_multiply,
    multiply,
    quantize_multiplier,
)

_INPUT_BITS = 4  # integer bits of logistic's and tanh's input
_DIFFERENCE_BITS = 5  # integer bits of softmax's differences from the largest
_SUM_BITS = 12  # integer bits of softmax's sum


def logistic(x: Codes, output: QuantParams) -> Computed:
    """Logistic function 1 / (1 + exp(-x)) as codes of step 1/256.

    >>> x = Codes(np.array([-128, 0, 127], np.int8), QuantParams.of(0.1))
    >>> logistic(x, QuantParams.of(1 / 256, -128)).codes
    array([-128,    0,  127], dtype=int8)
    """
    return _bounded(x, output, fixed_point.logistic, 8)


def tanh(x: Codes, output: QuantParams) -> Computed:
    """Hyperbolic tangent as codes of step 1/128.

    >>> x = Codes(np.array([-128, 0, 10], np.int8), QuantParams.of(0.1))
    >>> tanh(x, QuantParams.of(1 / 128, 0)).codes
    array([-128,    0,   97], dtype=int8)
    """
    return _bounded(x, output, fixed_point.tanh, 7)


def _bounded(
    x: Codes,
    output: QuantParams,
    function: Callable[[Int64Array, int], Int64Array],
    bits: int,
) -> Computed:
    """A bounded function of `bits` result bits; inputs out of the fixed point have its ends."""
    multiplier = quantize_multiplier(x.scale * 2.0 ** (31 - _INPUT_BITS))
    radius = _radius(_INPUT_BITS, multiplier)
    centred = x.centred
    inner = np.clip(centred, -radius, radius)
    result = function(multiply(inner, multiplier, "double"), _INPUT_BITS)
    codes = divide_by_power_of_two(result, 31 - bits) + int(output.zero_point[0])
    codes = np.where(
        centred >= radius, output.qmax, np.where(centred <= -radius, output.qmin, codes)
    )
    return Computed(np.clip(codes, output.qmin, output.qmax).astype(output.dtype))


def softmax(x: Codes, output: QuantParams, *, beta: float = 1.0) -> Computed:
    """Softmax exp(beta * x) over its sum along the last axis, as codes of step 1/256.

    >>> x = Codes(np.array([[0, 0, 10]], np.int8), QuantParams.of(0.1))
    >>> softmax(x, QuantParams.of(1 / 256, -128)).codes
    array([[-74, -74,  19]], dtype=int8)
    """
    real = min(beta * x.scale * 2.0 ** (31 - _DIFFERENCE_BITS), 2.0**31 - 1)
    multiplier = quantize_multiplier(real)
    least = -_radius(_DIFFERENCE_BITS, multiplier)
    values = x.values.astype(np.int64)
    differences = values - values.max(axis=-1, keepdims=True)
    seen = differences >= least
    exps = fixed_point.exp_on_negative(
        multiply(np.where(seen, differences, 0), multiplier, "double"), _DIFFERENCE_BITS
    )
    sums = np.where(seen, fixed_point.rescaled(exps, 0, _SUM_BITS), 0).sum(axis=-1, keepdims=True)
    # The sum as 2^bits * (1 + fraction): its reciprocal needs the fraction alone.
    length = np.floor(np.log2(sums)).astype(np.int64) + 1  # exact: sums are below 2^31
    fraction = (sums << (32 - length)) - (np.int64(1) << 31)
    scale = fixed_point.one_over_one_plus(fraction)
    bits = _SUM_BITS - (32 - length)
    codes = divide_by_power_of_two(doubling_high_multiply(scale, exps), bits + 31 - 8)
    codes = np.where(seen, np.minimum(codes + output.qmin, output.qmax), output.qmin)
    return Computed(codes.astype(output.dtype))


def _radius(integer_bits: int, multiplier: Multiplier) -> int:
    """The largest centred code whose product fits the fixed-point type."""
    most = ((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits)
    return math.floor(most / 2.0 ** int(multiplier.shift))
