"""A report as a Markdown table, for pull requests and wikis."""

import re
from typing import Any

from tabulate import tabulate

from qdebug.names import printable
from qdebug.render.columns import Column, Row, View, chosen_columns, for_report, rows
from qdebug.render.outputs import figures
from qdebug.render.table import DEFAULT_COLUMNS
from qdebug.report.report import Report


def markdown(report: Report, view: View) -> str:
    """The report as a GitHub Markdown table; names are code spans, which contain no markup."""
    chosen = chosen_columns(view, for_report(report, DEFAULT_COLUMNS))
    return (
        _outputs(report)
        + tabulate(
            [[_cell(column, row) for column in chosen] for row in rows(report, view)],
            headers=[column.heading.replace("\n", " ") for column in chosen],
            colalign=["left" if column.left else "right" for column in chosen],
            tablefmt="pipe",
            disable_numparse=True,
        )
        + "\n"
    )


def _outputs(report: Report) -> str:
    """A table of the model's outputs, empty if there are none."""
    columns: dict[str, list[str]] = {
        "output": [code_span(output.name) for output in report.outputs],
        "figures": ["; ".join(figures(output)) for output in report.outputs],
    }
    if not report.outputs:
        return ""
    text = tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True)
    return f"{text}\n\n"


def _cell(column: Column, row: Row) -> str:
    value: Any = column.value(row)
    if value is None:
        return "-"
    return code_span(value) if isinstance(value, str) else column.text(value)


def code_span(text: str) -> str:
    r"""`text` as a code span, whatever characters it holds.

    >>> print(code_span("a`b|c"))
    ``a`b\|c``
    """
    shown = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
