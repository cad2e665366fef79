"""A report as an HTML table, for notebooks."""

import html

from tabulate import tabulate

from qdebug.render.columns import View, chosen_columns, rows
from qdebug.render.table import DEFAULT_COLUMNS, cell, summary
from qdebug.report.report import Report

# Beyond this, a table is too long to read in a notebook.
_MOST_ROWS = 200


def html_table(report: Report, view: View) -> str:
    """The report as an HTML table; all text is escaped."""
    body = rows(report, view)
    chosen = chosen_columns(view, DEFAULT_COLUMNS)
    lines = [[cell(column, row) for column in chosen] for row in body[:_MOST_ROWS]]
    text = tabulate(
        lines,
        headers=[column.heading.replace("\n", " ") for column in chosen],
        colalign=["left" if column.left else "right" for column in chosen] if lines else None,
        tablefmt="html",
        disable_numparse=True,
    )
    tail = summary(report)
    if len(body) > _MOST_ROWS:
        tail.insert(0, f"the first {_MOST_ROWS} of {len(body)} rows")
    return str(text) + "".join(f"<p>{html.escape(line)}</p>" for line in tail)
