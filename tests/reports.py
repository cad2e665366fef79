"""Reports made by hand, of layers of which only some figures are known."""

from pathlib import Path
from typing import Any

from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.json import dumps
from qdebug.report.report import LayerReport, Report


def layer(name: str, kind: str | None = "activation", **given: Any) -> LayerReport:
    """A layer of these figures; all others are unknown."""
    about = {"op": "CONV_2D", "nodes": None, "bits": 8, "axis": None, "grid": None}
    about["diagnosis"] = None
    about |= {key: given.pop(key) for key in list(given) if key in about}
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    return LayerReport(name=name, kind=kind, metrics=Metrics(**(figures | given)), **about)


def report(*layers: LayerReport, sources: tuple[str, ...] = ()) -> Report:
    return Report(sources=list(sources), layers=list(layers))


def figures(own: float, rounding: float, inherited: float | None = None, sqnr: float | None = 30.0):
    return {
        "rmse_scale": own,
        "quantizer_rmse_scale": rounding,
        "inherited_rmse_scale": inherited,
        "sqnr_db": sqnr,
    }


def saved(tmp_path: Path, *layers: LayerReport, sources: tuple[str, ...] = ("a.npz",)) -> Path:
    path = tmp_path / "report.json"
    path.write_text(dumps(report(*layers, sources=sources)))
    return path
