"""The table of a report, fitted to a terminal or whole."""

import math
from collections import Counter
from collections.abc import Sequence

import click
from tabulate import tabulate

from qdebug.formatting import significant
from qdebug.measure.metrics import REFERENCE
from qdebug.names import printable, shorten, shortened
from qdebug.render.columns import (
    COLUMNS,
    Column,
    Row,
    View,
    chosen_columns,
    for_report,
    rows,
)
from qdebug.render.outputs import output_lines
from qdebug.report.report import Report

DEFAULT_COLUMNS = (
    "layer",
    "op",
    "shape",
    "scale",
    "zero_point",
    "rmse",
    "rmse_scale",
    "rmse_scale_ratio",
    "mean_error_scale",
    "max_abs_error_scale",
    "range_waste",
    "clipped",
    "sqnr_db",
    "verdict",
    "cause",
)

# Columns dropped on a narrow terminal, in this order.
_DISPENSABLE = (
    "shape",
    "zero_point",
    "op",
    "scale",
    "max_abs_error_scale",
    "rmse",
    "bar",
    "clipped",
    "range_waste",
    "mean_error_scale",
)

# On a terminal a bar stands beside the figure: a block for each octave above rounding alone.
_MOST_BLOCKS = 8


def _bar(ratio: float) -> str:
    return "\u2587" * min(1 + round(math.log2(max(ratio, 1.0))), _MOST_BLOCKS)


_BAR = Column("bar", "", COLUMNS["rmse_scale_ratio"].value, _bar, left=True)

# A name shorter than this is hard to tell from its neighbours.
_LEAST_NAME_WIDTH = 24

_GAP = 2  # between tabulate's columns
_PADDING = 2  # added to a heading by tabulate


def table(
    report: Report,
    view: View,
    width: int | None = None,
) -> str:
    """The report as text, at most `width` columns wide if possible.

    Long names are shortened in the middle. If that is not enough, and the view does not name its
    columns, columns are left out; the last line lists them.
    """
    body = list(rows(report, view))
    chosen = chosen_columns(view, for_report(report, DEFAULT_COLUMNS))
    if width is not None and view.columns is None:
        place = [column.name for column in chosen].index("rmse_scale_ratio") + 1
        chosen.insert(place, _BAR)
    cells = {column.name: [cell(column, row) for row in body] for column in chosen}
    left_out: list[str] = []
    if width is not None:
        for name in _DISPENSABLE if view.columns is None else ():
            if _room_for_names(chosen, cells, width) >= min(
                _LEAST_NAME_WIDTH, _width("layer", cells["layer"])
            ):
                break
            chosen = [column for column in chosen if column.name != name]
            left_out += [name] * (name != _BAR.name)
        if "layer" in cells:
            room = max(_room_for_names(chosen, cells, width), _LEAST_NAME_WIDTH)
            cells["layer"] = shortened(cells["layer"], room)
    text = tabulate(
        [list(line) for line in zip(*(cells[column.name] for column in chosen), strict=True)],
        headers=[column.heading for column in chosen],
        colalign=["left" if column.left else "right" for column in chosen] if body else None,
        tablefmt="simple",
        disable_numparse=True,
    )
    lines = [
        head(report),
        *_outputs(report),
        "",
        _coloured(text, body),
        "",
        *summary(report, width),
    ]
    if left_out:
        lines.append(f"left out to fit {width} columns: {', '.join(left_out)} (--wide shows all)")
    return "\n".join(lines) + "\n"


def cell(column: Column, row: Row) -> str:
    """The text of a table cell."""
    value = column.value(row)
    return "-" if value is None else column.text(value)


def _width(heading: str, cells: Sequence[str]) -> int:
    return max(*(len(line) + _PADDING for line in heading.split("\n")), *map(len, cells), 0)


def _room_for_names(chosen: Sequence[Column], cells: dict[str, list[str]], width: int) -> int:
    """The number of characters that the other columns leave for the layer's name."""
    others = [c for c in chosen if c.name != "layer"]
    return width - sum(_width(c.heading, cells[c.name]) + _GAP for c in others)


_COLOURS = {"warn": "yellow", "bad": "red", "unreadable": "red"}


def _coloured(text: str, body: Sequence[Row]) -> str:
    """The table, with the lines of layers that are not ok coloured by verdict."""
    lines = text.split("\n")
    first = len(lines) - len(body)
    for i, row in enumerate(body, first):
        colour = _COLOURS.get(row.layer.diagnosis.verdict) if row.layer.diagnosis else None
        if colour:
            lines[i] = click.style(lines[i], fg=colour)
    return "\n".join(lines)


def _outputs(report: Report) -> list[str]:
    return [
        click.style(line, fg="red") if ruined else line
        for line, ruined in output_lines(report.outputs)
    ]


def head(report: Report) -> str:
    """The files that were read, and how many layers and elements they have."""
    counts = f"{_count(len(report.layers), 'layer')}, {_count(report.num_elements, 'element')}"
    if not report.sources:  # pairs in memory
        return counts
    first, count = printable(report.sources[0]), len(report.sources)
    return f"{first if count == 1 else f'{count} files ({first}, ...)'}: {counts}"


def summary(report: Report, width: int | None = None) -> list[str]:
    """How many layers exceed the reference, and the worst; then what could not be read."""
    read = [layer for layer in report.layers if layer.metrics]
    above = [layer for layer in read if layer.above_rounding]
    line = (
        f"{len(above)} of {_count(len(read), 'layer')} above what rounding alone gives "
        f"(rmse/scale {significant(REFERENCE)}, less where floats are exact zeros)"
    )
    if above:
        worst = max(above, key=lambda layer: layer.badness)
        assert worst.metrics is not None
        name = printable(worst.name)
        name = name if width is None else shorten(name, _LEAST_NAME_WIDTH)
        line += f"; the worst: {name} ({significant(worst.metrics.steps or 0.0)})"
    verdicts = Counter(layer.diagnosis.verdict for layer in report.layers if layer.diagnosis)
    counts = ", ".join(f"{verdicts[v]} {v}" for v in ("bad", "warn", "ok") if verdicts[v])
    return [
        *([f"verdicts: {counts}"] if counts else []),
        line,
        *(f"unreadable: {printable(complaint)}" for complaint in report.complaints),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
