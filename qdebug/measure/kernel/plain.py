"""Plain: the statistics of a block in NumPy, where there is no compiled kernel.

All work is float64: some 5 ns an element on one core (benchmarks/blocks.py).
"""

import math
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import (
    Float64Array,
    QuantParams,
    Rounding,
    codes_of,
    representable_range,
)
from qdebug.measure.layer import Block
from qdebug.measure.statistics import ROWS, SMALL_STEPS, Row, Statistics, no_statistics

# An error under half a step means that the code is Q(x) itself. The margin is for float64's
# rounding of codes of up to 32 bits; whatever lies above is quantized again to be sure.
_SURELY_ROUNDED = 0.49999

# A sum of squares about zero gives the sum about the mean by subtraction, unless that cancels more
# digits than this share leaves. Codes of more than 16 bits need nearly all digits: over their range
# lines that differ in the last digits of the slope are steps apart.
_CANCELLED, _CANCELLED_LONG = 1e-4, 0.25
_LONG = 1 << 16

# What a line leaves of the squared error follows from sums, too, while rounding makes no more than
# this share of it, or no more than this part of a step.
_LOST_SHARE, _LOST_STEPS = 1e-8, 1e-9
_EPSILON, _TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)


def measured(block: Block, params: QuantParams) -> Statistics:
    """The statistics of a block, for the block's own channels."""
    first = block.first_channel
    scale, zero_point = params.rows(first, first + block.floats.shape[1])
    limits, rounding = params.code_range, params.rounding

    def rows() -> tuple[Float64Array, Float64Array, Float64Array | None]:
        model = None if block.model_float is None else _rows(block.model_float, "m")
        return _rows(block.floats, "x"), _rows(block.codes, "q"), model

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x, q, m = rows()
        given = _as_given(block.floats, x), _as_given(block.codes, q)
        statistics = _measure_finite(x, q, m, given, scale, zero_point, limits, rounding)
        if not np.isfinite(statistics.x_sum).all():  # some element is not
            statistics = _measure_gaps(*rows(), scale, zero_point, limits, rounding)
        return Statistics(statistics.table, first)


def quantized(block: Block, params: QuantParams) -> Block:
    """The block with the codes Q(x), as whole float64 numbers."""
    x = block.floats.astype(np.float64)  # (outer, channels, inner)
    scale, zero_point = params.rows(block.first_channel, block.first_channel + x.shape[1])
    codes = codes_of(x, scale, zero_point, params.code_range, params.rounding)
    return Block(x, codes, block.model_float, block.first_channel)


def split(block: Block, params: QuantParams) -> tuple[Float64Array, Float64Array, Float64Array]:
    """What a block adds to `weights_count`, `weights_square` and `arithmetic_square`, by channel.

    w is the output of the float operator with the quantized weights; over the elements where x and
    w are finite.
    """
    assert block.weights_float is not None
    scale, zero_point = params.rows(
        block.first_channel, block.first_channel + block.floats.shape[1]
    )
    s, z, channels = scale[:, 0], zero_point[:, 0], len(scale)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x, w = _rows(block.floats, "x"), _rows(block.weights_float, "w")
        steps = _rows(block.codes, "q")
        steps -= zero_point
        finite = np.isfinite(x) & np.isfinite(w)
        change = np.where(finite, w - x, 0.0)
        off = np.abs(steps * scale - w) > _SURELY_ROUNDED * scale
        place = np.flatnonzero(off & finite)
        row = place // x.shape[1]
        ideal = codes_of(w.reshape(-1)[place], s[row], z[row], params.code_range, params.rounding)
        wrong = (steps.reshape(-1)[place] - (ideal - z[row])) ** 2
        return _count(finite), _dot(change, change) / s**2, _summed(row, wrong, channels)


class _Scratch(threading.local):
    """Buffers that a thread uses again for every block.

    Without them the system hands out and takes back their pages for each block, which took longer
    than the arithmetic (67 M elements: 1.5 s instead of 0.5 s on one core).
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Float64Array] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Float64Array:
        """The buffer of this name, with whatever it held before."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size)
        return buffer[:size].reshape(shape)


_scratch = _Scratch()


def _rows(values: NDArray[Any], name: str) -> Float64Array:
    """(outer, channels, inner) of any type to float64 of shape (channels, outer * inner)."""
    outer, channels, inner = values.shape
    rows = _scratch.take(name, (channels, outer, inner))
    np.copyto(rows, values.transpose(1, 0, 2))
    return rows.reshape(channels, outer * inner)


def _as_given(values: NDArray[Any], rows: Float64Array) -> NDArray[Any]:
    """The same rows in their own type where that is no copy: comparing fewer bytes is faster."""
    outer, channels, _ = values.shape
    if min(outer, channels) > 1 or values.dtype == np.float16 or not values.dtype.isnative:
        return rows
    return values.reshape(channels, -1)


def _measure_gaps(
    x: Float64Array,
    q: Float64Array,
    m: Float64Array | None,
    scale: Float64Array,
    zero_point: NDArray[np.int64],
    limits: tuple[int, int],
    rounding: Rounding,
) -> Statistics:
    """Statistics where some elements are not finite: those channels one by one, without them."""
    channels, elements = x.shape
    gaps = ~np.isfinite(x).all(axis=1)
    merged = no_statistics(channels)
    whole = np.flatnonzero(~gaps)
    for rows, kept in [(whole, np.ones(elements, bool))] * bool(whole.size) + [
        (np.array([row]), np.isfinite(x[row])) for row in np.flatnonzero(gaps)
    ]:
        x_kept, q_kept = x[rows][:, kept], q[rows][:, kept]
        part = _measure_finite(
            x_kept,
            q_kept,
            None if m is None else m[rows][:, kept],
            (x_kept, q_kept),
            scale[rows],
            zero_point[rows],
            limits,
            rounding,
        )
        merged.table[:, rows] = part.table
        merged.non_finite[rows] = elements - np.count_nonzero(kept)
        if m is not None and not kept.all():
            merged.model_only[rows] = np.count_nonzero(np.isfinite(m[rows][:, ~kept]))
    return merged


def _measure_finite(
    x: Float64Array,
    q: Float64Array,
    m: Float64Array | None,
    given: tuple[NDArray[Any], NDArray[Any]],
    scale: Float64Array,
    zero_point: NDArray[np.int64],
    limits: tuple[int, int],
    rounding: Rounding,
) -> Statistics:
    """Statistics of rows (channels, elements), all finite; `q` is overwritten.

    `given` has x and q in any type, for what asks no arithmetic of them.
    """
    channels, elements = x.shape
    if not elements:
        return no_statistics(channels)
    s = scale[:, 0]
    z = zero_point[:, 0]
    x_given, q_given = given
    x_min, x_max, q_min, q_max = _least(x_given), _most(x_given), _least(q_given), _most(q_given)
    saturated = np.zeros(channels)
    for extreme, limit in ((q_min, limits[0]), (q_max, limits[1])):
        if (extreme == limit).any():
            saturated += _count(q_given == limit)
    not_zero = x_given != 0
    zeros = elements - _count(not_zero)
    is_small = _within(q_given, z - SMALL_STEPS, z + SMALL_STEPS)
    is_small &= not_zero
    is_lost = q_given == z[:, None].astype(q_given.dtype)
    is_lost &= not_zero

    steps = np.subtract(q, zero_point, out=q) if z.any() else q  # q - z
    d = np.multiply(steps, scale, out=_scratch.take("d", x.shape))
    e = np.subtract(d, x, out=_scratch.take("e", x.shape))
    x_sum, steps_sum, e_sum = _sum(x), _sum(steps), _sum(e)
    cancelled = _CANCELLED_LONG if limits[1] - limits[0] >= _LONG else _CANCELLED
    x_moment, steps_moment, xq_moment = _moments(x, steps, x_sum, steps_sum, cancelled)
    e_moment = _moments(e, e, e_sum, e_sum, _CANCELLED)[0]
    e_square = e_moment + e_sum**2 / elements
    q_square = steps_moment + steps_sum**2 / elements

    model_count = model_square = model_error_square = inherited_square = np.zeros(channels)
    model_clipped, m_min, m_max = (np.full(channels, v) for v in (0.0, np.inf, -np.inf))
    if m is not None:
        finite = np.isfinite(m)
        known = np.where(finite, m, 0.0)
        error = np.where(finite, d - known, 0.0)
        inherited = np.where(finite, x - known, 0.0)
        model_count, model_square = _count(finite), _dot(known, known)
        model_error_square, inherited_square = _dot(error, error), _dot(inherited, inherited)

        low, high = (end[:, None] for end in _limits(s, z, limits))
        model_clipped = _count(finite & ((m < low) | (m > high)))
        m_min = np.where(finite, m, np.inf).min(axis=1)
        m_max = np.where(finite, m, -np.inf).max(axis=1)

    spare = d  # from here on: one buffer less in the cache
    line_square = _line_square(
        e, steps, spare, s, (e_square, e_moment), (q_square, steps_moment), xq_moment
    )
    x_magnitude, e_outward = x_sum, e_sum
    if (x_min < 0).any():
        np.copyto(spare, x_given < 0)
        x_magnitude = x_sum - 2 * _dot(spare, x)
        e_outward = e_sum - 2 * _dot(spare, e)  # if no zero has an error
    e_max = np.maximum(_most(e), -_least(e))
    steps_square = e_square / s**2
    quantizer_square, carried_square = steps_square, np.zeros(channels)
    clipped, clipped_square = np.zeros(channels), np.zeros(channels)
    if (e_max > _SURELY_ROUNDED * s).any():
        # Only the elements whose code may not be Q(x); among them all that are clipped.
        place = np.flatnonzero(np.abs(e, out=spare) > _SURELY_ROUNDED * scale)
        row = place // elements
        doubtful, steps_here = x.reshape(-1)[place], steps.reshape(-1)[place]
        s_here, z_here = s[row], z[row]
        if not doubtful.all():  # a zero has no sign, but an error
            e_outward = _dot(np.sign(x, out=spare), e)
        ideal = codes_of(doubtful, s_here, z_here, limits, rounding) - z_here
        e.reshape(-1)[place] = best_error = ideal * s_here - doubtful
        quantizer_square = _dot(e, e) / s**2
        carried_square = _summed(row, (steps_here - ideal) ** 2, channels)
        lowest, highest = _limits(s, z, limits)
        outside = (doubtful < lowest[row]) | (doubtful > highest[row])
        clipped = _summed(row, outside, channels)
        clipped_square = _summed(row, np.where(outside, best_error / s_here, 0.0) ** 2, channels)

    of = Statistics
    figures: dict[Row, Float64Array] = {
        of.count: np.full(channels, float(elements)),
        of.non_finite: np.zeros(channels),
        of.zeros: zeros,
        of.clipped: clipped,
        of.saturated: saturated,
        of.lost: _count(is_lost),
        of.small: _count(is_small),
        of.x_sum: x_sum,
        of.x_magnitude: x_magnitude,
        of.q_sum: steps_sum + z * elements,
        of.e_sum: e_sum,
        of.steps_sum: e_sum / s,
        of.steps_outward: e_outward / s,
        of.steps_square: steps_square,
        of.quantizer_square: quantizer_square,
        of.clipped_square: clipped_square,
        of.carried_square: carried_square,
        of.d_square: q_square * s**2,
        of.xd_product: (xq_moment + x_sum * steps_sum / elements) * s,
        of.model_count: model_count,
        of.model_square: model_square,
        of.model_error_square: model_error_square,
        of.model_steps_square: model_error_square / s**2,
        of.inherited_square: inherited_square / s**2,
        of.model_clipped: model_clipped,
        of.model_only: np.zeros(channels),
        of.weights_count: np.zeros(channels),
        of.weights_square: np.zeros(channels),
        of.arithmetic_square: np.zeros(channels),
        of.expected_square: np.zeros(channels),
        of.expected_variance: np.zeros(channels),
        of.x_moment: x_moment,
        of.q_moment: steps_moment,
        of.e_moment: e_moment,
        of.xq_moment: xq_moment,
        of.line_square: line_square,
        of.x_min: x_min,
        of.q_min: q_min,
        of.m_min: m_min,
        of.x_max: x_max,
        of.q_max: q_max,
        of.m_max: m_max,
        of.e_max: e_max,
        of.steps_max: e_max / s,
    }
    table = np.concatenate([figures[row] for row in ROWS])
    return Statistics(table.reshape(len(ROWS), channels))


def _limits(
    s: Float64Array, z: NDArray[np.int64], limits: tuple[int, int]
) -> tuple[Float64Array, Float64Array]:
    """The least and the largest float that is not clipped, of each channel."""
    low, high = representable_range(s, z, limits)
    return low - s / 2, high + s / 2


def _within(
    q: NDArray[Any], lowest: NDArray[np.int64], highest: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether codes lie between two of each channel; compared in their own type."""
    low, high = lowest[:, None], highest[:, None]
    if q.dtype.kind in "iu":
        kinds = np.iinfo(q.dtype)
        low, high = (np.clip(end, kinds.min, kinds.max).astype(q.dtype) for end in (low, high))
    inside: NDArray[np.bool_] = q >= low
    inside &= q <= high
    return inside


def _line_square(
    e: Float64Array,
    steps: Float64Array,
    spare: Float64Array,
    s: Float64Array,
    e_squares: tuple[Float64Array, Float64Array],
    steps_squares: tuple[Float64Array, Float64Array],
    xq_moment: Float64Array,
) -> Float64Array:
    """Sum over each row of (x - its least-squares line over q)^2; about the mean for a constant q.

    e less its own line is the same, and small: it keeps the digits that x would lose. Sums give it,
    unless rounding them could cost too many of its digits: the recorded scale is wrong and the line
    nearly exact. Then the line is subtracted element by element. Squares are given about zero and
    about the mean.
    """
    elements = e.shape[1]
    (e_square, e_moment), (steps_square, steps_moment) = e_squares, steps_squares
    fit_scale = xq_moment / np.maximum(steps_moment, _TINY)  # 0 for a constant q
    slope = s - fit_scale  # of the line of e
    left = e_moment - slope**2 * steps_moment
    lost = _EPSILON * (e_square + 4 * s * np.abs(slope) * steps_square)
    if (lost > _LOST_SHARE * left + elements * (_LOST_STEPS * fit_scale) ** 2).any():
        np.multiply(steps, slope[:, None], out=spare)
        np.subtract(e, spare, out=spare)
        spare -= _sum(spare)[:, None] / elements
        left = _dot(spare, spare)
    return np.maximum(left, 0.0)


def _summed(row: NDArray[np.intp], values: NDArray[Any], channels: int) -> Float64Array:
    """Sum of the values in each of `channels` rows."""
    sums: Float64Array = np.bincount(row, values, channels).astype(np.float64)
    return sums


# Rows of so many are counted faster one by one than by NumPy 2.4 all at once.
_MANY_BOOLS = 512


def _count(mask: NDArray[np.bool_]) -> Float64Array:
    """True elements in each row, as float64."""
    if mask.shape[1] >= _MANY_BOOLS:  # much the faster, row by row
        return np.array([np.count_nonzero(row) for row in mask], np.float64)
    counts: Float64Array = np.count_nonzero(mask, axis=1).astype(np.float64)
    return counts


def _moments(
    a: Float64Array,
    b: Float64Array,
    a_sum: Float64Array,
    b_sum: Float64Array,
    cancelled: float,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Sums over each row of (a - mean)^2, (b - mean)^2 and their product."""
    elements = a.shape[1]
    aa, bb, ab = _products(a, b)
    moments = (
        aa - a_sum**2 / elements,
        bb - b_sum**2 / elements,
        ab - a_sum * b_sum / elements,
    )
    if (moments[0] < cancelled * aa).any() or (moments[1] < cancelled * bb).any():
        centred = a - a_sum[:, None] / elements
        return _products(centred, centred if b is a else b - b_sum[:, None] / elements)
    return moments


def _products(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    aa = _dot(a, a)
    return (aa, aa, aa) if b is a else (aa, _dot(b, b), _dot(a, b))


# Over each row, shape (channels,). The arrays' methods `min` and `max` keep other threads waiting
# (NumPy 2.4); the ufuncs do not.
def _least(values: NDArray[Any]) -> Float64Array:
    least: Float64Array = np.minimum.reduce(values, axis=1).astype(np.float64)
    return least


def _most(values: NDArray[Any]) -> Float64Array:
    most: Float64Array = np.maximum.reduce(values, axis=1).astype(np.float64)
    return most


def _sum(values: Float64Array) -> Float64Array:
    total: Float64Array = np.add.reduce(values, axis=1)
    return total


# `np.inner` lets other threads run, `np.vecdot` (NumPy 2.4) does not, but takes all rows at once.
# OpenBLAS takes all cores for products of more than 10 000 elements, if nobody forbids it as the
# command line does; its threads then wait for each other longer than they work.
_LONG_ROW = 8192
_BLAS_ALONE = os.environ.get("OPENBLAS_NUM_THREADS") == "1"


def _dot(a: Float64Array, b: Float64Array) -> Float64Array:
    """Sum of the products in each row, shape (channels,)."""
    channels, elements = a.shape
    if elements >= _LONG_ROW and _BLAS_ALONE:
        return np.array([np.inner(*rows) for rows in zip(a, b, strict=True)])
    whole = elements - elements % _LONG_ROW
    sums: Float64Array = np.vecdot(a[:, whole:], b[:, whole:])
    if whole:
        pieces = (channels, whole // _LONG_ROW, _LONG_ROW)
        sums += np.vecdot(a[:, :whole].reshape(pieces), b[:, :whole].reshape(pieces)).sum(axis=1)
    return sums
