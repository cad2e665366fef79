"""Pictures: the distributions and the error of one layer, and the errors of all layers.

Distributions and figures are gathered elsewhere, block by block, so memory does not grow with the
layer.
"""

import math
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO, Literal, get_args

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from qdebug.errors import QdebugError
from qdebug.formatting import percent, significant
from qdebug.measure.histogram import CellErrors, Distributions
from qdebug.measure.metrics import REFERENCE, TFLITE_THRESHOLD, Metrics
from qdebug.names import printable, shorten, shortened, shown
from qdebug.report.report import LayerReport, Report

# Okabe and Ito's palette, which colour-blind people can tell apart
# (https://jfly.uni-koeln.de/color/). Each colour has one meaning in all pictures.
FLOAT = "#0072B2"  # blue: the float reference, and what rounding alone explains
QUANTIZED = "#000000"
ABOVE = "#E69F00"  # orange: more than rounding explains
BAD = "#D55E00"  # vermilion: clipped, or above TFLite's threshold
WASTE = "#999999"
ACCUMULATED = "#BBBBBB"

# What of a layer to draw.
What = Literal["all", "values", "error", "channels"]
WHATS: tuple[What, ...] = get_args(What)

# The kinds of files that a picture can be, by their endings.
ENDINGS = (".png", ".svg", ".pdf")

_DPI = 100

# Height of a row of the overview that has a name, and of all rows, in inches.
_ROW = 0.22
_TALLEST = 20.0

# Most powers of ten on its axis.
_MOST_TICKS = 8


class Picture(Figure):
    """A figure that a notebook shows, whether pyplot is imported or not."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        save(self, file)
        return file.getvalue()


def layer_figure(
    report: LayerReport, found: Distributions | CellErrors, what: What = "all"
) -> Picture:
    """The picture of one layer, from its figures and its distributions.

    `what` is one of its panels, or all.

    The upper panel overlays floats and codes on one axis, and marks unused codes and clipped
    floats. The panel below shows the error in steps of the scale against that of rounding alone. A
    layer quantized per channel has a third panel: RMSE/scale by channel. A layer whose steps differ
    has no panel of values; the panel of its error is in steps of the element's own cell.

    Raises:
        QdebugError: the channels or the values of a layer that has none.
    """
    metrics = report.metrics
    assert metrics is not None, "a layer that was read"
    if what == "channels" and not report.channels:
        raise QdebugError(f"layer '{shown(report.name)}': found one scale, expected channels")
    if what == "values" and isinstance(found, CellErrors):
        raise QdebugError(
            f"layer '{shown(report.name)}': found {printable(report.grid or '')}, expected a scale "
            "per tensor or channel to draw its codes"
        )
    chosen = [what] if what != "all" else ["values", "error", *["channels"] * bool(report.channels)]
    if isinstance(found, CellErrors):
        chosen = [panel for panel in chosen if panel != "values"]
    panels = len(chosen)
    figure = Picture(figsize=(9, 3.2 * panels), dpi=_DPI, layout="constrained")
    axes = dict(zip(chosen, figure.subplots(panels, 1, squeeze=False)[:, 0], strict=True))
    figure.suptitle(
        shorten(printable(report.name), 90), fontsize=11, fontweight="bold", parse_math=False
    )
    if "values" in axes and isinstance(found, Distributions):
        _draw_values(axes["values"], found, metrics)
    if "error" in axes:
        _draw_errors(axes["error"], found, metrics)
    if "channels" in axes and report.channels:
        _draw_channels(axes["channels"], [channel.metrics for channel in report.channels])
    return figure


def nothing_to_draw(layer: LayerReport) -> str:
    """Why a layer has no distributions; one line."""
    if layer.grid is not None and layer.metrics is not None and layer.metrics.num_elements:
        return (
            f"layer '{shown(layer.name)}': found {printable(layer.grid)}, which has no steps to "
            "draw errors in"
        )
    return f"layer '{shown(layer.name)}': no finite element to draw"


def _draw_values(axes: Axes, found: Distributions, metrics: Metrics) -> None:
    params = found.params
    edges = found.floats.edges
    floor = 0.4 / metrics.num_elements  # a bin with one element is still visible
    axes.stairs(found.floats.shares, edges, fill=True, color=FLOAT, alpha=0.45, label="float")
    axes.stairs(
        found.codes.shares, edges, color=QUANTIZED, linewidth=1.1, label="quantized", baseline=floor
    )
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel("share of elements per bin")
    assert metrics.quantized_min is not None
    assert metrics.quantized_max is not None
    if params.bits <= 16:
        low, high = params.qmin - 0.5, params.qmax + 0.5
        for end in (low, high):
            axes.axvline(end, color=QUANTIZED, linestyle=":", linewidth=1)
        unused = [
            (low, metrics.quantized_min - 0.5),
            (metrics.quantized_max + 0.5, high),
        ]
        label = f"unused codes (range waste {percent(metrics.range_waste or 0.0)} %)"
        for start, end in unused:
            if end - start >= 1:
                axes.axvspan(
                    start, end, facecolor="none", edgecolor=WASTE, hatch="//", linewidth=0,
                    alpha=0.6, label=label,
                )  # fmt: skip
                label = "_"
        if metrics.clipped:
            outside = np.where(
                (edges[1:] <= low) | (edges[:-1] >= high), found.floats.shares, np.nan
            )
            axes.stairs(
                outside, edges, fill=True, color=BAD,
                label=f"float outside the range ({percent(metrics.clipped)} % clipped)",
            )  # fmt: skip
    axes.set_xlabel("code (x/scale + zero point)")
    if params.axis is None:
        scale, zero_point = float(params.scale[0]), int(params.zero_point[0])

        def value_of(code: ArrayLike) -> ArrayLike:
            return (np.asarray(code, np.float64) - zero_point) * scale

        def code_of(value: ArrayLike) -> ArrayLike:
            return np.asarray(value, np.float64) / scale + zero_point

        top = axes.secondary_xaxis("top", functions=(value_of, code_of))
        top.set_xlabel(f"value (scale {significant(scale)}, zero point {zero_point})")
    _legend(axes, above=1.0 if params.axis is not None else 1.2)


def _draw_errors(axes: Axes, found: Distributions | CellErrors, metrics: Metrics) -> None:
    errors = found.errors
    width = errors.edges[1] - errors.edges[0]
    density = errors.shares / width
    centre = (errors.edges[1:] + errors.edges[:-1]) / 2
    rounding = np.abs(centre) < 0.5
    beyond_share = errors.counts[~rounding].sum() / metrics.num_elements
    axes.stairs(
        density, errors.edges, fill=True, color=FLOAT, alpha=0.45, label="at most half a step"
    )
    if (density[~rounding] > 0).any():
        beyond = np.where(rounding, np.nan, density)
        axes.stairs(
            beyond,
            errors.edges,
            fill=True,
            color=ABOVE,
            label=f"more than half a step: {percent(beyond_share)} %",
        )
    axes.plot(
        [-0.5, -0.5, 0.5, 0.5], [0, 1, 1, 0], color=QUANTIZED, linestyle="--", linewidth=1.2,
        label=f"rounding alone: {REFERENCE:.3f}",
    )  # fmt: skip
    figure = f"rmse/scale {significant(metrics.rmse_scale or 0.0)}"
    unit = "steps of the scale"
    if metrics.times_expected is not None:
        figure = f"{significant(metrics.times_expected)} times expected"
        unit = "steps: twice the distance to the end of its cell"
    axes.plot([], [], " ", label=figure)
    axes.set_xlim(errors.edges[0], errors.edges[-1])
    notes = [f"error (quantized - float) in {unit}"]
    largest = metrics.max_abs_error_scale or 0.0
    if largest > errors.edges[-1]:
        notes.append(f"the outermost bars include all beyond, up to {significant(largest)}")
    if found.exact_zeros:
        share = percent(found.exact_zeros / metrics.num_elements)
        notes.append(f"{share} % exact zeros are left out")
    axes.set_xlabel("; ".join(notes[:2]) + "".join(f"\n{note}" for note in notes[2:]))
    axes.set_ylabel("density")
    _legend(axes)


def _draw_channels(axes: Axes, channels: Sequence[Metrics]) -> None:
    values = [metrics.steps or 0.0 for metrics in channels]
    axes.bar(
        range(len(values)), values, width=0.8, color=[_colour(metrics) for metrics in channels]
    )
    axes.axhline(REFERENCE, color=QUANTIZED, linestyle="--", linewidth=1.2)
    axes.set_xlim(-0.6, len(values) - 0.4)
    worst = max(range(len(values)), key=values.__getitem__)
    axes.annotate(
        f"{worst}: {significant(values[worst])}", (worst, values[worst]), (0, 2),
        textcoords="offset points", ha="center", va="bottom", fontsize=8,
    )  # fmt: skip
    axes.margins(y=0.15)
    axes.set_xlabel("channel; the worst is named")
    differ = channels[0].times_expected is not None
    axes.set_ylabel("0.289 times expected" if differ else "rmse/scale")
    _colour_legend(axes)


def overview_figure(report: Report) -> Picture:
    """RMSE/scale of all layers as bars against 0.289, coloured by verdict (`Metrics.steps`).

    Where the float model's own run is known, the error accumulated up to each layer is beside it.

    Raises:
        QdebugError: no layer has a finite element.
    """
    layers = [
        (layer, layer.metrics)
        for layer in report.layers
        if layer.metrics and layer.metrics.steps is not None
    ]
    if not layers:
        raise QdebugError("no layer has a finite element to draw")
    values = [metrics.steps or 0.0 for _, metrics in layers]
    accumulated = [metrics.model_rmse_scale for _, metrics in layers]
    height = min(_ROW * len(layers), _TALLEST)
    figure = Picture(figsize=(10, 1.6 + height), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    rows = range(len(layers))
    verdicts = [_verdict(layer) for layer, _ in layers]
    # A bar is at least two pixels high; where bars overlap, the worse verdict is in front.
    thickness = max(0.75, 2 / _DPI / (height / len(layers)))
    both = any(value is not None for value in accumulated)
    if both:  # the lower half of each row
        thickness /= 2
        axes.barh(
            [row + thickness / 2 for row in rows], [value or 0.0 for value in accumulated],
            color=ACCUMULATED, height=thickness,
        )  # fmt: skip
    places = [row - both * thickness / 2 for row in rows]
    drawn = axes.barh(places, values, color=[_VERDICTS[v] for v in verdicts], height=thickness)
    for bar, verdict in zip(drawn, verdicts, strict=True):
        bar.set_zorder(1 + list(_VERDICTS).index(verdict) / 10)
    axes.axvline(REFERENCE, color=QUANTIZED, linestyle="--", linewidth=1.2)
    named = _named_rows([layer for layer, _ in layers], height)
    names = shortened([printable(layers[row][0].name) for row in named], 48)
    axes.set_yticks(named, names, fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    figures = axes.secondary_yaxis("right")
    figures.set_yticks(named, [f"{significant(values[row])} " for row in named], fontsize=8)
    figures.tick_params(length=0)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    # A single layer far above the others would squeeze them against the axis.
    middle = sorted(values)[len(values) // 2]
    most = max(*values, *(value or 0.0 for value in accumulated))
    if most > 20 * max(middle, REFERENCE):
        axes.set_xscale("symlog", linthresh=2 * TFLITE_THRESHOLD)
        decades = range(1 + math.floor(math.log10(most)))
        axes.set_xticks([0.0, *(10.0**n for n in decades[:: 1 + len(decades) // _MOST_TICKS])])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    unnamed = f" ({len(named)} of {len(layers)} layers named, the worst first)"
    axes.set_xlabel("rmse/scale" + unnamed * (len(named) < len(layers)))
    for verdict, colour in _VERDICTS.items():
        axes.bar(0, 0, color=colour, label=f"verdict {verdict}")
    if both:
        axes.bar(0, 0, color=ACCUMULATED, label="accumulated")
    axes.plot([], [], "--", color=QUANTIZED, label=f"{REFERENCE:.3f}")
    _legend(axes)
    return figure


def _named_rows(layers: Sequence[LayerReport], height: float) -> list[int]:
    """The rows that have room for a name: all, or the worst and others that keep clear of them."""
    apart = math.ceil(_ROW * len(layers) / height - 1e-9)
    if apart == 1:
        return list(range(len(layers)))
    named: set[int] = set()
    for row in sorted(range(len(layers)), key=lambda row: _goodness(layers[row])):
        if named.isdisjoint(range(row - apart + 1, row + apart)):
            named.add(row)
    return sorted(named)


def _goodness(layer: LayerReport) -> tuple[int, float]:
    """Sorts layers, the worst verdict and the largest figure first."""
    assert layer.metrics is not None
    return -list(_VERDICTS).index(_verdict(layer)), -(layer.metrics.steps or 0.0)


# Verdict -> its colour, from good to bad.
_VERDICTS = {"ok": FLOAT, "warn": ABOVE, "bad": BAD}


def _verdict(layer: LayerReport) -> str:
    """The layer's verdict, or one from its figures alone."""
    if layer.diagnosis is not None and layer.diagnosis.verdict in _VERDICTS:
        return layer.diagnosis.verdict
    return "warn" if layer.above_rounding else "ok"


def _colour(metrics: Metrics) -> str:
    """The colour for how far a channel is above what rounding alone gives."""
    if not metrics.exceeds_reference:
        return FLOAT
    return BAD if (metrics.steps or 0.0) > TFLITE_THRESHOLD else ABOVE


def _colour_legend(axes: Axes) -> None:
    """The legend for the colours of `_colour`."""
    for colour, label in (
        (FLOAT, "rounding alone"),
        (ABOVE, "above it by more than chance"),
        (BAD, f"above {TFLITE_THRESHOLD}"),
    ):
        axes.bar(0, 0, color=colour, label=label)
    axes.plot([], [], "--", color=QUANTIZED, label=f"{REFERENCE:.3f}")
    _legend(axes)


def _legend(axes: Axes, above: float = 1.0) -> None:
    """A legend above the plot, clear of the data; `above` leaves room for an axis in between."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, above), ncols=len(labels), fontsize=8,
        frameon=False, borderaxespad=0.2,
    )  # fmt: skip


def save(figure: Figure, file: BinaryIO, ending: str = ".png") -> None:
    """Write a figure as PNG, SVG or PDF, with the same bytes every time."""
    metadata = {".png": {"Software": "qdebug"}, ".svg": {"Date": None}}
    about = metadata.get(ending, {"CreationDate": None})
    settings = mpl.rc_context({"axes.unicode_minus": False, "svg.hashsalt": "qdebug"})
    with settings, warnings.catch_warnings():
        # Matplotlib's font may lack the script of a layer's name; it then draws boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=ending[1:], metadata=about)
