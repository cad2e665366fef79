"""The columns that tables share: values, headings and how values are written."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qdebug.errors import QdebugError
from qdebug.formatting import percent, significant
from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.measure.outputs import OutputMetrics
from qdebug.names import nearest, printable
from qdebug.report.report import LayerReport, Report


@dataclass(frozen=True)
class Row:
    """A layer, one channel of it, or an output of the model."""

    layer: LayerReport
    metrics: Metrics | OutputMetrics | None
    scale: float | list[float] | None
    zero_point: int | list[int] | None
    channel: int | None = None


@dataclass(frozen=True)
class View:
    """Which part of a report to show.

    Attributes:
        columns: their names; None for the renderer's own choice.
        per_channel: whether a layer with channels gets one row per channel.
        sort: name of the column to sort by, worst first; None for the report's order.
        top: how many layers to keep, from the first; None for all.
    """

    columns: Sequence[str] | None = None
    per_channel: bool = False
    sort: str | None = None
    top: int | None = None


@dataclass(frozen=True)
class Column:
    """One column: its JSON name, its heading with the unit, its value and how it is written."""

    name: str
    heading: str
    value: Callable[[Row], Any]
    text: Callable[[Any], str]
    left: bool = False


def _spread(values: Any) -> str:
    """One number, or the least and largest over the channels."""
    if not isinstance(values, list):
        return _number(values)
    low, high = min(values), max(values)
    return _number(low) if low == high else f"{_number(low)}..{_number(high)}"


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else significant(value)


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _plain(name: str, heading: str, text: Callable[[Any], str], left: bool = False) -> Column:
    return Column(name, heading, lambda row: getattr(row.layer, name), text, left)


def _figure(name: str, heading: str, text: Callable[[Any], str] = significant) -> Column:
    return Column(name, heading, lambda row: getattr(row.metrics, name, None), text)


def _diagnosed(name: str) -> Column:
    return Column(name, name, lambda row: getattr(row.layer.diagnosis, name, None), printable, True)


def _measured(name: str, heading: str) -> Column:
    return Column(
        name, heading, lambda row: getattr(row.layer.measured, name, None), "{:.2f}".format
    )


_ALL = [
    Column("layer", "layer", lambda row: row.layer.name, printable, left=True),
    Column("channel", "channel", lambda row: row.channel, str),
    _plain("op", "op", printable, left=True),
    _plain("kind", "kind", printable, left=True),
    _plain("dtype", "type", printable, left=True),
    _plain("bits", "bits", str),
    _plain("grid", "grid", printable, left=True),
    _plain("shape", "shape", _shape),
    _plain("axis", "axis", str),
    Column("scale", "scale", lambda row: row.scale, _spread),
    Column("zero_point", "zero\npoint", lambda row: row.zero_point, _spread),
    _figure("num_elements", "elements", str),
    _figure("non_finite", "NaN\nor Inf", str),
    _figure("rmse", "rmse"),
    _figure("rmse_scale", "rmse\n/scale"),
    _figure("rmse_scale_expected", "expected\nrmse/scale"),
    _figure("rmse_scale_ratio", "times\nexpected"),
    _figure("rmse_scale_stderr", "standard\nerror [s]"),
    _figure("times_expected", "cells: times\nexpected"),
    _figure("times_expected_stderr", "cells: std\nerror"),
    _figure("quantizer_rmse_scale", "quantizer\nrmse/scale"),
    _figure("carried_rmse_scale", "carried\nrmse/scale"),
    _figure("weights_rmse_scale", "weights\nrmse/scale"),
    _figure("arithmetic_rmse_scale", "arithmetic\nrmse/scale"),
    _figure("mean_error", "mean\nerror"),
    _figure("mean_error_scale", "mean\nerror [s]"),
    _figure("outward_error_scale", "outward\nerror [s]"),
    _figure("stddev", "stddev"),
    _figure("max_abs_error", "max abs\nerror"),
    _figure("max_abs_error_scale", "max abs\nerror [s]"),
    _figure("mse", "mse"),
    _figure("range_waste", "range\nwaste [%]", percent),
    _figure("range_waste_low", "waste\nlow [%]", percent),
    _figure("range_waste_high", "waste\nhigh [%]", percent),
    _figure("clipped", "clipped\n[%]", percent),
    _figure("clipped_error_share", "clipped\nerror [%]", percent),
    _figure("saturated", "saturated\n[%]", percent),
    _figure("lost", "lost\n[%]", percent),
    _figure("small", "small\n[%]", percent),
    _figure("sqnr_db", "SQNR\n[dB]"),
    Column(
        "small_sqnr_db",
        "small\nSQNR [dB]",
        lambda row: getattr(row.layer.slices, "small_sqnr_db", None),
        significant,
    ),
    Column(
        "slice_sqnr_db",
        "worst slice\nSQNR [dB]",
        lambda row: getattr(row.layer.slices, "least_sqnr_db", None),
        significant,
    ),
    _figure("cosine_similarity", "cosine", "{:.6f}".format),
    _figure("float_min", "float\nmin"),
    _figure("float_max", "float\nmax"),
    _figure("float_mean", "float\nmean"),
    _figure("float_std", "float\nstd"),
    _figure("float_mean_abs", "float\nmean abs"),
    _figure("quantized_min", "code\nmin", str),
    _figure("quantized_max", "code\nmax", str),
    _figure("fit_scale", "fit\nscale"),
    _figure("fit_zero_point", "fit zero\npoint"),
    _figure("fit_rmse_scale", "fit\nrmse/scale"),
    _figure("model_rmse_scale", "model\nrmse/scale"),
    _figure("model_sqnr_db", "model\nSQNR [dB]"),
    _figure("inherited_rmse_scale", "inherited\nrmse/scale"),
    _figure("model_min", "model\nmin"),
    _figure("model_max", "model\nmax"),
    _figure("model_clipped", "model\nclipped [%]", percent),
    _figure("inherited_non_finite", "inherited\nNaN or Inf", str),
    _figure("worst_sqnr_db", "worst\nSQNR [dB]"),
    _figure("top1", "same\ntop-1 [%]", percent),
    _measured("gain_db", "in float\ngains [dB]"),
    _measured("gain_stderr_db", "standard\nerror [dB]"),
    _measured("alone_db", "alone\nSQNR [dB]"),
    _diagnosed("verdict"),
    _diagnosed("cause"),
    _diagnosed("evidence"),
    _diagnosed("advice"),
]
COLUMNS = {column.name: column for column in _ALL}

# Verdicts in the order of sorting.
_WORST_FIRST = ("unreadable", "bad", "warn", "ok")

# Figures for which more is better: sorted in ascending order, so that the worst comes first.
_MORE_IS_BETTER = (
    "sqnr_db",
    "small_sqnr_db",
    "slice_sqnr_db",
    "model_sqnr_db",
    "worst_sqnr_db",
    "cosine_similarity",
    "top1",
    "alone_db",
)


def columns(names: Sequence[str]) -> list[Column]:
    """The columns of these names.

    Raises:
        QdebugError: an unknown name.
    """
    for name in names:
        if name not in COLUMNS:
            raise QdebugError(f"no column '{printable(name)}'; {nearest(name, COLUMNS)}")
    return [COLUMNS[name] for name in names]


def chosen_columns(view: View, default: Sequence[str]) -> list[Column]:
    """The view's columns, or `default`, which gains the channel column if rows are channels.

    Raises:
        QdebugError: an unknown name.
    """
    if view.columns is not None:
        return columns(view.columns)
    names = [name for name in default if name != "channel"]
    if view.per_channel:
        names.insert(1, "channel")
    return columns(names)


def check_view(view: View) -> None:
    """Check the column names of a view, before anything is read.

    Raises:
        QdebugError: an unknown column.
    """
    columns([*(view.columns or ()), *([] if view.sort is None else [view.sort])])


# Columns of layers with one step, which those with a grid cannot fill.
_OF_ONE_STEP = ("scale", "zero_point", "rmse_scale", "range_waste")


def for_report(report: Report, default: Sequence[str]) -> list[str]:
    """The default columns that have something to show, and those of what was measured."""
    names = list(default)
    if report.layers and all(layer.grid or layer.unreadable for layer in report.layers):
        without = _OF_ONE_STEP + ("op",) * (not any(layer.op for layer in report.layers))
        names = ["layer", "grid", *(n for n in names if n not in ("layer", *without))]
    if any(layer.measured for layer in report.layers):
        place = names.index("verdict")
        names[place:place] = ["gain_db", "gain_stderr_db", "alone_db"]
    return names


def layer_row(layer: LayerReport) -> Row:
    """The row of a whole layer."""
    return Row(layer, layer.metrics, layer.scale, layer.zero_point)


def output_row(output: OutputMetrics) -> Row:
    """The row of an output of the model."""
    return Row(LayerReport(output.name, kind="output"), output, None, None)


def rows(report: Report, view: View) -> Iterator[Row]:
    """The rows that the view shows, one at a time: there may be millions of channels."""
    for layer in arranged(report, view).layers:
        if view.per_channel and layer.channels:
            for index, channel in enumerate(layer.channels):
                yield Row(layer, channel.metrics, channel.scale, channel.zero_point, index)
        else:
            yield layer_row(layer)


def arranged(report: Report, view: View) -> Report:
    """The report with its layers in the view's order, at most `view.top` of them.

    Numbers are sorted by magnitude, verdicts from bad to good and then by
    badness, other text alphabetically; layers without a value come last.

    Raises:
        QdebugError: an unknown column to sort by.
    """
    layers = report.layers
    if view.sort is not None:
        (column,) = columns([view.sort])

        def key(layer: LayerReport) -> tuple[bool, Any]:
            value = column.value(layer_row(layer))
            if isinstance(value, list):
                value = math.prod(value) if column.name == "shape" else max(value)
            if value is None:
                return True, 0
            if column.name == "verdict" and value in _WORST_FIRST:
                return False, (_WORST_FIRST.index(value), -layer.badness)
            if isinstance(value, str):
                return False, value
            if column.name == "gain_db":  # a loss is no gain
                return False, -value
            return False, value if column.name in _MORE_IS_BETTER else -abs(value)

        layers = sorted(layers, key=key)
    return replace(report, layers=layers[: view.top])


assert set(FIGURES) <= set(COLUMNS)
