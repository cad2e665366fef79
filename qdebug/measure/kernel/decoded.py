"""Decoded: the statistics of a block of a layer with a `Grid`, in NumPy."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import Float64Array
from qdebug.arithmetic.grids import expected_square, variance_of_square
from qdebug.measure.layer import Block, joined
from qdebug.measure.statistics import Row, Statistics, no_statistics

# Elements measured at a time: what they need fits the cache, and is not handed out anew each time.
_TILE = 1 << 14


def measured(block: Block) -> Statistics:
    """The statistics of a block, for the block's own channels."""
    outer, channels, inner = block.floats.shape
    found = no_statistics(channels, block.first_channel)
    rows, columns = max(_TILE // max(inner, 1), 1), _TILE
    for row in range(outer):
        for channel in range(0, channels, rows):
            for column in range(0, inner, columns):
                here = (
                    slice(row, row + 1),
                    slice(channel, channel + rows),
                    slice(column, column + columns),
                )
                tile = joined([block], partial(_cut, here), block.first_channel + channel)
                found.absorb(_tile(tile))
    return found


def _cut(here: tuple[slice, slice, slice], arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0][here]


def _tile(block: Block) -> Statistics:
    """The statistics of a few elements."""
    found = no_statistics(block.floats.shape[1], block.first_channel)
    x, d = _rows(block.floats), _rows(block.codes)
    cells = None
    if block.below is not None and block.above is not None:
        cells = _rows(block.below), _rows(block.above)
    finite = np.isfinite(x) & np.isfinite(d)
    if cells is not None:
        finite &= np.isfinite(cells[0]) & np.isfinite(cells[1])
    ends = None if block.ends is None else _rows(block.ends)
    with np.errstate(over="ignore", invalid="ignore"):  # floats near float64's largest
        for row, figure in _figures(x, d, cells, ends, finite).items():
            found.table[row.row] = figure
    return found


def _rows(values: NDArray[Any]) -> Float64Array:
    """(outer, channels, inner) of any type to float64 of shape (channels, outer * inner)."""
    channels = values.shape[1]
    return values.transpose(1, 0, 2).reshape(channels, -1).astype(np.float64)


def _figures(
    x: Float64Array,
    d: Float64Array,
    cells: tuple[Float64Array, Float64Array] | None,
    ends: Float64Array | None,
    finite: NDArray[np.bool_],
) -> dict[Row, NDArray[Any]]:
    """The figures of rows (channels, elements), over the finite elements."""
    of = Statistics
    count = np.count_nonzero(finite, axis=1)
    gaps = count.min() < x.shape[1]
    if gaps:
        x, d = np.where(finite, x, 0.0), np.where(finite, d, 0.0)
        cells = cells and (np.where(finite, cells[0], 0.0), np.where(finite, cells[1], 0.0))
    e = d - x
    total = np.maximum(count, 1)
    sums = {row: values.sum(axis=1) for row, values in ((of.x_sum, x), (of.q_sum, d))}
    sums[of.e_sum] = e.sum(axis=1)

    def centred(values: Float64Array, row: Row) -> Float64Array:
        apart = values - (sums[row] / total)[:, None]
        return np.where(finite, apart, 0.0) if gaps else apart

    x_apart, d_apart, e_apart = centred(x, of.x_sum), centred(d, of.q_sum), centred(e, of.e_sum)
    d_moment, xd_moment = _dot(d_apart, d_apart), _dot(x_apart, d_apart)
    varies = d_moment > 0
    slope = np.divide(xd_moment, d_moment, out=np.zeros_like(d_moment), where=varies)
    left = x_apart - slope[:, None] * d_apart
    magnitude = np.abs(e)

    def extreme(values: Float64Array, reduce: np.ufunc, none: float) -> Float64Array:
        kept = np.where(finite, values, none) if gaps else values
        return np.asarray(reduce.reduce(kept, axis=1))

    found: dict[Row, NDArray[Any]] = {
        **sums,
        of.count: count,
        of.non_finite: x.shape[1] - count,
        of.zeros: np.count_nonzero((x == 0) & finite, axis=1),
        of.lost: np.count_nonzero((x != 0) & (d == 0), axis=1),
        of.x_magnitude: np.abs(x).sum(axis=1),
        of.d_square: _dot(d, d),
        of.xd_product: _dot(x, d),
        of.x_moment: _dot(x_apart, x_apart),
        of.q_moment: d_moment,
        of.e_moment: _dot(e_apart, e_apart),
        of.xq_moment: xd_moment,
        of.line_square: _dot(left, left),
        of.x_min: extreme(x, np.minimum, np.inf),
        of.q_min: extreme(d, np.minimum, np.inf),
        of.x_max: extreme(x, np.maximum, -np.inf),
        of.q_max: extreme(d, np.maximum, -np.inf),
        of.e_max: extreme(magnitude, np.maximum, -np.inf),
    }
    if cells is not None:
        found |= _of_cells(x, e, cells)
        found[of.steps_max] = np.where(count > 0, found[of.steps_max], -np.inf)
    unknown = np.where(count > 0, np.nan, 0.0)  # an empty channel changes nothing
    if ends is None or cells is None:
        return found | dict.fromkeys((of.clipped, of.saturated, of.clipped_square), unknown)
    below, above = cells
    outside = finite & (((ends < 0) & (e > below)) | ((ends > 0) & (e < -above)))
    return found | {
        of.clipped: np.count_nonzero(outside, axis=1),
        of.saturated: np.count_nonzero((ends != 0) & finite, axis=1),
        of.clipped_square: np.where(outside, e * e, 0.0).sum(axis=1),
    }


def _of_cells(
    x: Float64Array, e: Float64Array, cells: tuple[Float64Array, Float64Array]
) -> dict[Row, NDArray[Any]]:
    """What only a format with neighbours has. A cell without width (scale 0) has no steps."""
    of = Statistics
    width = cells[0] + cells[1]
    steps = np.divide(e, width, out=np.zeros_like(e), where=width > 0)
    return {
        of.expected_square: expected_square(*cells).sum(axis=1),
        of.expected_variance: variance_of_square(*cells).sum(axis=1),
        of.steps_sum: steps.sum(axis=1),
        of.steps_outward: _dot(np.sign(x), steps),
        of.steps_square: _dot(steps, steps),
        of.steps_max: np.abs(steps).max(axis=1),
    }


def _dot(a: Float64Array, b: Float64Array) -> Float64Array:
    """Sum of the products in each row."""
    sums: Float64Array = np.einsum("ce,ce->c", a, b)
    return sums
