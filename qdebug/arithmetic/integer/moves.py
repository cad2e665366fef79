"""Operators that only move codes: whatever they read, they write without arithmetic.

Sources: TensorFlow Lite's reference kernels (``concatenation.h``, ``pad.h``, ``strided_slice.h``,
``resize_nearest_neighbor.h``, ``space_to_depth.h``).
"""

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import Codes, Computed

Index = int | slice | EllipsisType | None
Array = NDArray[Any]


def concatenate(parts: Sequence[Codes], output: QuantParams, *, axis: int) -> Computed:
    """The parts one after the other; uint8 parts of another scale are quantized again, in float32.

    >>> parts = [Codes(np.array([n], np.uint8), QuantParams.of(1.0, 0, "uint8")) for n in (4, 7)]
    >>> concatenate(parts, QuantParams.of(1.0, 0, "uint8"), axis=0).codes
    array([4, 7], dtype=uint8)
    """
    return Computed(np.concatenate([_in_scale(part, output) for part in parts], axis=axis))


def _in_scale(part: Codes, output: QuantParams) -> Array:
    scale, zero_point = np.float32(output.scale[0]), int(output.zero_point[0])
    if (part.scale, part.zero_point) == (float(output.scale[0]), zero_point):
        return part.values
    factor = np.float32(part.scale) * (np.float32(1) / scale)
    offset = np.float32(-part.zero_point) * factor
    real = part.values.astype(np.float32) * factor + offset
    rounded = np.trunc(real + np.copysign(np.float32(0.5), real)) + np.float32(zero_point)
    return np.asarray(np.clip(rounded, output.qmin, output.qmax), output.dtype)


def pad(
    values: Array,
    widths: Sequence[tuple[int, int]],
    fill: int,
    mode: Literal["constant", "reflect", "symmetric"] = "constant",
) -> Array:
    """The codes with `widths` before and after along each axis: of code `fill`, or mirrored.

    >>> pad(np.array([1, 2], np.int8), [(1, 2)], -5)
    array([-5,  1,  2, -5, -5], dtype=int8)
    """
    if mode == "constant":
        return np.pad(values, list(widths), constant_values=fill)
    return np.pad(values, list(widths), mode=mode)


def strided_slice(
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int],
    *,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> tuple[Index, ...]:
    """NumPy's index for a STRIDED_SLICE; bit i of a mask is about entry i.

    >>> np.arange(12).reshape(3, 4)[strided_slice([0, 1], [0, 3], [1, 1], begin_mask=1, end_mask=1)]
    array([[ 1,  2],
           [ 5,  6],
           [ 9, 10]])
    """
    index: list[Index] = []
    for place, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << place
        if ellipsis_mask & bit:
            index.append(...)
        elif new_axis_mask & bit:
            index.append(None)
        elif shrink_axis_mask & bit:
            index.append(int(first))
        else:
            start = None if begin_mask & bit else int(first)
            index.append(slice(start, None if end_mask & bit else int(last), int(step)))
    return tuple(index)


def resize_nearest_neighbor(
    values: Array, size: tuple[int, int], *, align_corners: bool = False, half_pixel: bool = False
) -> Array:
    """Images (batch, height, width, channels) resized to `size`, each pixel that of the nearest.

    >>> resize_nearest_neighbor(np.array([[[[1], [2]]]], np.int8), (1, 4)).reshape(-1)
    array([1, 1, 2, 2], dtype=int8)
    """
    rows, columns = (
        _nearest(length, out, align_corners, half_pixel)
        for length, out in zip(values.shape[1:3], size, strict=True)
    )
    return np.asarray(values[:, rows][:, :, columns])


def _nearest(length: int, out: int, align_corners: bool, half_pixel: bool) -> NDArray[np.int64]:
    """The input index of each output index, computed in float32."""
    corners = align_corners and out > 1
    scale = np.float32(length - 1) / np.float32(out - 1) if corners else np.float32(length / out)
    at = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half_pixel else 0)) * scale
    index = np.floor(at + np.float32(0.5)) if align_corners else np.floor(at)
    return np.asarray(np.clip(index, 0, length - 1), np.int64)


def space_to_depth(values: Array, block: int) -> Array:
    """Blocks of pixels as channels: (batch, h, w, c) to (batch, h / b, w / b, b * b * c).

    >>> space_to_depth(np.arange(4, dtype=np.int8).reshape(1, 2, 2, 1), 2).reshape(-1)
    array([0, 1, 2, 3], dtype=int8)
    """
    batch, height, width, depth = values.shape
    parts = values.reshape(batch, height // block, block, width // block, block, depth)
    moved = parts.transpose(0, 1, 3, 2, 4, 5)
    return moved.reshape(batch, height // block, width // block, block * block * depth)


def depth_to_space(values: Array, block: int) -> Array:
    """Channels as blocks of pixels: what undoes `space_to_depth`.

    >>> depth_to_space(np.arange(4, dtype=np.int8).reshape(1, 1, 1, 4), 2).reshape(2, 2)
    array([[0, 1],
           [2, 3]], dtype=int8)
    """
    batch, height, width, depth = values.shape
    parts = values.reshape(batch, height, width, block, block, depth // block**2)
    moved = parts.transpose(0, 1, 3, 2, 4, 5)
    return moved.reshape(batch, height * block, width * block, depth // block**2)
