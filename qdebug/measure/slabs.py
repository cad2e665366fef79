"""Slabs: cut a tensor into blocks of (outer, channels, inner). Knows no file, no model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded
from qdebug.errors import FieldError
from qdebug.measure.layer import Block, Layer, Visitor, joined

# Elements in a block: large enough that the cost of NumPy calls is negligible and threads do not
# wait for the interpreter, small enough for the cache. benchmarks/blocks.py on two cores, ns per
# element with one thread and with two: 65 536: 6.2, 7.8; 131 072: 5.3, 5.7; 262 144: 4.9, 3.9;
# 524 288: 5.5, 4.5.
BLOCK_ELEMENTS = 1 << 18


def slabs(shape: tuple[int, ...], axis: int | None) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """First channel and (outer, channels, inner) of the slabs that make up a tensor in C order.

    >>> list(slabs((2, 3, 5), axis=1))
    [(0, (2, 3, 5))]

    Raises:
        FieldError: the tensor has no such axis.
    """
    outer, channels, inner = 1, 1, math.prod(shape)
    if axis is not None:
        if not 0 <= axis < len(shape):
            raise FieldError("float", found=f"shape {shape}", expected=f"more axes than {axis}")
        outer, channels, inner = (
            math.prod(shape[:axis]),
            shape[axis],
            math.prod(shape[axis + 1 :]),
        )
    # Whole rows of all channels if a row fits a block, else some channels of a row, else a part of
    # one channel of a row.
    row = channels * inner
    if not outer * row:
        return
    if row <= BLOCK_ELEMENTS:
        step = BLOCK_ELEMENTS // row
        for start in range(0, outer, step):
            yield 0, (min(step, outer - start), channels, inner)
        return
    step = max(BLOCK_ELEMENTS // inner, 1)
    for _ in range(outer):
        for channel in range(0, channels, step):
            width = min(step, channels - channel)
            for start in range(0, inner, BLOCK_ELEMENTS):
                yield channel, (1, width, min(BLOCK_ELEMENTS, inner - start))


def cut(layer: Layer, shape: tuple[int, ...]) -> tuple[Layer, int | None]:
    """The axis along which a tensor of this shape is cut, and the layer of its blocks.

    Raises:
        FieldError: the tensor's channels are not those of the layer.
    """
    axis = layer.params.axis
    if axis is not None:
        if shape[axis : axis + 1] != (layer.params.channels,):
            expected = f"{layer.params.channels} channels along axis {axis}"
            raise FieldError("float", found=f"shape {shape}", expected=expected)
        return layer, axis
    if layer.view is None:
        return layer, None
    axis, length = layer.view
    if shape[axis : axis + 1] == (length,):
        return layer, axis
    return replace(layer, view=None), None


def hand_over(
    visitor: Visitor,
    layer: Layer,
    floats: NDArray[Any],
    codes: NDArray[Any],
    model_float: NDArray[Any] | None = None,
    weights_float: NDArray[Any] | None = None,
) -> None:
    """Pass a tensor in memory to a visitor, slab by slab; all arrays have one shape.

    Raises:
        FieldError: the tensor's channels are not those of the layer.
    """
    layer, axis = cut(layer, floats.shape)
    whole = Block(floats, codes, model_float, weights_float=weights_float)
    flat = joined([whole], lambda arrays: arrays[0].reshape(-1))
    start = 0
    for first_channel, slab in slabs(floats.shape, axis):
        here = slice(start, start + math.prod(slab))
        visitor.take(layer, joined([flat], partial(_cut_out, here, slab), first_channel))
        start = here.stop


def _cut_out(
    place: slice, slab: tuple[int, int, int], arrays: Sequence[NDArray[Any]]
) -> NDArray[Any]:
    """A slab of a flat array."""
    return arrays[0][place].reshape(slab)


def hand_over_decoded(
    visitor: Visitor,
    layer: Layer,
    floats: NDArray[Any],
    decoded: Decoded,
    first_row: int = 0,
) -> None:
    """Pass some rows of a tensor in memory to a visitor, slab by slab; each row is a channel.

    Args:
        visitor: takes the slabs.
        layer: has a `Grid` with as many channels as the whole tensor has rows.
        floats: shape (rows, columns).
        decoded: of the same shape; cells may broadcast to it.
        first_row: the channel of the first of these rows.

    Raises:
        FieldError: floats and values differ in shape, or there are more rows than channels.
    """
    if decoded.values.shape != floats.shape or floats.ndim != 2:
        found = f"shape {floats.shape} and {decoded.values.shape}"
        raise FieldError("float", found=found, expected="one shape (rows, columns)")
    channels = layer.quantization.channels
    if first_row + len(floats) > channels:
        found = f"{first_row + len(floats)} rows"
        raise FieldError("float", found=found, expected=f"{channels}")
    arrays = [
        None if array is None else np.broadcast_to(array, floats.shape)[None]
        for array in (decoded.below, decoded.above, decoded.ends)
    ]
    whole = Block(floats[None], decoded.values[None], None, 0, None, *arrays)
    for rows, columns in _places(floats.shape):
        block = joined([whole], partial(_cut_rows, rows, columns), first_row + rows.start)
        visitor.take(layer, block)


def _places(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the slabs of a matrix: whole rows, or a part of one."""
    step = max(BLOCK_ELEMENTS // max(shape[1], 1), 1)
    for row in range(0, shape[0], step):
        for column in range(0, shape[1], BLOCK_ELEMENTS):
            stop = min(row + step, shape[0])
            yield slice(row, stop), slice(column, min(column + BLOCK_ELEMENTS, shape[1]))


def _cut_rows(rows: slice, columns: slice, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A slab of an array of shape (1, rows, columns)."""
    return arrays[0][:, rows, columns]
