"""The page: what it says of each layer, and the file that it becomes."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdebug.errors import MissingExtraError
from qdebug.formatting import significant
from qdebug.measure.histogram import CellErrors, Distributions
from qdebug.names import printable, shorten, shortened
from qdebug.render.columns import COLUMNS, Column, layer_row
from qdebug.render.explain import facts, figure_rows
from qdebug.render.html.charts import TALL, WIDTH, Chart, Strip, charts, overview, strip
from qdebug.render.outputs import output_lines
from qdebug.render.table import cell, head, summary
from qdebug.report.graph import graph_of, is_constant
from qdebug.report.report import LayerReport, Report

_FOLDER = Path(__file__).parent

# Columns of the table. The filter by value offers every figure.
_TABLE = (
    "verdict",
    "cause",
    "op",
    "rmse_scale_ratio",
    "rmse_scale",
    "mean_error_scale",
    "max_abs_error_scale",
    "clipped",
    "range_waste",
    "sqnr_db",
    "model_sqnr_db",
)
_TEXT = ("op", "verdict", "cause")
# What the filter by a least value leaves out: no numbers, or not one for each layer.
_NO_FILTER = (
    *_TEXT,
    "layer",
    "channel",
    "kind",
    "dtype",
    "grid",
    "shape",
    "axis",
    "evidence",
    "advice",
)

_NAME, _LONG_NAME = 56, 400
_WORST = 5
# Steps of "times expected" that the graph's colours stand for.
_TIMES = (1.1, 1.5, 2.5, 5.0)


@dataclass(frozen=True)
class _Layer:
    """What the page says of one layer."""

    index: int
    name: str
    short: str
    op: str
    verdict: str
    cause: str
    evidence: str
    advice: str
    facts: str
    cells: list[tuple[str, float | str | None]]
    figures: list[tuple[str, str, str]]
    times: float | None
    charts: list[Chart] = field(default_factory=list)
    strip: Strip | None = None


def html_page(
    report: Report, distributions: Mapping[str, Distributions | CellErrors] | None = None
) -> str:
    """The report as an HTML page.

    Args:
        report: fresh or saved.
        distributions: histograms of the layers that are to have some, by name.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    names = [shorten(printable(layer.name), _LONG_NAME) for layer in report.layers]
    shorts = shortened(names, _NAME)
    found = distributions or {}
    table = [
        COLUMNS[name]
        for name in _TABLE
        if any(COLUMNS[name].value(layer_row(layer)) is not None for layer in report.layers)
    ]
    layers = [
        _layer(index, layer, names[index], shorts[index], table, found.get(layer.name))
        for index, layer in enumerate(report.layers)
    ]
    nodes = _graph(report, layers)
    layouter = _read("dagre.min.js") if nodes else ""
    return page(
        "report.html.j2",
        [_read("script.js"), *[layouter] * bool(nodes)],
        title=head(report),
        report=report,
        version=report.qdebug_version,
        layers=layers,
        summary=[line for line in summary(report) if not line.startswith("verdicts")],
        notes=[printable(note) for note in report.notes],
        outputs=output_lines(report.outputs),
        verdicts=_counts(layer.verdict for layer in layers),
        causes=_counts(layer.cause for layer in layers),
        ops=_counts(layer.op for layer in layers),
        worst=_worst(report, layers),
        headings=["layer", *(_heading(column.name) for column in table)],
        text_columns=[True, *(column.name in _TEXT for column in table)],
        overview=overview(report.layers, names),
        graph=nodes,
        times=_TIMES,
        figures=_figures(report),
        box=(WIDTH, TALL),
        layouter=_Own(layouter),
        script=_Own(_read("script.js")),
    )


def page(template: str, scripts: Sequence[str] = (), **values: Any) -> str:
    """A page of one of the templates here, with the style and a policy that allows its scripts.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError("HTML reports need", "html") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = _read("style.css")
    policy = _policy([style], scripts)
    return environment.get_template(template).render(style=_Own(style), policy=policy, **values)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


class _Own(str):
    """A file of the package's own, which needs no escaping."""

    def __html__(self) -> str:
        return self


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that allows the page's own style and scripts, and nothing else."""
    allowed = [" ".join(map(_hash, texts)) or "'none'" for texts in (styles, scripts)]
    return f"default-src 'none'; style-src {allowed[0]}; script-src {allowed[1]}; base-uri 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _heading(name: str) -> str:
    return COLUMNS[name].heading.replace("\n", " ").replace("rmse /", "rmse/")


def _counts(values: Any) -> list[tuple[str, int]]:
    """Each value and how often it occurs, the most frequent first; empty ones left out."""
    return [(value, count) for value, count in Counter(values).most_common() if value]


def _layer(
    index: int,
    layer: LayerReport,
    name: str,
    short: str,
    columns: Sequence[Column],
    found: Distributions | CellErrors | None,
) -> _Layer:
    diagnosis, row = layer.diagnosis, layer_row(layer)
    cells: list[tuple[str, float | str | None]] = []
    for column in columns:
        value = column.value(row)
        cells.append((cell(column, row), value if isinstance(value, int | float | str) else None))
    metrics = layer.metrics
    return _Layer(
        index,
        name,
        short,
        printable(layer.op or ""),
        diagnosis.verdict if diagnosis else "",
        (diagnosis.cause or "") if diagnosis else "",
        printable(diagnosis.evidence) if diagnosis else "",
        printable(diagnosis.advice) if diagnosis else "",
        ", ".join(facts(layer)),
        cells,
        figure_rows(layer, metrics) if metrics else [],
        metrics.rmse_scale_ratio if metrics else None,
        charts(found, metrics) if found is not None and metrics else [],
        strip(layer.channels) if layer.channels else None,
    )


def _worst(report: Report, layers: list[_Layer]) -> list[_Layer]:
    """The layers to look at first: those with a fault, by verdict and then by their error."""
    rank = {"unreadable": 0, "bad": 1, "warn": 2}
    faulty = [layer for layer in layers if layer.verdict in rank]
    return sorted(
        faulty, key=lambda each: (rank[each.verdict], -report.layers[each.index].badness)
    )[:_WORST]


def _figures(report: Report) -> dict[str, Any]:
    """Every figure of every layer, for the filter: name -> heading and values."""
    figures: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        if name in _NO_FILTER:
            continue
        values = [column.value(layer_row(layer)) for layer in report.layers]
        numbers = [
            float(f"{value:.6g}") if isinstance(value, int | float) else None for value in values
        ]
        if any(number is not None for number in numbers):
            figures[name] = {"heading": _heading(name), "values": numbers}
    return figures


def _graph(report: Report, layers: list[_Layer]) -> dict[str, Any] | None:
    """Nodes and edges of the activations, if the report says what feeds them."""
    if not any(layer.inputs for layer in report.layers):
        return None
    feeders = graph_of(report.layers).feeders
    made = [
        shown for layer, shown in zip(report.layers, layers, strict=True) if not is_constant(layer)
    ]
    nodes = [
        {
            "id": layer.index,
            "op": layer.op or "input",
            "name": shorten(layer.name, 26),
            "full": layer.name,
            "times": "" if layer.times is None else f"{significant(layer.times)} times",
            "level": _level(layer.times),
        }
        for layer in made
    ]
    known = {layer.index for layer in made}
    edges = [
        [feeder, layer.index]
        for layer in made
        for feeder in feeders[layer.index]
        if feeder in known
    ]
    return {"nodes": nodes, "edges": edges}


def _level(times: float | None) -> int:
    """The colour of a node: 0 unknown, 1 rounding alone, up to 5."""
    return 0 if times is None else 1 + sum(times > step for step in _TIMES)
