"""Fully connected, convolution, depthwise and transposed convolution, and matrix products.

    q_y = clamp(Z_y + M * (sum (q_x - Z_x)(q_w - Z_w) + q_b)),   M = s_x * s_w / s_y

with an int32 accumulator, or int64 for int16 activations. Source: arXiv 1712.05877, section 2.2;
TensorFlow Lite's quantization specification for the axes of weights and the types of biases.

Sums are taken in float64, which is exact: a product is below 2^31 and no layer has 2^22 of them for
one output; where one had, the accumulator would have overflowed long before.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import (
    SPECIFIED,
    Activation,
    Arithmetic,
    Codes,
    Computed,
)
from qdebug.arithmetic.integer.multiplier import Int64Array, Multiplier, quantize_multiplier

Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]
_Sums = NDArray[np.float64]


def fully_connected(
    x: Codes,
    weights: Codes,
    bias: NDArray[Any] | None,
    output: QuantParams,
    *,
    activation: Activation = "NONE",
    keep_num_dims: bool = False,
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """A dense layer: `x` of shape (..., depth), `weights` (units, depth), `bias` (units,) or None.

    The output is (batch, units), or with `keep_num_dims` x's shape with units last.

    >>> x = Codes(np.array([[10, 20]], np.int8), QuantParams.of(0.5, 4))
    >>> weights = Codes(np.array([[3, -1]], np.int8), QuantParams.of(0.1))
    >>> fully_connected(x, weights, np.array([7], np.int32), QuantParams.of(0.05, -3)).codes
    array([[6]], dtype=int8)
    """
    units, depth = weights.values.shape
    shape = (*x.values.shape[:-1], units) if keep_num_dims else (-1, units)
    rows = x.centred.reshape(-1, depth).astype(np.float64)
    sums = rows @ weights.centred.astype(np.float64).T
    return _output(sums.reshape(shape), x, weights, bias, output, activation, arithmetic, False)


def batch_matmul(
    left: Codes,
    right: Codes,
    output: QuantParams,
    *,
    adj_x: bool = False,
    adj_y: bool = False,
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Matrix products of (..., rows, depth) and (..., depth, columns); `adj_x`, `adj_y` transpose.

    >>> eye = Codes(np.eye(2, dtype=np.int8), QuantParams.of(1.0))
    >>> x = Codes(np.array([[5, 6], [7, 8]], np.int8), QuantParams.of(0.5))
    >>> batch_matmul(x, eye, QuantParams.of(0.5)).codes.tolist()
    [[5, 6], [7, 8]]
    """
    a, b = left.centred.astype(np.float64), right.centred.astype(np.float64)
    a = np.swapaxes(a, -1, -2) if adj_x else a
    b = np.swapaxes(b, -1, -2) if adj_y else b
    return _output(a @ b, left, right, None, output, "NONE", arithmetic, True)


def conv_2d(
    x: Codes,
    weights: Codes,
    bias: NDArray[Any] | None,
    output: QuantParams,
    *,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Convolution of `x` (batch, height, width, channels) with `weights` (out, kh, kw, in).

    Weights of fewer input channels than x has make a grouped convolution. Pairs are (y, x).

    >>> x = Codes(np.full((1, 2, 2, 1), 3, np.int8), QuantParams.of(1.0, 1))
    >>> weights = Codes(np.ones((1, 2, 2, 1), np.int8), QuantParams.of(1.0))
    >>> conv_2d(x, weights, None, QuantParams.of(2.0, 0)).codes.reshape(2, 2).tolist()
    [[4, 2], [2, 1]]
    """
    out, kernel_y, kernel_x, depth = weights.values.shape
    taps, floats = weights.centred.astype(np.float64), x.centred.astype(np.float64)
    groups = x.values.shape[-1] // depth
    sums: _Sums | None = None
    for (y, at), patch in windows(floats, (kernel_y, kernel_x), stride, dilation, padding):
        # (batch, y, x, groups, depth) and (groups, out of a group, depth)
        parts = patch.reshape(*patch.shape[:3], groups, depth)
        tap = taps[:, y, at].reshape(groups, out // groups, depth)
        found = np.concatenate([parts[..., g, :] @ tap[g].T for g in range(groups)], axis=-1)
        sums = found if sums is None else sums + found
    assert sums is not None
    return _output(sums, x, weights, bias, output, activation, arithmetic, True)


def depthwise_conv_2d(
    x: Codes,
    weights: Codes,
    bias: NDArray[Any] | None,
    output: QuantParams,
    *,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Each channel of `x` (batch, height, width, channels) by its own filters.

    `weights` are (1, kh, kw, channels * multiplier); output channel c reads input channel
    c // multiplier.

    >>> x = Codes(np.array([1, 2], np.int8).reshape(1, 1, 1, 2), QuantParams.of(1.0))
    >>> weights = Codes(np.array([3, 4], np.int8).reshape(1, 1, 1, 2), QuantParams.of(1.0))
    >>> depthwise_conv_2d(x, weights, None, QuantParams.of(1.0)).codes.reshape(-1).tolist()
    [3, 8]
    """
    _, kernel_y, kernel_x, channels = weights.values.shape
    taps, floats = weights.centred[0].astype(np.float64), x.centred.astype(np.float64)
    times = channels // x.values.shape[-1]
    sums: _Sums | None = None
    for (y, at), patch in windows(floats, (kernel_y, kernel_x), stride, dilation, padding):
        found = np.repeat(patch, times, axis=-1) * taps[y, at]
        sums = found if sums is None else sums + found
    assert sums is not None
    return _output(sums, x, weights, bias, output, activation, arithmetic, True)


def transpose_conv(
    x: Codes,
    weights: Codes,
    bias: NDArray[Any] | None,
    output: QuantParams,
    *,
    shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Padding = "SAME",
    activation: Activation = "NONE",
    arithmetic: Arithmetic = SPECIFIED,
) -> Computed:
    """Transposed convolution of `x` (batch, height, width, in) to the output `shape`.

    `weights` are (out, kh, kw, in).

    >>> x = Codes(np.array([[2, 3]], np.int8).reshape(1, 1, 2, 1), QuantParams.of(1.0))
    >>> weights = Codes(np.array([1, 10], np.int8).reshape(1, 1, 2, 1), QuantParams.of(1.0))
    >>> one = QuantParams.of(1.0)
    >>> found = transpose_conv(x, weights, None, one, shape=(1, 1, 4, 1), stride=(1, 2))
    >>> found.codes.reshape(-1).tolist()
    [2, 20, 3, 30]
    """
    out, *kernel, _ = weights.values.shape
    taps = weights.centred.astype(np.float64)
    batch, height, width, _ = x.values.shape
    floats = x.centred.astype(np.float64)
    before = [
        _edges(length, size, step, 1, padding)[1]
        for length, size, step in zip(shape[1:3], kernel, stride, strict=True)
    ]
    # All that the input can reach, cut to the output afterwards.
    reach = [
        (n - 1) * step + size for n, step, size in zip((height, width), stride, kernel, strict=True)
    ]
    full = [max(r, b + n) for r, b, n in zip(reach, before, shape[1:3], strict=True)]
    sums = np.zeros((batch, *full, out))
    for y in range(kernel[0]):
        for at in range(kernel[1]):
            rows = slice(y, y + (height - 1) * stride[0] + 1, stride[0])
            columns = slice(at, at + (width - 1) * stride[1] + 1, stride[1])
            sums[:, rows, columns] += floats @ taps[:, y, at].T
    sums = sums[:, before[0] : before[0] + shape[1], before[1] : before[1] + shape[2]]
    return _output(sums, x, weights, bias, output, activation, arithmetic, True)


def product_multiplier(x: Codes, weights: Codes, output: QuantParams) -> Multiplier:
    """M = s_x * s_w / s_y, one for each channel of the weights.

    >>> x, weights = (Codes(np.zeros(1, np.int8), QuantParams.of(s)) for s in (0.5, 0.25))
    >>> float(product_multiplier(x, weights, QuantParams.of(0.5)).value)
    0.25
    """
    scales = weights.params.scale if weights.params.channels > 1 else weights.params.scale[0]
    float32 = np.float32(x.scale) * np.asarray(scales, np.float32) / np.float32(output.scale[0])
    return quantize_multiplier(x.scale * scales / float(output.scale[0]), np.asarray(float32))


def _output(
    sums: _Sums,
    x: Codes,
    weights: Codes,
    bias: NDArray[Any] | None,
    output: QuantParams,
    activation: Activation,
    arithmetic: Arithmetic,
    reduced: bool,
) -> Computed:
    """Codes of exact sums (..., channels).

    `reduced`: with int16 activations the multiplier has 16 bits; only fully connected keeps 32.
    """
    exact: Int64Array = sums.astype(np.int64)
    if bias is not None:
        exact = exact + bias.astype(np.int64)
    multiplier = product_multiplier(x, weights, output)
    wide = x.params.dtype == "int16"
    kept, overflows = arithmetic.accumulated(exact, wide=wide)
    rescale = arithmetic.rescaled_wide if wide and reduced else arithmetic.rescaled
    return Computed(arithmetic.coded(rescale(kept, multiplier), output, activation), overflows)


def _edges(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> Pair:
    """Output length, and the padding before the first element, along one axis."""
    reach = (kernel - 1) * dilation + 1
    if padding == "VALID":
        return (length - reach + stride) // stride, 0
    out = (length + stride - 1) // stride
    return out, max((out - 1) * stride + reach - length, 0) // 2


def windows(
    values: NDArray[Any],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    outside: float = 0,
) -> Iterator[tuple[Pair, NDArray[Any]]]:
    """For each tap (y, x) of a kernel, what it reads of `values` (batch, height, width, channels).

    Each is of shape (batch, out height, out width, channels), with `outside` in the padding.

    >>> [patch.reshape(-1).tolist() for _, patch in windows(
    ...     np.array([[1, 2, 3]]).reshape(1, 1, 3, 1), (1, 2), (1, 1), (1, 1), "SAME")]
    [[1, 2, 3], [2, 3, 0]]
    """
    lengths = values.shape[1:3]
    sizes = [
        _edges(n, k, s, d, padding)
        for n, k, s, d in zip(lengths, kernel, stride, dilation, strict=True)
    ]
    ends = [
        (out - 1) * s + (k - 1) * d + 1 - before
        for (out, before), k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    widths = [
        (before, max(end - n, 0)) for (_, before), end, n in zip(sizes, ends, lengths, strict=True)
    ]
    padded = np.pad(values, [(0, 0), *widths, (0, 0)], constant_values=outside)
    for y in range(kernel[0]):
        for at in range(kernel[1]):
            rows, columns = (
                slice(start, start + (out - 1) * step + 1, step)
                for start, (out, _), step in zip(
                    (y * dilation[0], at * dilation[1]), sizes, stride, strict=True
                )
            )
            yield (y, at), padded[:, rows, columns]
