"""A comparison of two reports for people, pull requests and browsers."""

import math
from collections.abc import Callable, Sequence

import click
from tabulate import tabulate

from qdebug.formatting import significant
from qdebug.names import printable, shortened
from qdebug.render.markdown import code_span
from qdebug.report.comparison import Change, Comparison, figure_of
from qdebug.report.report import LayerReport

FORMS = ("table", "markdown", "json", "html")

_HEADINGS = (
    "layer", "status", "rmse/scale", "now", "SQNR [dB]", "now",
    "error grew\nby [%]", "in", "verdict",
)  # fmt: skip
_ALIGN = ("left", "left", *["right"] * 5, "left", "left")
_FIGURES = {"rmse_scale": "rmse/scale", "sqnr_db": "SQNR"}
_NAME_WIDTH = 48
_COLOURS = {"worse": "red", "vanished": "red", "new": "yellow", "better": "green"}


def table(comparison: Comparison, *, everything: bool = False) -> str:
    """The layers that changed, the worst first, as text; with `everything`, the others too."""
    shown = _shown(comparison, everything)
    names = shortened([printable(change.name) for change in shown], _NAME_WIDTH)
    body = [[name, *_cells(change)] for name, change in zip(names, shown, strict=True)]
    lines = [_head(comparison), ""]
    if body:
        text = tabulate(body, _HEADINGS, "simple", colalign=_ALIGN, disable_numparse=True)
        rows = text.split("\n")
        first = len(rows) - len(body)
        for place, change in enumerate(shown, first):
            if colour := _COLOURS.get(change.status):
                rows[place] = click.style(rows[place], fg=colour)
        lines += [*rows, ""]
    lines += [_summary(comparison), *_outputs(comparison, printable)]
    lines += [f"note: {printable(note)}" for note in comparison.notes]
    return "\n".join(lines) + "\n"


def markdown(comparison: Comparison, *, everything: bool = False) -> str:
    """The same for a pull request."""
    shown = _shown(comparison, everything)
    body = [[code_span(change.name), *_cells(change)] for change in shown]
    lines = [f"**{_summary(comparison)}**", ""]
    if body:
        headings = [heading.replace("\n", " ") for heading in _HEADINGS]
        lines += [tabulate(body, headings, "pipe", colalign=_ALIGN, disable_numparse=True), ""]
    lines += [f"- {line}" for line in _outputs(comparison, code_span)]
    lines += [f"- note: {code_span(note)}" for note in comparison.notes]
    return "\n".join(lines).rstrip() + "\n"


def html(comparison: Comparison) -> str:
    """The same as one page, all layers included.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    from qdebug.render.html.page import page

    names = [printable(change.name) for change in comparison.changes]
    about = zip(names, shortened(names, _NAME_WIDTH), comparison.changes, strict=True)
    rows = [(name, short, change.status, _cells(change)) for name, short, change in about]
    return page(
        "diff.html.j2",
        title=_head(comparison),
        summary=_summary(comparison),
        outputs=_outputs(comparison, printable),
        notes=[printable(note) for note in comparison.notes],
        headings=_HEADINGS,
        rows=rows,
    )


def _shown(comparison: Comparison, everything: bool) -> list[Change]:
    return [change for change in comparison.changes if everything or change.status != "same"]


def _head(comparison: Comparison) -> str:
    return f"{_files(comparison.old)} -> {_files(comparison.new)}"


def _files(files: Sequence[str]) -> str:
    return printable(files[0] if len(files) == 1 else ", ".join(files)) if files else "in memory"


def _summary(comparison: Comparison) -> str:
    statuses = ("worse", "vanished", "new", "better", "same")
    counts = [f"{count} {s}" for s in statuses if (count := comparison.count(s))]  # type: ignore[arg-type]
    limit = f"worse: by more than {100 * comparison.limit:.3g} % and by more than chance"
    return f"layers: {', '.join(counts) or 'none'} ({limit})"


def _outputs(comparison: Comparison, shown: Callable[[str], str]) -> list[str]:
    return [
        f"output {shown(name)}: SQNR {_db(old)} -> {_db(new)} dB"
        for name, old, new in comparison.outputs
    ]


def _cells(change: Change) -> list[str]:
    return [
        change.status,
        _steps(change.old),
        _steps(change.new),
        _db(figure_of(change.old, "sqnr_db")),
        _db(figure_of(change.new, "sqnr_db")),
        _percent(change.ratio),
        "-" if change.ratio is None else _FIGURES[change.figure],
        _verdicts(change.old, change.new),
    ]


def _steps(layer: LayerReport | None) -> str:
    value = figure_of(layer, "rmse_scale")
    return "-" if value is None else significant(value)


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return "from 0" if math.isinf(ratio) else f"{100 * (ratio - 1):+.3g}"


def _verdicts(old: LayerReport | None, new: LayerReport | None) -> str:
    was, now = (_verdict(layer) for layer in (old, new))
    return was if was == now else f"{was} -> {now}"


def _verdict(layer: LayerReport | None) -> str:
    if layer is None or layer.diagnosis is None:
        return "-"
    cause = layer.diagnosis.cause
    verdict = layer.diagnosis.verdict
    return verdict if cause in (None, verdict) else f"{verdict} ({cause})"
