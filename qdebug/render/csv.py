"""A report as CSV: every column, full precision, for spreadsheets and scripts."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from qdebug.names import printable
from qdebug.render.columns import COLUMNS, columns, rows
from qdebug.report import Report

# A cell that begins with one of these is a formula to a spreadsheet; an apostrophe makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(report: Report, names: Sequence[str] | None = None, per_channel: bool = False) -> str:
    """The report as CSV with a line of column names; what cannot be had is empty."""
    chosen = columns(names or [name for name in COLUMNS if name != "channel" or per_channel])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in chosen)
    for row in rows(report, per_channel):
        writer.writerow(_cell(column.value(row)) for column in chosen)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(repr, value))
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if value is None else value
