"""A report as CSV: every column, full precision, for spreadsheets and scripts."""

import csv
import io
from typing import Any

from qdebug.names import printable
from qdebug.render.columns import COLUMNS, View, chosen_columns, rows
from qdebug.report import Report

# A cell that begins with one of these is a formula to a spreadsheet; an apostrophe makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(report: Report, view: View) -> str:
    """The report as CSV with a line of column names; what cannot be had is empty."""
    chosen = chosen_columns(view, list(COLUMNS))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in chosen)
    for row in rows(report, view):
        writer.writerow(_cell(column.value(row)) for column in chosen)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(repr, value))
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if value is None else value
