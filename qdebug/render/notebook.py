"""A report as an HTML table, for notebooks."""

import html

from tabulate import tabulate

from qdebug.names import shorten
from qdebug.render.columns import View, chosen_columns, rows
from qdebug.render.outputs import output_lines
from qdebug.render.table import DEFAULT_COLUMNS, cell, head, summary
from qdebug.report.report import Report

# A notebook shows pages of figures, not thousands of rows; nor names of thousands of characters.
_MOST_ROWS = 200
_MOST_LINES = 20
_MOST_CHARACTERS = 120


def html_table(report: Report) -> str:
    """The report as an HTML table; all text is escaped."""
    view = View(top=_MOST_ROWS)
    body = list(rows(report, view))
    chosen = chosen_columns(view, DEFAULT_COLUMNS)
    text = tabulate(
        [[shorten(cell(column, row), _MOST_CHARACTERS) for column in chosen] for row in body],
        headers=[column.heading.replace("\n", " ") for column in chosen],
        colalign=["left" if column.left else "right" for column in chosen] if body else None,
        tablefmt="html",
        disable_numparse=True,
    )
    lines = summary(report)
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more lines"]
    if len(report.layers) > _MOST_ROWS:
        lines.insert(0, f"the first {_MOST_ROWS} of {len(report.layers)} layers")
    outputs = [line for line, _ in output_lines(report.outputs)]
    above, *below = (f"<p>{html.escape(line)}</p>" for line in [head(report), *lines])
    above += "".join(f"<p>{html.escape(line)}</p>" for line in outputs)
    return above + str(text) + "".join(below)
