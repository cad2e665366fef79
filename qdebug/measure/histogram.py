"""Histograms: the distributions of a layer's floats, codes and error, gathered block by block."""

import math

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.arrays import known, place, readable
from qdebug.measure.kernel.library import library
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import Metrics

_MOST_BINS = 256
# Floats outside the representable range by more than this share of it are counted at the edge.
_MOST_OUTSIDE = 0.5
# Errors larger than this many steps are counted at the edge.
_MOST_STEPS = 6.0
_ERROR_BINS_A_STEP = 20
# Errors are multiplied by this, so that half a step, give or take a float's last digit, counts as
# rounding.
_JUST_INSIDE = 1 - 1e-4


class Histogram:
    """Counts in bins of one width; the first and last bins include all values beyond them.

    Attributes:
        edges: of the bins, shape (bins + 1,).
        counts: elements in each, shape (bins,).
    """

    def __init__(self, low: float, high: float, bins: int) -> None:
        """No counts yet, in `bins` bins from `low` to `high`."""
        self.edges: NDArray[np.float64] = np.linspace(low, high, bins + 1)
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Count finite values."""
        inside = np.clip(values, self.edges[0], self.edges[-1])
        self.counts += np.histogram(inside, len(self.counts), (self.edges[0], self.edges[-1]))[0]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the elements in each bin."""
        shares: NDArray[np.float64] = self.counts / max(self.counts.sum(), 1.0)
        return shares


class Distributions:
    """A layer's floats and codes, both in codes (x/s + z and q), and its error in steps.

    Measured in codes, channels of different scales share one axis, and every bin holds the same
    number of codes. The errors exclude the `exact_zeros`, the exact zeros that stayed exact,
    because they would hide all others.
    """

    def __init__(self, params: QuantParams, metrics: Metrics) -> None:
        """Begin; `metrics` gives the ranges; the layer must have a finite element."""
        self.params = params
        assert metrics.quantized_min is not None
        assert metrics.quantized_max is not None
        # All codes; for 32 bits only the used ones, because the full range is never used.
        first, last = params.qmin, params.qmax
        if params.bits > 16:
            first, last = metrics.quantized_min, metrics.quantized_max
        reach = _MOST_OUTSIDE * (last - first + 1)
        low, high = first - 0.5, last + 0.5
        if metrics.clipped or params.bits > 16:
            assert metrics.float_min is not None
            assert metrics.float_max is not None
            least = float((metrics.float_min / params.scale + params.zero_point).min())
            largest = float((metrics.float_max / params.scale + params.zero_point).max())
            low = max(min(low, least), low - reach)
            high = min(max(high, largest), high + reach)
        most = min(_MOST_BINS, max(16, int(4 * math.sqrt(metrics.num_elements))))
        # Whole codes, counted from `first - 0.5`, so that no bin holds more codes than another.
        width = max(math.ceil((last - first + 1) / most), 1)
        below = math.ceil((first - 0.5 - low) / width)
        above = math.ceil((high - first + 0.5) / width)
        edges = (first - 0.5 - below * width, first - 0.5 + above * width, below + above)
        steps = min(max(1.0, math.ceil(metrics.max_abs_error_scale or 0.0)), _MOST_STEPS)
        self.floats = Histogram(*edges)
        self.codes = Histogram(*edges)
        self.errors = Histogram(-steps, steps, int(2 * steps * _ERROR_BINS_A_STEP))
        self.exact_zeros = 0

    def add(self, layer: Layer, block: Block) -> None:
        """Count a block."""
        kernel = library()
        if kernel is None or not (known(block.floats) and known(block.codes)):
            self._add_plainly(block)
            return
        outer, channels, inner = block.floats.shape
        here = slice(block.first_channel, block.first_channel + channels)
        scale = np.broadcast_to(self.params.scale[here], channels).copy()
        zero_point = np.broadcast_to(self.params.zero_point[here], channels).copy()
        x, q = readable(block.floats), readable(block.codes)
        self.exact_zeros += kernel.qdebug_distribute(
            *(*place(x), *place(q)),
            *(outer, channels, inner),
            *(scale.ctypes.data, zero_point.ctypes.data),
            *(self.floats.edges.ctypes.data, len(self.floats.counts)),
            *(self.floats.counts.ctypes.data, self.codes.counts.ctypes.data),
            *(self.errors.edges.ctypes.data, len(self.errors.counts)),
            self.errors.counts.ctypes.data,
            _JUST_INSIDE,
        )

    def _add_plainly(self, block: Block) -> None:
        """Count a block in NumPy."""
        x = block.floats.astype(np.float64)  # (outer, channels, inner)
        first = block.first_channel
        scale, zero_point = self.params.rows(first, first + x.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            x = x / scale + zero_point
        finite = np.isfinite(x)
        exact = (block.floats == 0) & (block.codes == zero_point)
        self.floats.add(x[finite])
        self.codes.add(block.codes[finite].astype(np.float64))
        self.errors.add((block.codes - x)[finite & ~exact] * _JUST_INSIDE)
        self.exact_zeros += int(np.count_nonzero(exact))

    def merge(self, other: "Distributions") -> None:
        """Merge another's counts."""
        for mine, theirs in (
            (self.floats, other.floats),
            (self.codes, other.codes),
            (self.errors, other.errors),
        ):
            mine.counts += theirs.counts
        self.exact_zeros += other.exact_zeros


class CellErrors:
    """The errors of a layer with a `Grid`, over twice the half distance on their side of the value.

    So rounding alone leaves them between -1/2 and 1/2, as errors in steps are in `Distributions`.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Begin; `metrics` gives the range."""
        steps = min(max(1.0, math.ceil(metrics.max_abs_error_scale or 0.0)), _MOST_STEPS)
        self.errors = Histogram(-steps, steps, int(2 * steps * _ERROR_BINS_A_STEP))
        self.exact_zeros = 0

    def add(self, layer: Layer, block: Block) -> None:
        """Count a block; elements without a cell are left out."""
        if block.below is None or block.above is None:
            return
        x = block.floats.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            error = block.codes - x
            steps = error / (2 * np.where(error > 0, block.below, block.above).astype(np.float64))
        exact = (x == 0) & (error == 0)
        self.errors.add(steps[np.isfinite(steps) & ~exact] * _JUST_INSIDE)
        self.exact_zeros += int(np.count_nonzero(exact))

    def merge(self, other: "CellErrors") -> None:
        """Merge another's counts."""
        self.errors.counts += other.errors.counts
        self.exact_zeros += other.exact_zeros
