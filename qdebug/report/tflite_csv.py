"""The CSV of TFLite's QuantizationDebugger.layer_statistics_dump: read as a Report, and written.

TensorFlow takes each figure over one sample and then the mean over samples. So `num_elements`
counts one sample's, `max_abs_error` is the mean of the samples' largest and `stddev` the mean of
their own; `mse`, and with it `rmse` and `rmse_scale`, is what it is for all samples together.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qdebug.arithmetic.affine import code_range
from qdebug.errors import FieldError, QdebugError
from qdebug.measure.layer import UnreadableLayer
from qdebug.measure.metrics import FIGURES, Metrics, rmse_scale_stderr
from qdebug.names import from_spreadsheet, printable, spreadsheet_text
from qdebug.report.diagnosis import Diagnosis, Subject, diagnose
from qdebug.report.report import LayerReport, Report, unreadable_report
from qdebug.text_file import read_text

# TensorFlow's name of a figure -> ours.
_FIGURES = {
    "num_elements": "num_elements",
    "stddev": "stddev",
    "mean_error": "mean_error",
    "max_abs_error": "max_abs_error",
    "mean_squared_error": "mse",
}
# No tensor has as many; larger whole numbers are none in a JSON report.
_MOST_ELEMENTS = 2.0**63

COLUMNS = ("op_name", "tensor_idx", *_FIGURES, "scale", "zero_point", "tensor_name")


def read_csv(path: str) -> Report:
    """The report that the file holds: a layer a row, None for every figure it cannot know.

    Without the floats the share of zeros is unknown, so `rmse_scale_expected` is None. A scale cell
    may be empty or a list (``[0.1 0.2]``, one a channel): then there are no figures in steps. Names
    that occur twice get their tensor_idx behind them. Columns that this module does not know (those
    of `layer_direct_compare_metrics`) are left alone. A row that cannot be read is an unreadable
    layer.

    Raises:
        QdebugError: no such file, not a CSV, a column missing, or no row.
    """
    shown = printable(path)
    try:
        text = read_text(path, "utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        found = reader.fieldnames
        if not found:
            raise QdebugError(f"{shown}: found an empty file, expected {_EXPECTED}")
        for column in COLUMNS:
            if column not in found:
                columns = ", ".join(printable(name) for name in found)
                raise QdebugError(
                    f"{shown}: row 1: no column '{column}': found {columns:.200}; "
                    f"expected {_EXPECTED}"
                )
        layers: dict[str, LayerReport] = {}
        for number, row in enumerate(reader, 2):
            name = _unique(row, layers)
            layers[name] = _layer(name, row, f"{shown}: row {number}")
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise QdebugError(f"{shown}: found no text, expected {_EXPECTED}") from None
    except csv.Error as error:
        raise QdebugError(f"{shown}: {error}; expected {_EXPECTED}") from None
    if not layers:
        raise QdebugError(f"{shown}: found no row below the columns' names, expected a layer each")
    whole = text.endswith(("\r", "\n"))
    cut = f"{shown}: found no line end after the last row, expected one: the file may be cut off"
    return Report(sources=[path], layers=list(layers.values()), problems=[cut] * (not whole))


_EXPECTED = "the CSV of QuantizationDebugger.layer_statistics_dump"


def _unique(row: Mapping[str, str | None], taken: Mapping[str, Any]) -> str:
    """The layer's name; with its tensor_idx, and if need be a count, where it is taken."""
    name = from_spreadsheet(row["tensor_name"] or "") or f"tensor {row['tensor_idx']}"
    if name not in taken:
        return name
    indexed = f"{name}:{row['tensor_idx']}" if row["tensor_idx"] else name
    unique, count = indexed, 1
    while unique in taken:
        count += 1
        unique = f"{indexed} ({count})"
    return unique


def _layer(name: str, row: Mapping[str, str | None], where: str) -> LayerReport:
    """One row."""
    try:
        missing = [column for column in row if row[column] is None]
        if missing:
            raise FieldError(str(missing[0]), found="no cell: the row is cut off", expected="one")
        if None in row:
            raise FieldError(
                "tensor_name", found="more cells behind it", expected=f"{len(row) - 1} cells"
            )
        scales, zero_points = _numbers(row, "scale"), _numbers(row, "zero_point")
        if min(scales, default=1.0) <= 0:
            raise FieldError("scale", found=_quoted(row, "scale"), expected="a number above 0")
        if not all(value.is_integer() for value in zero_points):
            raise FieldError("zero_point", found=_quoted(row, "zero_point"), expected="a code")
        metrics = _metrics(row, scales[0] if len(scales) == 1 else None)
    except FieldError as error:
        reason = str(error).replace("field", "column", 1)
        return unreadable_report(UnreadableLayer(name, f"{where}: {reason}"))
    codes = [int(value) for value in zero_points]
    return LayerReport(
        name=name,
        op=from_spreadsheet(row["op_name"] or "") or None,
        scale=scales if len(scales) > 1 else scales[0] if scales else None,
        zero_point=codes if len(codes) > 1 else codes[0] if codes else None,
        metrics=metrics,
        diagnosis=_diagnosis(metrics, scales, codes),
    )


def _diagnosis(metrics: Metrics, scales: Sequence[float], codes: Sequence[int]) -> Diagnosis:
    """What can be told from a row; the codes' type is not in it, and is int8 most of the time."""
    qmin, qmax = code_range("int8")
    scale = scales[0] if len(scales) == 1 else None
    zero_point = codes[0] if len(codes) == 1 else None
    return diagnose(Subject(metrics, "int8", 8, qmin, qmax, scale, zero_point))


def _metrics(row: Mapping[str, str | None], scale: float | None) -> Metrics:
    """The figures of one row."""
    elements = _number(row, "num_elements", least=1.0)
    if elements is None:
        raise FieldError("num_elements", found="nothing", expected="a number")
    if elements >= _MOST_ELEMENTS:
        found = _quoted(row, "num_elements")
        raise FieldError("num_elements", found=found, expected="a number below 2^63")
    mean_error = _number(row, "mean_error")
    max_abs_error = _number(row, "max_abs_error", least=0.0)
    mse = _number(row, "mean_squared_error", least=0.0)
    rmse = None if mse is None else math.sqrt(mse)

    def in_steps(value: float | None) -> float | None:
        steps = math.nan if value is None or scale is None else value / scale
        return steps if math.isfinite(steps) else None

    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    figures |= {
        "num_elements": round(elements),
        "mean_error": mean_error,
        "mean_error_scale": in_steps(mean_error),
        "stddev": _number(row, "stddev", least=0.0),
        "max_abs_error": max_abs_error,
        "max_abs_error_scale": in_steps(max_abs_error),
        "mse": mse,
        "rmse": rmse,
        "rmse_scale": in_steps(rmse),
        "rmse_scale_stderr": rmse_scale_stderr(elements),
    }
    return Metrics(**figures)


def _number(row: Mapping[str, str | None], column: str, least: float = -math.inf) -> float | None:
    """The number in a cell, None where it is empty."""
    numbers = _numbers(row, column, least)
    if len(numbers) > 1:
        raise FieldError(column, found=_quoted(row, column), expected="one number")
    return numbers[0] if numbers else None


def _numbers(row: Mapping[str, str | None], column: str, least: float = -math.inf) -> list[float]:
    """The numbers in a cell: one, or several in brackets; none where it is empty.

    Raises:
        FieldError: anything else.
    """
    cell = (row[column] or "").strip()
    words = re.split(r"[,\s]+", cell.removeprefix("[").removesuffix("]").strip())
    try:
        values = [float(word) for word in words if word]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(value) for value in values):
        raise FieldError(column, found=_quoted(row, column), expected="a finite number")
    if min(values, default=least) < least:
        raise FieldError(column, found=_quoted(row, column), expected=f"{least:g} or more")
    return values


def _quoted(row: Mapping[str, str | None], column: str) -> str:
    return f"'{printable((row[column] or '')[:60])}'"


def write_csv(report: Report) -> str:
    """The report's readable layers, a row each, in TensorFlow's columns at full precision.

    `tensor_idx` is empty: a report does not know it. So are `scale` and `zero_point` of a layer
    that has one a channel: the format has room for one number, and the others' columns of it stay
    numbers to whoever reads them. Figures are over all samples, where TensorFlow takes the mean
    over samples.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for layer in report.layers:
        if layer.metrics is not None:
            writer.writerow(_cells(layer, layer.metrics))
    return out.getvalue()


def _cells(layer: LayerReport, metrics: Metrics) -> list[Any]:
    scale, zero_point = (
        None if isinstance(value, list) else value for value in (layer.scale, layer.zero_point)
    )
    figures = [getattr(metrics, name) for name in _FIGURES.values()]
    row = [layer.op, None, *figures, scale, zero_point, layer.name]
    return [spreadsheet_text(value) if isinstance(value, str) else value for value in row]
