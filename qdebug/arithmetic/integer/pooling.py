"""Operators that reduce windows or axes: pools and means.

Sources: TensorFlow Lite's reference kernels (``integer_ops/pooling.h``, ``integer_ops/mean.h``,
``reduce.h``).
"""

from collections.abc import Sequence

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import (
    SPECIFIED,
    Activation,
    Arithmetic,
    Codes,
    Computed,
    limits,
)
from qdebug.arithmetic.integer.multiplier import (
    Int64Array,
    Multiplier,
    quantize_multiplier,
)
from qdebug.arithmetic.integer.products import Padding, Pair, windows


def average_pool_2d(
    x: Codes,
    output: QuantParams,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """The mean code of each window of `x` (batch, height, width, channels), padding left out.

    Means are rounded half away from zero; a kernel that does not round (`floor`) leaves it to the
    integer division, which truncates toward zero. Input and output share scale and zero point.

    >>> x = Codes(np.array([1, 2, 4, 8], np.int8).reshape(1, 2, 2, 1), QuantParams.of(1.0))
    >>> average_pool_2d(x, QuantParams.of(1.0), size=(2, 2), padding="VALID").codes.reshape(-1)
    array([4], dtype=int8)
    """
    values = x.values.astype(np.int64)
    total = sum(patch for _, patch in windows(values, size, stride, (1, 1), padding))
    count = sum(patch for _, patch in windows(np.ones_like(values), size, stride, (1, 1), padding))
    means = _quotient(np.asarray(total), np.asarray(count), arithmetic.rounding != "floor")
    return Computed(np.clip(means, *limits(output, activation)).astype(output.dtype))


def max_pool_2d(
    x: Codes,
    output: QuantParams,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
) -> Computed:
    """The largest code of each window of `x` (batch, height, width, channels).

    >>> x = Codes(np.array([1, 2, 4, 8], np.int8).reshape(1, 2, 2, 1), QuantParams.of(1.0))
    >>> max_pool_2d(x, QuantParams.of(1.0), size=(2, 2)).codes.reshape(-1)
    array([8, 8, 8, 8], dtype=int8)
    """
    lowest = np.iinfo(np.int64).min
    found: Int64Array | None = None
    values = x.values.astype(np.int64)
    for _, patch in windows(values, size, stride, (1, 1), padding, lowest):
        found = patch if found is None else np.maximum(found, patch)
    assert found is not None
    return Computed(np.clip(found, *limits(output, activation)).astype(output.dtype))


def mean(
    x: Codes,
    output: QuantParams,
    *,
    axes: Sequence[int],
    keep_dims: bool = False,
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """The mean over `axes`.

    The number of elements is part of the multiplier: its mantissa is divided by it.

    >>> x = Codes(np.array([[1, 2, 6]], np.int8), QuantParams.of(1.0))
    >>> mean(x, QuantParams.of(0.5), axes=[1]).codes
    array([6], dtype=int8)
    """
    over = tuple(axis % x.values.ndim for axis in axes)
    sums = x.centred.sum(axis=over, keepdims=keep_dims)
    count = int(np.prod([x.values.shape[axis] for axis in over]))
    multiplier = _divided(quantize_multiplier(x.scale / float(output.scale[0])), count)
    kept, overflows = arithmetic.accumulated(np.asarray(sums))
    return Computed(arithmetic.coded(arithmetic.rescaled(kept, multiplier), output), overflows)


def _divided(multiplier: Multiplier, count: int) -> Multiplier:
    """The multiplier over a count, with as many more bits as the quotient leaves free."""
    bits = count.bit_length() - 1
    bits = min(bits, 32, 31 + int(multiplier.shift))
    m0 = (int(multiplier.m0) << bits) // count
    return Multiplier(
        multiplier.real / count,
        np.asarray(m0),
        np.asarray(int(multiplier.shift) - bits),
        multiplier.float32 / np.float32(count),
    )


def _quotient(total: Int64Array, count: Int64Array, rounded: bool) -> Int64Array:
    """Quotient of integers: halves away from zero, or all fractions toward zero."""
    size = (np.abs(total) + (count // 2 if rounded else 0)) // count
    return np.where(total > 0, size, -size)
