"""Summary: a layer's floats in bounded memory, good enough to choose ranges from.

Knows nothing of quantization. A small layer's summary is its floats; a large one's is a histogram
whose bins are as fine, relative to their values, near zero as at the ends, so that outliers do not
hide the bulk.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import Float64Array

# Up to so many elements, the floats themselves: what the error searches do in a quarter second.
WHOLE_ELEMENTS = 1 << 16

# Bins of all channels together, both signs: 8 MB.
_MOST_BINS = 1 << 20
# A bin is this share of the largest value's power of two below it, or finer: 2^-11.
_MOST_MANTISSA_BITS = 11
# Below 2^-32 of its channel's largest value an element counts as zero: no code of 16 bits or fewer
# could tell, however much of the range is clipped.
_OCTAVES = 32

# More channels than this would need more bins than there are.
MOST_CHANNELS = _MOST_BINS // (2 * _OCTAVES)

# Where in its bin an element is taken to be: spread evenly from bin to bin, for bins at equal
# distances would all meet the steps of a quantizer in the same place.
_SPREAD = (math.sqrt(5) - 1) / 2

_FLOAT32_MANTISSA_BITS = 23
_FLOAT32_BIAS = 127


@dataclass(frozen=True, eq=False)
class Summary:
    """Floats by channel: `rows` of shape (channels, points), NaN where a channel has fewer.

    `weights`, of the same shape, is how many elements a point stands for; None where each stands
    for itself. A point is then within a relative 2^-`mantissa_bits` of its elements.
    """

    rows: Float64Array
    weights: Float64Array | None = None
    mantissa_bits: int | None = None


class Summarizer:
    """Takes a layer's floats block by block, once, and gives their summary."""

    def __init__(self, largest: ArrayLike, elements: int) -> None:
        """Begin.

        Args:
            largest: the largest magnitude among each channel's finite floats, shape (channels,).
            elements: how many floats will come, about; decides how they are kept.
        """
        self._largest = np.array(largest, np.float64, ndmin=1)
        channels = self._largest.size
        if channels > MOST_CHANNELS:
            raise ValueError(f"found {channels} channels, expected at most {MOST_CHANNELS}")
        self._whole: list[Float64Array] | None = [] if elements <= WHOLE_ELEMENTS else None
        self._mantissa_bits = min(
            _MOST_MANTISSA_BITS, int(math.log2(_MOST_BINS // (2 * _OCTAVES * channels)))
        )
        # One bin more than the octaves need: for the largest value itself.
        self._bins = (_OCTAVES << self._mantissa_bits) + 1
        size = 0 if self._whole is not None else channels * 2 * self._bins
        self._counts = np.zeros(size, np.int64)

    def add(self, floats: NDArray[np.floating], first_channel: int = 0) -> None:
        """Take a slab of shape (outer, channels, inner); what is not finite is left out."""
        outer, width, inner = floats.shape
        channels = slice(first_channel, first_channel + width)
        rows = floats.transpose(1, 0, 2).reshape(width, outer * inner)
        if self._whole is not None:
            part = np.full((self._largest.size, outer * inner), np.nan)
            part[channels] = rows
            self._whole.append(part)
            return
        largest = self._largest[channels, None]
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            share = (rows / np.where(largest > 0, largest, 1.0)).astype(np.float32)
        bins = self._bins_of(share)
        bins += np.arange(first_channel, first_channel + width)[:, None] * (2 * self._bins)
        self._counts += np.bincount(bins[np.isfinite(rows)], minlength=self._counts.size)

    def summary(self) -> Summary:
        """The summary of what was taken."""
        if self._whole is not None:
            return Summary(np.concatenate([np.empty((self._largest.size, 0)), *self._whole], 1))
        counts = self._counts.reshape(self._largest.size, 2 * self._bins)
        used = counts.any(axis=0)
        weights = counts[:, used].astype(np.float64)
        points = self._points()[used] * self._largest[:, None]
        return Summary(np.where(weights > 0, points, np.nan), weights, self._mantissa_bits)

    def _bins_of(self, share: NDArray[np.float32]) -> NDArray[np.int64]:
        """The bin of each value from -1 to 1: by exponent and first bits of the mantissa."""
        shift = _FLOAT32_MANTISSA_BITS - self._mantissa_bits
        first = (_FLOAT32_BIAS - _OCTAVES) << self._mantissa_bits
        bins = (np.abs(share).view(np.uint32) >> shift).astype(np.int64)
        np.clip(bins - first, 0, self._bins - 1, out=bins)
        bins += (share < 0) * self._bins
        return bins

    def _points(self) -> Float64Array:
        """A value from -1 to 1 for each bin, shape (2 * bins,)."""
        shift = _FLOAT32_MANTISSA_BITS - self._mantissa_bits
        first = (_FLOAT32_BIAS - _OCTAVES) << self._mantissa_bits
        edges = ((np.arange(self._bins + 1) + first) << shift).astype(np.uint32).view(np.float32)
        edges = edges.astype(np.float64)
        place = (np.arange(self._bins) * _SPREAD) % 1.0
        points = edges[:-1] + place * np.diff(edges)
        points[0], points[-1] = 0.0, 1.0
        return np.concatenate([points, -points])
