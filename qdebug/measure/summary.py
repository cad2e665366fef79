"""Summary: a layer's floats in bounded memory, good enough to choose ranges from.

Knows nothing of quantization. The summary of a small layer is its floats. That of a large layer is
a histogram with bins of the same relative width everywhere, so outliers do not hide the small
values.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import Float64Array
from qdebug.measure.kernel import bins

# Up to this many elements the floats themselves are kept. The error search over them takes a
# quarter of a second.
WHOLE_ELEMENTS = 1 << 16

# Bins of all channels and both signs together.
_MOST_BINS = 1 << 20
MOST_BYTES_OF_SUMMARY = 8 * _MOST_BINS
# The width of a bin is 2^-11 of the power of two below its values, or less.
_MOST_MANTISSA_BITS = 11
# Below 2^-32 of its channel's largest value an element counts as zero. Codes of 16 bits or fewer
# cannot resolve it, however much of the range is clipped.
_OCTAVES = 32

# More channels than this would need more than `_MOST_BINS`.
MOST_CHANNELS = _MOST_BINS // (2 * _OCTAVES)

# An element's assumed position in its bin varies evenly from bin to bin. At equal distances, all
# bins would fall on the same place in a quantizer's step.
_SPREAD = (math.sqrt(5) - 1) / 2

_FLOAT32_MAX_BITS = int(np.finfo(np.float32).max.view(np.uint32))


@dataclass(frozen=True, eq=False)
class Summary:
    """Floats by channel: `rows` of shape (channels, points), NaN where a channel has fewer.

    `weights`, of the same shape, is the number of elements per point; None means one each. With
    weights, a point is within a relative 2^-`mantissa_bits` of its elements; the least and the
    largest element of a channel are exact.
    """

    rows: Float64Array
    weights: Float64Array | None = None
    mantissa_bits: int | None = None


class Summarizer:
    """Takes a layer's floats slab by slab, in one pass, and returns their summary.

    A bin's number is the exponent and the first mantissa bits of a float32. If a value exceeds the
    largest so far, the window of `_OCTAVES` moves up. Elements that fall out at its lower end count
    as zero, as they would if the largest value had come first.
    """

    def __init__(self, unit: ArrayLike) -> None:
        """Begin.

        Args:
            unit: a positive float per channel, shape (channels,), of about the magnitude of the
                floats, such as their scale. Floats are counted in this unit, as float32.
        """
        self._unit = np.array(unit, np.float64, ndmin=1)
        channels = self._unit.size
        if channels > MOST_CHANNELS:
            raise ValueError(f"found {channels} channels, expected at most {MOST_CHANNELS}")
        self._mantissa_bits = min(
            _MOST_MANTISSA_BITS, int(math.log2(_MOST_BINS // (2 * _OCTAVES * channels)))
        )
        self._bins = _OCTAVES << self._mantissa_bits
        self._whole: list[Float64Array] | None = []
        self._counts = np.zeros((0, 2, 0), np.int64)  # (channels, sign, bins), once there are many
        self._first = np.zeros(channels, np.int64)  # number of the window's lowest bin
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)

    def add(self, floats: NDArray[np.floating], first_channel: int = 0) -> None:
        """Add a slab of shape (outer, channels, inner); non-finite elements are left out."""
        if self._whole is None:
            self._count(floats, first_channel)
            return
        outer, width, inner = floats.shape
        rows = floats.transpose(1, 0, 2).reshape(width, outer * inner)
        part = rows.astype(np.float64)
        if width < self._unit.size:
            part = np.full((self._unit.size, outer * inner), np.nan)
            part[first_channel : first_channel + width] = rows
        self._whole.append(part)
        self._count_if_many()

    def merge(self, other: "Summarizer") -> None:
        """Merge another summarizer with the same unit."""
        if self._whole is not None and other._whole is not None:
            self._whole += other._whole
            self._count_if_many()
            return
        for each in (self, other):
            each._count_whole()
        self._move_up(np.maximum(self._first, other._first))
        other._move_up(self._first)
        self._counts += other._counts
        self._low = np.minimum(self._low, other._low)
        self._high = np.maximum(self._high, other._high)

    def summary(self) -> Summary:
        """The summary of all floats so far."""
        if self._whole is not None:
            return Summary(np.concatenate([np.empty((self._unit.size, 0)), *self._whole], 1))
        counts = self._counts.reshape(self._unit.size, 2 * self._bins)
        used = np.asarray(counts.any(axis=0))
        weights = counts[:, used].astype(np.float64)
        points, taken = self._points(used) * self._unit[:, None], weights > 0
        for ends, reduce, start in (
            (self._low, np.minimum, np.inf),
            (self._high, np.maximum, -np.inf),
        ):
            outermost = reduce.reduce(points, axis=1, where=taken, initial=start, keepdims=True)
            points = np.where(taken & (points == outermost), ends[:, None], points)
        return Summary(np.where(taken, points, np.nan), weights, self._mantissa_bits)

    def _count_if_many(self) -> None:
        if self._whole and sum(part.size for part in self._whole) > WHOLE_ELEMENTS:
            self._count_whole()

    def _count_whole(self) -> None:
        """Count the floats that were kept whole."""
        if self._whole is None:
            return
        kept, self._whole = self._whole, None
        self._counts = np.zeros((self._unit.size, 2, self._bins), np.int64)
        for part in kept:
            self._count(part[None], 0)

    def _count(self, floats: NDArray[np.floating], first_channel: int) -> None:
        """Count a slab of shape (outer, channels, inner)."""
        here = slice(first_channel, first_channel + floats.shape[1])
        low, high = bins.extremes(floats)
        self._low[here] = np.minimum(self._low[here], low)
        self._high[here] = np.maximum(self._high[here], high)
        # The window ends with the octave of the largest value.
        largest = bins.in_units(np.maximum(np.maximum(-low, high), 0.0), self._unit[here])
        octave = 1 << self._mantissa_bits
        last = bins.numbers(largest, self._mantissa_bits) // octave * octave
        first = self._first.copy()
        first[here] = np.maximum(first[here], last + octave - self._bins)
        self._move_up(first)
        of_window = self._unit[here], self._first[here], self._mantissa_bits
        bins.count(self._counts[here], floats, *of_window)

    def _move_up(self, first: NDArray[np.int64]) -> None:
        """Start each channel's window at this bin; elements below it count as zero."""
        for channel in np.flatnonzero(first > self._first):
            steps = min(int(first[channel] - self._first[channel]), self._bins - 1)
            counts = self._counts[channel]
            moved = np.zeros_like(counts)
            moved[:, : self._bins - steps] = counts[:, steps:]
            moved[:, 0] += counts[:, :steps].sum(axis=1)
            self._counts[channel] = moved
            self._first[channel] = first[channel]

    def _points(self, used: NDArray[np.bool_]) -> Float64Array:
        """A value, in units, for each used bin of each channel, shape (channels, used)."""
        shift = bins.FLOAT32_MANTISSA_BITS - self._mantissa_bits
        sign, place = np.divmod(np.flatnonzero(used), self._bins)
        number = self._first[:, None] + place
        lower, upper = (
            np.minimum(edge << shift, _FLOAT32_MAX_BITS)
            .astype(np.uint32)
            .view(np.float32)
            .astype(np.float64)
            for edge in (number, number + 1)
        )
        points = lower + (place * _SPREAD) % 1.0 * (upper - lower)
        points = np.where(place == 0, 0.0, points)
        return np.where(sign == 1, -points, points)
