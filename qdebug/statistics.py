"""Statistics: sums, extremes and counts of a layer, taken in one pass and merged in any order.

Knows nothing of the figures that `metrics` derives from them. All work is float64: on the machine
this was written on it costs some 3 ns an element, less than reading the element from a file, and
the promised accuracy (1e-6 relative) then holds for every type of floats and codes.
"""

import math
import threading
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.affine import Float64Array, QuantParams, codes_of
from qdebug.layer import Block

# An error under half a step means that the code is Q(x) itself. The margin is for float64's
# rounding of codes of up to 32 bits; whatever lies above is quantized again to be sure.
_SURELY_ROUNDED = 0.49999

# A sum of squares about zero gives the sum about the mean by subtraction, unless that cancels more
# digits than this share leaves.
_CANCELLED = 1e-6


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of a layer, by channel: every array has shape (channels,).

    x: float reference, q: code, d = D(q) = (q - z) * s, e = d - x, m: the float model's own value.
    Over the finite elements of x only; the model's over those where m is finite too.
    """

    # Counts of elements.
    count: Float64Array
    non_finite: Float64Array  # NaN or infinite x: left out of everything else
    zeros: Float64Array  # x is exactly zero
    clipped: Float64Array  # x outside [D(qmin) - s/2, D(qmax) + s/2]
    saturated: Float64Array  # q at qmin or qmax
    # Sums.
    x_sum: Float64Array
    x_magnitude: Float64Array  # |x|
    q_sum: Float64Array
    e_sum: Float64Array
    steps_sum: Float64Array  # e/s
    steps_outward: Float64Array  # e/s away from zero: e/s where x > 0, -e/s where x < 0
    steps_square: Float64Array  # (e/s)^2
    quantizer_square: Float64Array  # ((D(Q(x)) - x) / s)^2
    clipped_square: Float64Array  # of these, where x is clipped
    carried_square: Float64Array  # (q - Q(x))^2
    d_square: Float64Array  # d^2
    xd_product: Float64Array  # x * d
    # Sums about the mean.
    x_moment: Float64Array  # (x - mean x)^2
    q_moment: Float64Array
    e_moment: Float64Array
    xq_moment: Float64Array  # (x - mean x) * (q - mean q)
    # Extremes.
    x_min: Float64Array
    x_max: Float64Array
    q_min: Float64Array
    q_max: Float64Array
    e_max: Float64Array  # largest |e|
    steps_max: Float64Array  # largest |e/s|
    # Against an end-to-end run of the float model.
    model_count: Float64Array
    model_square: Float64Array  # m^2
    model_error_square: Float64Array  # (d - m)^2
    model_steps_square: Float64Array  # ((d - m) / s)^2
    inherited_square: Float64Array  # ((x - m) / s)^2

    def merged(self, other: "Statistics") -> "Statistics":
        """The statistics of both parts together; both have the same channels."""
        return _pooled(
            {
                field.name: np.stack([getattr(self, field.name), getattr(other, field.name)])
                for field in fields(self)
            }
        )

    def pooled(self) -> "Statistics":
        """The statistics of all channels together, as one channel."""
        return _pooled({field.name: getattr(self, field.name)[:, None] for field in fields(self)})

    def absorb(self, other: "Statistics", first_channel: int) -> None:
        """Merge statistics of the channels from `first_channel` on into this, in place."""
        here = slice(first_channel, first_channel + other.count.size)
        ours = Statistics(**{f.name: getattr(self, f.name)[here] for f in fields(self)})
        merged = ours.merged(other)
        for field in fields(self):
            getattr(self, field.name)[here] = getattr(merged, field.name)


_LEAST = {"x_min", "q_min"}
_MOST = {"x_max", "q_max", "e_max", "steps_max"}
# Sum about the mean -> the sums whose means it is about.
_MOMENTS = {
    "x_moment": ("x_sum", "x_sum"),
    "q_moment": ("q_sum", "q_sum"),
    "e_moment": ("e_sum", "e_sum"),
    "xq_moment": ("x_sum", "q_sum"),
}


def no_statistics(channels: int) -> Statistics:
    """The statistics of no elements: merging them changes nothing."""
    start = dict.fromkeys(_LEAST, np.inf) | dict.fromkeys(_MOST, -np.inf)
    return Statistics(
        **{
            field.name: np.full(channels, start.get(field.name, 0.0))
            for field in fields(Statistics)
        }
    )


def _pooled(parts: dict[str, Float64Array]) -> Statistics:
    """Merge over the first axis: arrays of shape (parts, channels) become (channels,).

    A sum about the mean of all is the parts' sums about their own means, plus what their means are
    apart (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983).
    """
    merged = {}
    weight = parts["count"]
    for name, values in parts.items():
        if name in _LEAST:
            merged[name] = values.min(axis=0)
        elif name in _MOST:
            merged[name] = values.max(axis=0)
        elif name in _MOMENTS:
            apart = [_apart(weight, parts[sums]) for sums in _MOMENTS[name]]
            merged[name] = (values + weight * apart[0] * apart[1]).sum(axis=0)
        else:
            merged[name] = values.sum(axis=0)
    return Statistics(**merged)


def _apart(weight: Float64Array, sums: Float64Array) -> Float64Array:
    """Each part's mean less the mean of all, shape (parts, channels)."""
    total = weight.sum(axis=0)
    apart: Float64Array = _mean(sums, weight) - _mean(sums.sum(axis=0), total)
    return apart


def _mean(sums: Float64Array, count: Float64Array) -> Float64Array:
    mean: Float64Array = sums / np.maximum(count, 1.0)
    return mean


def measure(block: Block, params: QuantParams) -> Statistics:
    """The statistics of one block, for the block's own channels."""
    stop = block.first_channel + block.floats.shape[1]
    scale, zero_point = params.rows(block.first_channel, stop)
    limits = (params.qmin, params.qmax)

    def rows() -> tuple[Float64Array, Float64Array, Float64Array | None]:
        model = None if block.model_float is None else _rows(block.model_float, "m")
        return _rows(block.floats, "x"), _rows(block.codes, "q"), model

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        statistics = _measure_finite(*rows(), scale, zero_point, limits)
        if np.isfinite(statistics.x_sum).all():  # so every element is
            return statistics
        return _measure_gaps(*rows(), scale, zero_point, limits)


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


def _measure_gaps(
    x: Float64Array,
    q: Float64Array,
    m: Float64Array | None,
    scale: Float64Array,
    zero_point: NDArray[np.int64],
    limits: tuple[int, int],
) -> Statistics:
    """Statistics where some elements are not finite: those channels one by one, without them."""
    channels, elements = x.shape
    gaps = ~np.isfinite(x).all(axis=1)
    merged = no_statistics(channels)
    whole = np.flatnonzero(~gaps)
    for rows, kept in [(whole, np.ones(elements, bool))] * bool(whole.size) + [
        (np.array([row]), np.isfinite(x[row])) for row in np.flatnonzero(gaps)
    ]:
        part = _measure_finite(
            x[rows][:, kept],
            q[rows][:, kept],
            None if m is None else m[rows][:, kept],
            scale[rows],
            zero_point[rows],
            limits,
        )
        for field in fields(part):
            getattr(merged, field.name)[rows] = getattr(part, field.name)
        merged.non_finite[rows] = elements - np.count_nonzero(kept)
    return merged


def _measure_finite(
    x: Float64Array,
    q: Float64Array,
    m: Float64Array | None,
    scale: Float64Array,
    zero_point: NDArray[np.int64],
    limits: tuple[int, int],
) -> Statistics:
    """Statistics of rows (channels, elements), all finite; `q` is overwritten."""
    channels, elements = x.shape
    if not elements:
        return no_statistics(channels)
    s = scale[:, 0]
    z = zero_point[:, 0]
    q_min, q_max = q.min(axis=1), q.max(axis=1)
    x_min, x_max = x.min(axis=1), x.max(axis=1)
    saturated = np.zeros(channels)
    for extreme, limit in ((q_min, limits[0]), (q_max, limits[1])):
        if (extreme == limit).any():
            saturated += _count(q == limit)
    zeros = _count(x == 0) if (x_min <= 0).any() and (x_max >= 0).any() else np.zeros(channels)

    steps = np.subtract(q, zero_point, out=q)  # q - z
    d = np.multiply(steps, scale, out=_scratch.take("d", x.shape))
    e = np.subtract(d, x, out=_scratch.take("e", x.shape))
    x_sum, steps_sum, e_sum = x.sum(axis=1), steps.sum(axis=1), e.sum(axis=1)
    x_moment, steps_moment, xq_moment = _moments(x, steps, x_sum, steps_sum)
    e_moment = _moments(e, e, e_sum, e_sum)[0]
    e_square = e_moment + e_sum**2 / elements

    if (x_min >= 0).all():
        x_magnitude = x_sum
    else:
        x_magnitude = np.abs(x, out=_scratch.take("magnitude", x.shape)).sum(axis=1)
    e_outward = _dot(np.sign(x, out=_scratch.take("magnitude", x.shape)), e)

    model = dict.fromkeys(
        (
            "model_count",
            "model_square",
            "model_error_square",
            "model_steps_square",
            "inherited_square",
        ),
        np.zeros(channels),
    )
    if m is not None:
        finite = np.isfinite(m)
        known = np.where(finite, m, 0.0)
        error = np.where(finite, d - known, 0.0)
        inherited = np.where(finite, x - known, 0.0)
        model = {
            "model_count": _count(finite),
            "model_square": _dot(known, known),
            "model_error_square": _dot(error, error),
            "model_steps_square": _dot(error, error) / s**2,
            "inherited_square": _dot(inherited, inherited) / s**2,
        }

    magnitude = np.abs(e, out=d)
    e_max = magnitude.max(axis=1)
    steps_square = e_square / s**2
    quantizer_square, carried_square = steps_square, np.zeros(channels)
    clipped, clipped_square = np.zeros(channels), np.zeros(channels)
    if (e_max > _SURELY_ROUNDED * s).any():
        # Only the elements whose code may not be Q(x); among them all that are clipped.
        row, column = np.nonzero(magnitude > _SURELY_ROUNDED * scale)
        doubtful, s_here, z_here = x[row, column], s[row], z[row]
        ideal = codes_of(doubtful, s_here, z_here, limits) - z_here
        e[row, column] = ideal * s_here - doubtful
        carried = steps[row, column] - ideal
        below = doubtful < (limits[0] - z_here) * s_here - s_here / 2
        above = doubtful > (limits[1] - z_here) * s_here + s_here / 2
        quantizer_square = _dot(e, e) / s**2
        carried_square = _summed(row, carried**2, channels)
        outside = below | above
        clipped = _summed(row, outside, channels)
        best_error = e[row, column] / s_here
        clipped_square = _summed(row, np.where(outside, best_error, 0.0) ** 2, channels)

    return Statistics(
        count=np.full(channels, float(elements)),
        non_finite=np.zeros(channels),
        zeros=zeros,
        clipped=clipped,
        saturated=saturated,
        x_sum=x_sum,
        x_magnitude=x_magnitude,
        q_sum=steps_sum + z * elements,
        e_sum=e_sum,
        steps_sum=e_sum / s,
        steps_outward=e_outward / s,
        steps_square=steps_square,
        quantizer_square=quantizer_square,
        clipped_square=clipped_square,
        carried_square=carried_square,
        d_square=(steps_moment + steps_sum**2 / elements) * s**2,
        xd_product=(xq_moment + x_sum * steps_sum / elements) * s,
        x_moment=x_moment,
        q_moment=steps_moment,
        e_moment=e_moment,
        xq_moment=xq_moment,
        x_min=x_min,
        x_max=x_max,
        q_min=q_min,
        q_max=q_max,
        e_max=e_max,
        steps_max=e_max / s,
        **model,
    )


def _summed(row: NDArray[np.intp], values: NDArray[Any], channels: int) -> Float64Array:
    """Sum of the values in each of `channels` rows."""
    sums: Float64Array = np.bincount(row, values, channels).astype(np.float64)
    return sums


def _count(mask: NDArray[np.bool_]) -> Float64Array:
    """True elements in each row, as float64."""
    if mask.shape[0] == 1:  # much the faster for one long row
        return np.array([float(np.count_nonzero(mask))])
    counts: Float64Array = np.count_nonzero(mask, axis=1).astype(np.float64)
    return counts


def _moments(
    a: Float64Array, b: Float64Array, a_sum: Float64Array, b_sum: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Sums over each row of (a - mean)^2, (b - mean)^2 and their product."""
    elements = a.shape[1]
    aa, bb, ab = _products(a, b)
    moments = (
        aa - a_sum**2 / elements,
        bb - b_sum**2 / elements,
        ab - a_sum * b_sum / elements,
    )
    if (moments[0] < _CANCELLED * aa).any() or (moments[1] < _CANCELLED * bb).any():
        centred = a - a_sum[:, None] / elements
        return _products(centred, centred if b is a else b - b_sum[:, None] / elements)
    return moments


def _products(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    aa = _dot(a, a)
    return (aa, aa, aa) if b is a else (aa, _dot(b, b), _dot(a, b))


# OpenBLAS takes all cores for a product of more than 10 000 elements, and its threads then wait for
# each other longer than they work.
_DOT_ELEMENTS = 8192


def _dot(a: Float64Array, b: Float64Array) -> Float64Array:
    """Sum of the products in each row, shape (channels,)."""
    channels, elements = a.shape
    whole = elements - elements % _DOT_ELEMENTS
    pieces = (channels, whole // _DOT_ELEMENTS, _DOT_ELEMENTS)
    sums: Float64Array = np.vecdot(a[:, whole:], b[:, whole:])
    if whole:
        sums += np.vecdot(a[:, :whole].reshape(pieces), b[:, :whole].reshape(pieces)).sum(axis=1)
    return sums
