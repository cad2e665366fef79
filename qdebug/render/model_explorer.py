"""A report as node data for Google's Model Explorer: a figure and a colour for each node.

The format is that of `model_explorer.node_data_builder.GraphNodeData`: results by the names of the
nodes' output tensors, so that they land on the right nodes.
"""

import json
import math

from qdebug.errors import QdebugError
from qdebug.formatting import significant
from qdebug.render.columns import COLUMNS, layer_row
from qdebug.report.graph import is_constant
from qdebug.report.report import Report

DEFAULT_METRIC = "rmse_scale_ratio"

# Verdict -> colour of the node and of its text: Okabe and Ito's, as in all pictures.
_COLOURS = {
    "ok": ("#cfe6f5", "#000000"),
    "warn": ("#e69f00", "#000000"),
    "bad": ("#d55e00", "#ffffff"),
}


def check_metric(metric: str) -> None:
    """Check that a figure is a number of each layer.

    Raises:
        QdebugError: it is not.
    """
    if metric not in COLUMNS or metric in _NO_NUMBERS:
        raise QdebugError(
            f"--metric: found '{metric:.60}', expected a figure of the report, such as rmse_scale"
        )


_NO_NUMBERS = (
    *("layer", "channel", "op", "kind", "dtype", "shape", "axis", "scale", "zero_point"),
    *("verdict", "cause", "evidence", "advice"),
)


def node_data(report: Report, metric: str = DEFAULT_METRIC) -> str:
    """The report as JSON: `metric` of every activation, coloured by verdict.

    >>> node_data(Report([], [])).startswith('{"name": "qdebug: times expected"')
    True

    Raises:
        QdebugError: the figure is no number.
    """
    check_metric(metric)
    column = COLUMNS[metric]
    results = {}
    for layer in report.layers:
        value = column.value(layer_row(layer))
        if is_constant(layer) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        verdict = layer.diagnosis.verdict if layer.diagnosis else "ok"
        back, text = _COLOURS.get(verdict, ("#ffffff", "#000000"))
        number = float(significant(value)) if isinstance(value, float) else value
        results[layer.name] = {"value": number, "bgColor": back, "textColor": text}
    heading = column.heading.replace("\n", " ")
    data = {"name": f"qdebug: {heading}", "results": results}
    return json.dumps(data, allow_nan=False, ensure_ascii=True) + "\n"
