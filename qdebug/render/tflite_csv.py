"""A report in the columns of TFLite's QuantizationDebugger.layer_statistics_dump, as CSV."""

import csv
import io
from typing import Any

from qdebug.metrics import Metrics
from qdebug.render.csv import cell
from qdebug.report import LayerReport, Report

# TensorFlow's name of a figure -> ours.
_FIGURES = {
    "num_elements": "num_elements",
    "stddev": "stddev",
    "mean_error": "mean_error",
    "max_abs_error": "max_abs_error",
    "mean_squared_error": "mse",
}
_HEAD = ("op_name", "tensor_idx", *_FIGURES, "scale", "zero_point", "tensor_name")


def tflite_csv(report: Report) -> str:
    """The report's readable layers, a row each, in TensorFlow's columns at full precision.

    `tensor_idx` is empty: a report does not know it. So are `scale` and `zero_point` of a layer
    that has one a channel: the format has room for one number, and the others' columns of it stay
    numbers to whoever reads them. Figures are over all samples, where TensorFlow takes the mean
    over samples.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEAD)
    for layer in report.layers:
        if layer.metrics is not None:
            writer.writerow(map(cell, _row(layer, layer.metrics)))
    return out.getvalue()


def _row(layer: LayerReport, metrics: Metrics) -> list[Any]:
    scale, zero_point = (
        None if isinstance(value, list) else value for value in (layer.scale, layer.zero_point)
    )
    figures = [getattr(metrics, name) for name in _FIGURES.values()]
    return [layer.op, None, *figures, scale, zero_point, layer.name]
