"""Operators that compute each output code from one code of each input.

Sources: TensorFlow Lite's quantization specification, and its reference kernels (``add.h``,
``mul.h``, ``leaky_relu.h``, ``requantize.h``, ``hard_swish.h``) for what that leaves open.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import (
    SPECIFIED,
    Activation,
    Arithmetic,
    Codes,
    Computed,
)
from qdebug.arithmetic.integer.multiplier import (
    Int64Array,
    divide_by_power_of_two,
    quantize_multiplier,
    reduced_mantissa,
)

# Bits by which addition shifts its inputs up, so that their own rescaling keeps fractions.
_ADD_SHIFT = {"int8": 20, "uint8": 20, "int16": 15}

_HIGH_RESOLUTION = 7  # bits by which hard-swish shifts its input up
_RELUISH = 3 / 32768  # the step of hard-swish's inner value


def add(
    left: Codes,
    right: Codes,
    output: QuantParams,
    *,
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Sum of two tensors, which broadcast.

    Both are brought to one scale, twice the larger of the two, with a few bits more.

    >>> left = Codes(np.array([10], np.int8), QuantParams.of(0.5))
    >>> right = Codes(np.array([4], np.int8), QuantParams.of(0.25))
    >>> add(left, right, QuantParams.of(1.0)).codes
    array([6], dtype=int8)
    """
    return _sum(left, right, 1, output, activation, arithmetic)


def subtract(
    left: Codes,
    right: Codes,
    output: QuantParams,
    *,
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Difference left - right, as `add`."""
    return _sum(left, right, -1, output, activation, arithmetic)


def _sum(
    left: Codes,
    right: Codes,
    sign: int,
    output: QuantParams,
    activation: Activation,
    arithmetic: Arithmetic,
) -> Computed:
    up = _ADD_SHIFT[output.dtype]
    common = 2 * max(left.scale, right.scale)
    inner = replace(arithmetic, shift=0)  # a shift that is off is the output's
    terms = [
        inner.rescaled(codes.centred << up, quantize_multiplier(codes.scale / common))
        for codes in (left, right)
    ]
    total = terms[0] + sign * terms[1]
    down = quantize_multiplier(common / (2.0**up * float(output.scale[0])))
    return Computed(arithmetic.coded(arithmetic.rescaled(total, down), output, activation))


def multiply_codes(
    left: Codes,
    right: Codes,
    output: QuantParams,
    *,
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Product of two tensors, which broadcast: MUL.

    >>> left = Codes(np.array([10], np.int8), QuantParams.of(0.5))
    >>> multiply_codes(left, left, QuantParams.of(1.0)).codes
    array([25], dtype=int8)
    """
    products = left.centred * right.centred
    multiplier = quantize_multiplier(_float32_ratio(left, output, right.scale))
    rescaled = arithmetic.rescaled(products, multiplier)
    return Computed(arithmetic.coded(rescaled, output, activation))


def extreme(
    left: Codes, right: Codes, output: QuantParams, *, which: Literal["MAXIMUM", "MINIMUM"]
) -> Computed:
    """The larger or smaller of codes that share their scale and zero point.

    >>> codes = [Codes(np.array([q], np.int8), QuantParams.of(1.0)) for q in (3, -4)]
    >>> extreme(*codes, QuantParams.of(1.0), which="MAXIMUM").codes
    array([3], dtype=int8)
    """
    take = np.maximum if which == "MAXIMUM" else np.minimum
    return Computed(take(left.values, right.values).astype(output.dtype))


def requantize(x: Codes, output: QuantParams, *, arithmetic: Arithmetic = SPECIFIED) -> Computed:
    """The codes in another scale, zero point or type: QUANTIZE.

    >>> x = Codes(np.array([10], np.int8), QuantParams.of(0.5))
    >>> requantize(x, QuantParams.of(1.0, 3)).codes
    array([8], dtype=int8)
    """
    multiplier = quantize_multiplier(x.scale / float(output.scale[0]))
    return Computed(arithmetic.coded(arithmetic.rescaled(x.centred, multiplier), output))


def relu(
    x: Codes,
    output: QuantParams,
    *,
    activation: Activation = "RELU",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """RELU, RELU6 or RELU_N1_TO_1 as an operator of its own.

    >>> x = Codes(np.array([-5, 5], np.int8), QuantParams.of(1.0))
    >>> relu(x, QuantParams.of(1.0, -128)).codes
    array([-128, -123], dtype=int8)
    """
    multiplier = quantize_multiplier(_float32_ratio(x, output))
    return Computed(
        arithmetic.coded(arithmetic.rescaled(x.centred, multiplier), output, activation)
    )


def leaky_relu(
    x: Codes, output: QuantParams, *, alpha: float, arithmetic: Arithmetic = SPECIFIED
) -> Computed:
    """Leaky ReLU: x where it is 0 or more, alpha * x below.

    >>> x = Codes(np.array([-20, 20], np.int8), QuantParams.of(1.0))
    >>> leaky_relu(x, QuantParams.of(1.0), alpha=0.1).codes
    array([-2, 20], dtype=int8)
    """
    centred = x.centred
    above = arithmetic.rescaled(centred, quantize_multiplier(_float32_ratio(x, output)))
    below = arithmetic.rescaled(centred, quantize_multiplier(_float32_ratio(x, output, alpha)))
    return Computed(arithmetic.coded(np.where(centred >= 0, above, below), output))


def hard_swish(x: Codes, output: QuantParams, *, arithmetic: Arithmetic = SPECIFIED) -> Computed:
    """Hard swish x * relu6(x + 3) / 6 of 8-bit codes, in 16-bit arithmetic.

    >>> x = Codes(np.array([-60, 0, 100], np.int8), QuantParams.of(0.05))
    >>> hard_swish(x, QuantParams.of(0.05)).codes
    array([  0,   0, 100], dtype=int8)
    """
    fine = np.float32(1.0) / np.float32(1 << _HIGH_RESOLUTION) * np.float32(x.scale)
    to_output = quantize_multiplier(float(fine / np.float32(output.scale[0])))
    to_reluish = quantize_multiplier(float(fine / np.float32(_RELUISH)))
    values = x.centred << _HIGH_RESOLUTION
    before = _high_multiply16(values, reduced_mantissa(to_output.m0))
    exponent = int(to_reluish.shift) + arithmetic.shift
    reluish = values
    if exponent > 0:
        reluish = _saturated(reluish << (exponent - 1))
    reluish = _high_multiply16(reluish, reduced_mantissa(to_reluish.m0))
    if exponent > 0:
        reluish = _saturated(reluish << 1)
    elif exponent < 0:
        reluish = divide_by_power_of_two(reluish, -exponent)
    reluish = (reluish + (1 << 15)) >> 1  # from [-1, 1] to [0, 1]
    product = reluish * before
    high = np.where(product >= 0, product >> 15, -(-product >> 15))  # toward zero: no rounding
    centred = divide_by_power_of_two(_saturated(high), -int(to_output.shift))
    return Computed(arithmetic.coded(centred, output))


def _float32_ratio(x: Codes, output: QuantParams, factor: float = 1.0) -> np.float32:
    """The multiplier s_x * factor / s_y as some kernels compute it: in float32."""
    return np.float32(x.scale) * np.float32(factor) / np.float32(output.scale[0])


def _saturated(values: Int64Array) -> Int64Array:
    """The values as int16 that saturates."""
    return np.clip(values, -(2**15), 2**15 - 1)


def _high_multiply16(a: Int64Array, b: Int64Array) -> Int64Array:
    """The upper half of 2ab, rounded, of int16 a and b."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return _saturated(np.where(nudged >= 0, nudged >> 15, -(-nudged >> 15)))
