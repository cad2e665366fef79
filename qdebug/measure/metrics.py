"""Metrics: the figures of a layer, derived from its Statistics alone.

Each figure is defined here and nowhere else; docs/metrics.md explains them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import Float64Array, QuantParams, codes_of
from qdebug.arithmetic.grids import Grid
from qdebug.measure.statistics import Statistics, side_by_side

# RMSE/scale of an error uniform over one step: the variance of a uniform variable of width 1
# is 1/12.
REFERENCE = 1 / math.sqrt(12)

# Standard error of that figure for one element. For u uniform over one step u^2 has variance
# 1/180, and the root of a mean square v changes by dv / (2 sqrt v): sqrt(1/180) / (2 sqrt(1/12)).
_STDERR_OF_ONE = math.sqrt(1 / 180) / (2 * REFERENCE)

# The guide to TFLite's Quantization Debugger looks at layers above this RMSE/scale
# (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_debugger).
TFLITE_THRESHOLD = 0.7

# Below this SQNR the signal suffers: a carried error is bad, and more bits are worth their cost.
LOW_SQNR_DB = 20.0

_TOLERATED_SHARE = 0.05
TOLERATED_TIMES = 0.1

# With more bits than this, the share of codes in use means nothing (int32 biases).
_RANGE_WASTE_BITS = 16

# Number of channels whose figures are computed together.
_MADE_TOGETHER = 1 << 12


@dataclass(frozen=True)
class Metrics:
    """The figures of one layer or one of its channels; None for a figure that does not exist.

    x: float reference, q: codes, D(q) = (q - z) * s, e = D(q) - x. "Steps": in units of the
    scale s, each element by its own channel's. "Share": 0 to 1.

    A layer with a `Grid` has no single step in a channel. There `times_expected` takes the place of
    rmse_scale; D(q) is the float that a code stands for, an element's step is the width of its own
    cell, and the line (`fit_scale`) is over D(q) instead of the codes: 1 for a sound layer.
    """

    num_elements: int
    """Finite elements; all other figures are over them."""
    non_finite: int | None
    """NaN and infinite elements of x; None if the source does not say."""
    mean_error: float | None
    """mean(e), in x's unit."""
    mean_error_scale: float | None
    """mean(e/s), in steps."""
    outward_error_scale: float | None
    """mean(sign(x) * e/s), in steps: away from zero is positive. -0.5 for truncation toward it."""
    stddev: float | None
    """Population standard deviation of e, in x's unit."""
    max_abs_error: float | None
    """max |e|, in x's unit."""
    max_abs_error_scale: float | None
    """max |e/s|, in steps."""
    mse: float | None
    """mean(e^2), in x's unit squared."""
    rmse: float | None
    """sqrt(mse), in x's unit."""
    rmse_scale: float | None
    """sqrt(mean((e/s)^2)), in steps; 0.289 for rounding alone."""
    rmse_scale_expected: float | None
    """0.289 * sqrt(1 - share of exact zeros in x), in steps: rounding alone; zeros are exact."""
    rmse_scale_stderr: float | None
    """Standard error of rmse_scale under rounding alone, 0.1291 / sqrt(n), in steps."""
    times_expected: float | None
    """rms(e) / sqrt(mean expected square): 1 for rounding alone. Only where steps differ.

    The expected square of an element is that of an error uniform over its own cell, with half
    distances a and b to the values beside it: (a^3 + b^3) / (3 (a + b)). For layers with one step
    per tensor or channel, rmse_scale against 0.289 says the same."""
    times_expected_stderr: float | None
    """Standard error of times_expected under rounding alone: 0.447 / sqrt(n) for equal steps."""
    quantizer_rmse_scale: float | None
    """rmse_scale of D(Q(x)) - x, in steps: this layer's own rounding and clipping."""
    carried_rmse_scale: float | None
    """rmse_scale of D(q) - D(Q(x)), in steps: the error in the codes that arrived."""
    clipped: float | None
    """Share of x outside [D(qmin) - s/2, D(qmax) + s/2]."""
    clipped_error_share: float | None
    """Share of the quantizer's squared error (in steps) that comes from clipped x.

    Where steps differ, of all squared error, in x's unit squared."""
    saturated: float | None
    """Share of q at qmin or qmax."""
    lost: float | None
    """Share of the floats that are not zero whose code is that of zero."""
    small: float | None
    """Share of the floats that are not zero whose code is at most four steps from that of zero."""
    range_waste: float | None
    """Share of the codes below Q(min x) or above Q(max x); the mean over channels."""
    range_waste_low: float | None
    """Share of the codes below Q(min x)."""
    range_waste_high: float | None
    """Share of the codes above Q(max x)."""
    sqnr_db: float | None
    """10 log10(sum x^2 / sum e^2), in dB."""
    cosine_similarity: float | None
    """Cosine of the angle between x and D(q): 1 for the same direction."""
    float_min: float | None
    """min x."""
    float_max: float | None
    """max x."""
    float_mean: float | None
    """mean x."""
    float_std: float | None
    """Population standard deviation of x."""
    float_mean_abs: float | None
    """mean |x|: the magnitude of the bulk, which a few outliers hardly change."""
    quantized_min: int | None
    """min q, a code."""
    quantized_max: int | None
    """max q, a code."""
    fit_scale: float | None
    """Scale of the least-squares line x = fit_scale * (q - fit_zero_point)."""
    fit_zero_point: float | None
    """Zero point of that line."""
    fit_rmse_scale: float | None
    """Root mean square of x less that line, in steps of fit_scale: 0.289 for codes on a line.

    None for a layer quantized per channel: each channel has its own line. Where steps differ, in
    steps of 1 / fit_scale: times fit_scale it is in x's unit."""
    model_rmse_scale: float | None
    """rmse_scale of D(q) against the float model's own run, in steps."""
    model_sqnr_db: float | None
    """sqnr_db of D(q) against the float model's own run, in dB."""
    inherited_rmse_scale: float | None
    """rmse_scale of x against the float model's own run, in steps: error in the layer's inputs."""
    model_min: float | None
    """Least value in the float model's own run."""
    model_max: float | None
    """Largest value in the float model's own run."""
    model_clipped: float | None
    """Share of the float model's own values outside [D(qmin) - s/2, D(qmax) + s/2]."""
    inherited_non_finite: int | None
    """NaN and infinite elements of x that are finite in the float model's own run."""
    weights_rmse_scale: float | None
    """sqrt(mean(((w - x)/s)^2)), in steps: w is x with the operator's weights quantized."""
    arithmetic_rmse_scale: float | None
    """sqrt(mean((q - Q(w))^2)), in steps: what the kernel computed otherwise than it should."""

    @property
    def rmse_scale_ratio(self) -> float | None:
        """rmse_scale over rmse_scale_expected: 1 for rounding alone. None if x is all zeros.

        Where steps differ, times_expected.
        """
        if self.times_expected is not None:
            return self.times_expected
        if self.rmse_scale is None or not self.rmse_scale_expected:
            return None
        return self.rmse_scale / self.rmse_scale_expected

    @property
    def steps(self) -> float | None:
        """rmse_scale; where steps differ 0.289 * times_expected, which is the same for equal steps.

        By this, layers of all kinds are compared.
        """
        if self.times_expected is not None:
            return REFERENCE * self.times_expected
        return self.rmse_scale

    @property
    def rmse_scale_limit(self) -> float:
        """The largest rmse_scale that rounding alone explains, in steps.

        It is above the expected value by 5 % or three standard errors, whichever is more, so that a
        small layer is not called bad by luck. Where the share of zeros, and so the expected value,
        is unknown, 0.289 stands for it: the most that rounding alone gives.
        """
        expected = REFERENCE if self.rmse_scale_expected is None else self.rmse_scale_expected
        return expected + tolerated_excess(self)

    @property
    def exceeds_reference(self) -> bool:
        """Whether the error is more than rounding alone explains.

        That is above `rmse_scale_limit`, or where steps differ above `times_expected_limit`.
        """
        if self.times_expected is not None:
            return self.times_expected > times_expected_limit(self)
        return self.rmse_scale is not None and self.rmse_scale > self.rmse_scale_limit


def tolerated_excess(metrics: Metrics, stderrs: float = 3.0) -> float:
    """How far above its expected value rmse_scale may be without a cause, in steps.

    The larger of a share of that value, because real errors are not exactly uniform, and `stderrs`
    standard errors, because a small layer may exceed it by chance.
    """
    expected = REFERENCE if metrics.rmse_scale_expected is None else metrics.rmse_scale_expected
    return max(_TOLERATED_SHARE * expected, stderrs * (metrics.rmse_scale_stderr or 0.0))


def times_expected_limit(metrics: Metrics, stderrs: float = 3.0) -> float:
    """The largest times_expected that rounding alone explains.

    It is above 1 by 10 % and by `stderrs` standard errors. Sound quantizers of blocks reach 1.09
    (docs/weights.md): the range of their codes has one end that is a step shorter than the other.
    """
    return 1 + TOLERATED_TIMES + stderrs * (metrics.times_expected_stderr or 0.0)


def rmse_scale_stderr(count: Any) -> Any:
    """Standard error of rmse_scale under rounding alone, for `count` elements; see `Metrics`."""
    return _STDERR_OF_ONE / count**0.5


# Figures of channels, by name; one that does not exist is not finite.
Columns = Mapping[str, Float64Array]

FIGURES = tuple(field.name for field in fields(Metrics))
_WHOLE = (
    "num_elements",
    "non_finite",
    "quantized_min",
    "quantized_max",
    "inherited_non_finite",
)


# These need one step in a channel, or codes.
_OF_ONE_STEP = (
    *("rmse_scale", "rmse_scale_expected", "rmse_scale_stderr"),
    *("quantizer_rmse_scale", "carried_rmse_scale", "small"),
    *("range_waste", "range_waste_low", "range_waste_high", "quantized_min", "quantized_max"),
)


def layer_metrics(statistics: Statistics, params: QuantParams | Grid) -> Metrics:
    """The figures of a whole layer."""
    return layers_metrics([(statistics, params)])[0]


def layers_metrics(layers: Sequence[tuple[Statistics, QuantParams | Grid]]) -> list[Metrics]:
    """The figures of whole layers, computed together: thousands of small ones take no time."""
    if not layers:
        return []
    starts = np.cumsum([0, *(params.channels for _, params in layers[:-1])])
    seen = np.concatenate([statistics.count for statistics, _ in layers]) > 0
    with np.errstate(invalid="ignore"):
        mean_low, mean_high = (
            np.add.reduceat(np.where(seen, waste, 0.0), starts) / np.add.reduceat(seen, starts)
            for waste in _range_waste(layers)
        )
    on_grid = np.array([isinstance(params, Grid) for _, params in layers])
    one_line = on_grid | np.array([params.channels == 1 for _, params in layers])
    pooled = side_by_side([statistics.pooled() for statistics, _ in layers])
    return _metrics(_columns(pooled, on_grid, one_line, mean_low, mean_high))


class ChannelMetrics(Sequence[Metrics]):
    """The figures of each channel, computed on demand: there may be very many."""

    def __init__(self, statistics: Statistics, params: QuantParams | Grid) -> None:
        self._statistics = statistics
        self._params = params
        self._made: list[Metrics] = []
        self._first = 0  # first channel of those in `_made`

    def __len__(self) -> int:
        return self._params.channels

    @overload
    def __getitem__(self, index: int) -> Metrics: ...
    @overload
    def __getitem__(self, index: slice) -> list[Metrics]: ...
    def __getitem__(self, index: int | slice) -> Metrics | list[Metrics]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        if not 0 <= index - self._first < len(self._made):
            self._first = index - index % _MADE_TOGETHER
            self._made = _metrics(self._columns(self._first))
        return self._made[index - self._first]

    def scale(self, first: int) -> Float64Array:
        """The scales of the channels whose figures `columns` gives together; not of grids."""
        assert isinstance(self._params, QuantParams)
        return self._params.scale[first : first + _MADE_TOGETHER]

    def columns(self) -> Iterator[tuple[int, Columns]]:
        """The figures of all channels as arrays, some channels at a time, and the first of them."""
        for first in range(0, len(self), _MADE_TOGETHER):
            yield first, self._columns(first)

    def _columns(self, first: int) -> Columns:
        channels = slice(first, first + _MADE_TOGETHER)
        some, params = self._statistics.of(channels), self._params
        if isinstance(params, QuantParams):
            scale, zero_point = params.scale[channels], params.zero_point[channels]
            params = replace(params, scale=scale, zero_point=zero_point)
        each = np.ones(some.channels, bool)
        on_grid = isinstance(params, Grid) & each
        return _columns(some, on_grid, each, *_range_waste([(some, params)]))


def metrics_at(columns: Columns, places: NDArray[np.intp]) -> list[Metrics]:
    """The figures at some places of the columns."""
    return _metrics({name: column[places] for name, column in columns.items()})


def _range_waste(
    layers: Sequence[tuple[Statistics, QuantParams | Grid]],
) -> tuple[Float64Array, Float64Array]:
    """Shares of the code range below Q(min x) and above Q(max x), for all channels of all layers.

    NaN for codes of more bits than it is told of, and for grids.
    """
    affine = [(s, params) for s, params in layers if isinstance(params, QuantParams)]
    if len(affine) == len(layers):
        return _affine_waste(affine)
    low, high = _affine_waste(affine) if affine else (np.empty(0), np.empty(0))
    places = np.repeat(
        [isinstance(params, QuantParams) for _, params in layers], [s.channels for s, _ in layers]
    )
    wastes = np.full((2, len(places)), np.nan)
    wastes[:, places] = low, high
    return wastes[0], wastes[1]


def _affine_waste(
    layers: Sequence[tuple[Statistics, QuantParams]],
) -> tuple[Float64Array, Float64Array]:
    """The same, without grids."""
    channels = [params.channels for _, params in layers]

    def of_params(get: Callable[[QuantParams], float]) -> Float64Array:
        return np.repeat(np.array([get(params) for _, params in layers], np.float64), channels)

    qmin, qmax = of_params(lambda p: p.qmin), of_params(lambda p: p.qmax)
    told = of_params(lambda p: p.bits) <= _RANGE_WASTE_BITS
    extremes = np.concatenate([np.stack([s.x_min, s.x_max]) for s, _ in layers], axis=1)
    scale = np.concatenate([params.scale for _, params in layers])
    zero_point = np.concatenate([params.zero_point for _, params in layers])
    lowest, highest = codes_of(extremes, scale, zero_point, (qmin, qmax))
    half_even = of_params(lambda p: p.rounding == "half_even") > 0
    if half_even.any():
        evenly = codes_of(extremes, scale, zero_point, (qmin, qmax), "half_even")
        lowest, highest = np.where(half_even, evenly, (lowest, highest))
    span = np.where(told, qmax - qmin, np.nan)
    return (lowest - qmin) / span, (qmax - highest) / span


def _metrics(columns: Columns) -> list[Metrics]:
    """Metrics of every channel."""
    rows = zip(*(_figures(name, columns[name]) for name in FIGURES), strict=True)
    return [Metrics(*row) for row in rows]


def _columns(
    statistics: Statistics,
    on_grid: NDArray[np.bool_],
    one_line: NDArray[np.bool_],
    range_waste_low: Float64Array,
    range_waste_high: Float64Array,
) -> Columns:
    """The figures of every channel of `statistics`.

    Args:
        statistics: of some channels.
        on_grid: whether a channel's steps differ: it is of a layer with a `Grid`.
        one_line: whether all of a channel's codes lie on one line.
        range_waste_low: of the channels.
        range_waste_high: of the channels.
    """
    t = statistics
    with np.errstate(all="ignore"):
        n = np.where(t.count > 0, t.count, np.nan)
        x_square = t.x_moment + t.x_sum**2 / n
        e_square = t.e_moment + t.e_sum**2 / n
        varies = (t.x_min < t.x_max) & (t.q_min < t.q_max)
        fit_scale = np.where(varies, t.xq_moment / t.q_moment, np.nan)
        fit_zero_point = t.q_sum / n - t.x_sum / n / fit_scale
        cosine = t.xd_product / np.sqrt(x_square) / np.sqrt(t.d_square)
        model_n = np.where(t.model_count > 0, t.model_count, np.nan)
        weights_n = np.where(t.weights_count > 0, t.weights_count, np.nan)
        expected = np.where(on_grid & (t.expected_square > 0), t.expected_square, np.nan)
        not_zero = np.where(t.zeros < n, n - t.zeros, np.nan)
        figures = {
            "num_elements": t.count,
            "non_finite": t.non_finite,
            "mean_error": t.e_sum / n,
            "mean_error_scale": t.steps_sum / n,
            "outward_error_scale": t.steps_outward / n,
            "stddev": np.sqrt(t.e_moment / n),
            "max_abs_error": t.e_max,
            "max_abs_error_scale": t.steps_max,
            "mse": e_square / n,
            "rmse": np.sqrt(e_square / n),
            "rmse_scale": np.sqrt(t.steps_square / n),
            "rmse_scale_expected": REFERENCE * np.sqrt(1 - t.zeros / n),
            "rmse_scale_stderr": rmse_scale_stderr(n),
            "times_expected": np.sqrt(e_square / expected),
            "times_expected_stderr": np.sqrt(t.expected_variance) / expected / 2,
            "quantizer_rmse_scale": np.sqrt(t.quantizer_square / n),
            "carried_rmse_scale": np.sqrt(t.carried_square / n),
            "clipped": t.clipped / n,
            "clipped_error_share": t.clipped_square
            / np.where(on_grid, e_square, t.quantizer_square),
            "saturated": t.saturated / n,
            "range_waste": np.where(t.count > 0, range_waste_low + range_waste_high, np.nan),
            "range_waste_low": np.where(t.count > 0, range_waste_low, np.nan),
            "range_waste_high": np.where(t.count > 0, range_waste_high, np.nan),
            "lost": t.lost / not_zero,
            "small": t.small / not_zero,
            "sqnr_db": 10 * np.log10(x_square / e_square),
            "cosine_similarity": np.clip(cosine, -1, 1),  # rounding may exceed the range
            "float_min": t.x_min,
            "float_max": t.x_max,
            "float_mean": t.x_sum / n,
            "float_std": np.sqrt(t.x_moment / n),
            "float_mean_abs": t.x_magnitude / n,
            "quantized_min": t.q_min,
            "quantized_max": t.q_max,
            "fit_scale": fit_scale,
            "fit_zero_point": fit_zero_point,
            "fit_rmse_scale": np.where(
                one_line, np.sqrt(t.line_square / n) / np.abs(fit_scale), np.nan
            ),
            "model_rmse_scale": np.sqrt(t.model_steps_square / model_n),
            "model_sqnr_db": 10 * np.log10(t.model_square / t.model_error_square),
            "inherited_rmse_scale": np.sqrt(t.inherited_square / model_n),
            "model_min": t.m_min,
            "model_max": t.m_max,
            "model_clipped": t.model_clipped / model_n,
            "inherited_non_finite": np.where(t.model_count > 0, t.model_only, np.nan),
            "weights_rmse_scale": np.sqrt(t.weights_square / weights_n),
            "arithmetic_rmse_scale": np.sqrt(t.arithmetic_square / weights_n),
        }
        if on_grid.any():
            for name in _OF_ONE_STEP:
                figures[name] = np.where(on_grid, np.nan, figures[name])
            # Without cells, nothing is known in steps.
            for name in ("mean_error_scale", "outward_error_scale", "max_abs_error_scale"):
                figures[name] = np.where(on_grid & np.isnan(expected), np.nan, figures[name])
        return figures


def _figures(name: str, column: Float64Array) -> list[Any]:
    """A figure of every channel; None if it does not exist."""
    finite = np.isfinite(column)
    missing = np.flatnonzero(~finite)
    column = column + 0.0  # no -0.0
    if missing.size:
        column = np.where(finite, column, 0.0)
    values: list[Any] = (column.astype(np.int64) if name in _WHOLE else column).tolist()
    for index in missing:
        values[index] = None
    return values
