"""A report as CSV: every column, full precision, for spreadsheets and scripts."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from qdebug.names import spreadsheet_text
from qdebug.render.columns import COLUMNS, View, chosen_columns, output_row, rows
from qdebug.report.report import Report


def csv_pieces(report: Report, view: View) -> Iterator[str]:
    """The report as CSV, line by line, after a line of column names; missing figures are empty.

    The model's outputs come first, as rows of kind ``output``, unless the view names its columns.
    """
    chosen = chosen_columns(view, list(COLUMNS))
    yield _line(column.name for column in chosen)
    outputs = (output_row(output) for output in report.outputs if view.columns is None)
    for row in chain(outputs, rows(report, view)):
        yield _line(_cell(column.value(row)) for column in chosen)


def _line(cells: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A value as the csv module should write it: text is never a formula, None is empty."""
    if isinstance(value, list):
        return " ".join(map(repr, value))
    if isinstance(value, str):
        return spreadsheet_text(value)
    return "" if value is None else value
