"""The page's charts as numbers: where bars, curves and lines go. Draws nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qdebug.formatting import percent, significant
from qdebug.measure.histogram import CellErrors, Distributions, Histogram
from qdebug.measure.metrics import REFERENCE, TFLITE_THRESHOLD, Metrics
from qdebug.report.report import ChannelReport, LayerReport

# The overview: a bar for the local and one for the accumulated error of each layer.
_LEAST, _HEIGHT = 0.05, 220
# Room for each layer: as much as fills the page, within bounds.
_PAGE, _LEAST_STEP, _MOST_STEP = 1100, 16, 44
_DECADES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)

_MOST_CHANNEL_BARS = 256


@dataclass(frozen=True)
class Bar:
    """A bar from `top` down to the chart's floor."""

    x: float
    top: float
    height: float
    kind: str
    width: float


@dataclass(frozen=True)
class Place:
    """A layer in the overview: its bars, and what hovering says."""

    index: int
    x: float
    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Line:
    """A horizontal line with its label."""

    y: float
    label: str
    reference: bool = False


@dataclass(frozen=True)
class Overview:
    """The error of all layers in graph order, on a logarithmic axis."""

    width: float
    height: float
    step: float
    places: Sequence[Place]
    lines: Sequence[Line]
    accumulated: bool


def overview(layers: Sequence[LayerReport], names: Sequence[str]) -> Overview | None:
    """The overview of a report; None if no layer has a figure to draw."""
    values = [
        value
        for layer in layers
        if layer.metrics
        for value in (layer.metrics.steps, layer.metrics.model_rmse_scale)
        if value is not None and math.isfinite(value)
    ]
    if not values:
        return None
    most = max(*values, 2 * TFLITE_THRESHOLD) * 1.3

    def y(value: float) -> float:
        share = math.log(max(value, _LEAST) / _LEAST) / math.log(most / _LEAST)
        return round(_HEIGHT * (1 - share), 1)

    step = min(max(_PAGE // len(layers), _LEAST_STEP), _MOST_STEP)
    wide = 0.38 * step
    places = []
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        m, x = layer.metrics, index * step
        bars, said = [], [name]
        if m is None or m.steps is None:
            said.append("no figures")
        else:
            verdict = layer.diagnosis.verdict if layer.diagnosis else "ok"
            bars.append(_bar(x + 0.1 * step, y(m.steps), f"v-{verdict}", wide))
            said.append(f"local {significant(m.steps)} steps")
            if m.model_rmse_scale is not None:
                bars.append(_bar(x + 0.52 * step, y(m.model_rmse_scale), "accumulated", wide))
                said.append(f"accumulated {significant(m.model_rmse_scale)}")
        places.append(Place(index, x, ", ".join(said), bars))
    lines = [Line(y(v), f"{v:g}") for v in _DECADES if _LEAST < v < most]
    lines.append(Line(y(REFERENCE), f"{REFERENCE:.3f}", reference=True))
    accumulated = any(layer.metrics and layer.metrics.model_rmse_scale for layer in layers)
    return Overview(len(layers) * step, _HEIGHT, step, places, lines, accumulated)


def _bar(x: float, top: float, kind: str, width: float) -> Bar:
    top = min(top, _HEIGHT - 1.5)  # a small error is still visible
    return Bar(round(x, 1), top, round(_HEIGHT - top, 1), kind, round(width, 1))


@dataclass(frozen=True)
class Curve:
    """A histogram as an SVG path, with its class and legend."""

    path: str
    kind: str
    legend: str


@dataclass(frozen=True)
class Chart:
    """Curves over one axis in a box of 480 by 150; ticks are (x, label)."""

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[tuple[float, str]]
    notes: Sequence[str]


WIDTH, TALL = 480, 150


def charts(found: Distributions | CellErrors, metrics: Metrics) -> list[Chart]:
    """The values and the errors of a layer: floats over codes, errors over rounding alone."""
    if isinstance(found, CellErrors):
        return [_errors(found, metrics)]
    return [_values(found, metrics), _errors(found, metrics)]


def _values(found: Distributions, metrics: Metrics) -> Chart:
    least = 0.4 / max(metrics.num_elements, 1)  # a bin with one element is visible
    most = max(found.floats.shares.max(), found.codes.shares.max(), 2 * least)

    def tall(share: float) -> float:
        if share <= least:
            return 0.0
        return math.log(share / least) / math.log(most / least)

    curves = [
        Curve(_steps(found.floats, tall, closed=True), "float", "float"),
        Curve(_steps(found.codes, tall, closed=False), "code", "quantized"),
    ]
    edges = found.floats.edges
    low, high = found.params.qmin, found.params.qmax
    ticks = [
        (_across(code, edges[0], edges[-1]), str(code))
        for code in (low, int(found.params.zero_point[0]), high)
        if edges[0] <= code <= edges[-1]
    ]
    notes = ["codes; the height is logarithmic"]
    if metrics.clipped:
        notes.append(f"{percent(metrics.clipped)} % of the floats are beyond the last code")
    if metrics.range_waste:
        notes.append(f"{percent(metrics.range_waste)} % of the codes are not used")
    return Chart("Floats and codes", curves, _apart(ticks), notes)


def _errors(found: Distributions | CellErrors, metrics: Metrics) -> Chart:
    errors = found.errors
    width = float(errors.edges[1] - errors.edges[0])
    density = errors.shares / width
    most = max(float(density.max()), 1.0)
    low, high = float(errors.edges[0]), float(errors.edges[-1])
    left, right = (_across(end, low, high) for end in (-0.5, 0.5))
    top = TALL * (1 - 1 / most)
    rounding = f"M{left:.1f} {TALL}V{top:.1f}H{right:.1f}V{TALL}"
    figure = f"rmse/scale {significant(metrics.rmse_scale or 0.0)}"
    notes = ["error in steps"]
    if metrics.times_expected is not None:
        figure = f"{significant(metrics.times_expected)} times expected"
        notes = ["error in steps: twice the distance to the end of its cell"]
    scaled = Histogram(low, high, len(errors.counts))
    scaled.counts = errors.counts
    curves = [
        Curve(
            _steps(scaled, lambda share: share / width / most, closed=True), "float",
            f"error: {figure}",
        ),
        Curve(rounding, "code", f"rounding alone: {REFERENCE:.3f}"),
    ]  # fmt: skip
    steps = range(math.ceil(low), math.floor(high) + 1)
    ticks = [(_across(step, low, high), str(step)) for step in steps]
    if found.exact_zeros:
        share = percent(found.exact_zeros / max(metrics.num_elements, 1))
        notes.append(f"{share} % exact zeros are left out")
    if (metrics.max_abs_error_scale or 0.0) > high:
        notes.append(
            f"the outermost bars include all beyond, up to "
            f"{significant(metrics.max_abs_error_scale or 0.0)}"
        )
    return Chart("Error", curves, _apart(ticks), notes)


def _steps(found: Histogram, tall, *, closed: bool) -> str:  # type: ignore[no-untyped-def]
    """A histogram as a path; bins of equal height are one stroke."""
    path, last = [f"M0 {TALL}"], None
    width = WIDTH / len(found.counts)
    for index, share in enumerate(found.shares):
        y = round(TALL * (1 - tall(float(share))), 1)
        if y != last:
            path.append(f"H{index * width:.1f}V{y:g}")
            last = y
    path.append(f"H{WIDTH}V{TALL}")
    return "".join(path) + "Z" * closed


def _across(value: float, low: float, high: float) -> float:
    return round(WIDTH * (value - low) / max(high - low, 1e-300), 1)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks whose labels do not touch, from the left."""
    kept: list[tuple[float, str]] = []
    for x, label in sorted(ticks):
        if not kept or x - kept[-1][0] > 7 * (len(label) + 1):
            kept.append((x, label))
    return kept


@dataclass(frozen=True)
class Strip:
    """RMSE/scale by channel in a box of 480 by 60, and the worst channels in words."""

    bars: Sequence[tuple[float, float, float, float, str, str]]
    reference: float
    worst: str


_STRIP = 60


def strip(channels: Sequence[ChannelReport]) -> Strip:
    """The strip of a layer's channels; of very many, the worst of each group."""
    values = [
        (channel.metrics.steps or 0.0, index, channel.metrics.exceeds_reference)
        for index, channel in enumerate(channels)
    ]
    size = math.ceil(len(values) / _MOST_CHANNEL_BARS)
    groups = [max(values[start : start + size]) for start in range(0, len(values), size)]
    most = max(max(values)[0], 2 * REFERENCE) * 1.05
    width = WIDTH / len(groups)
    bars = []
    for place, (value, index, above) in enumerate(groups):
        height = max(_STRIP * value / most, 0.5)
        kind = "v-bad" if value > TFLITE_THRESHOLD else "v-warn" if above else "v-ok"
        title = f"channel {index}: {significant(value)}"
        x, thick = round(place * width, 2), round(max(width - 0.6, 0.5), 2)
        bars.append((x, round(_STRIP - height, 1), thick, round(height, 1), kind, title))
    worst = sorted(values, reverse=True)[:5]
    said = ", ".join(f"{index} ({significant(value)})" for value, index, _ in worst)
    return Strip(bars, round(_STRIP * (1 - REFERENCE / most), 1), f"the worst channels: {said}")
