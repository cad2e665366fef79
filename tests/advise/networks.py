"""Networks as reports: layers by name, with what feeds them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qdebug.advise.suggest import suggestions
from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.report import LayerReport, Report


def layer(
    name: str,
    *inputs: str,
    own: float = 1.0,
    inherited: float | None = 0.0,
    noise: float = 0.01,
    op: str = "CONV_2D",
    scale: float = 0.1,
    **given: Any,
) -> LayerReport:
    """A layer of 30 dB that errs by `own` steps, one tenth of it rounding.

    `noise` is its noise-to-signal ratio in the whole run.
    """
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    figures |= {
        "rmse_scale": own,
        "quantizer_rmse_scale": own / 10,
        "inherited_rmse_scale": inherited,
        "sqnr_db": 30.0,
        "model_rmse_scale": math.hypot(own, inherited or 0.0),
        "model_sqnr_db": -10 * math.log10(noise),
    }
    metrics = Metrics(**(figures | given))
    return LayerReport(name, op, "activation", inputs=list(inputs), scale=scale, metrics=metrics)


def shares(*layers: LayerReport) -> dict[str, float]:
    """The share of each layer; all are operators that can be left in float."""
    found = suggestions(Report([], list(layers)))
    assert found.basis == "model"
    return {suggestion.layer: suggestion.share for suggestion in found.candidates}


def in_a_row(layers: Sequence[LayerReport]) -> list[LayerReport]:
    return [replace(each, inputs=None) for each in layers]
