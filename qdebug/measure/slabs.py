"""Slabs: cut a tensor into blocks of (outer, channels, inner). Knows no file, no model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

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
