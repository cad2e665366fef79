"""The forms in which a report is written: for people, pull requests, scripts and TFLite's tools."""

from collections.abc import Iterator

from qdebug.arguments import one_of
from qdebug.errors import QdebugError
from qdebug.render.columns import View, arranged, check_view
from qdebug.report.report import Report

FORMS = ("table", "markdown", "csv", "json", "tflite-csv")
_WHOLE = ("json", "tflite-csv")  # these always have all their columns


def check_form(form: str, view: View) -> None:
    """Check that there is such a form, and that it can show such a view.

    Raises:
        QdebugError: there is none, or it cannot.
    """
    one_of("form", form, FORMS)
    if form in _WHOLE and (view.columns is not None or view.per_channel):
        raise QdebugError(f"columns and channels cannot be chosen for {form}: it has all of them")
    check_view(view)


def pieces(report: Report, form: str, view: View, width: int | None = None) -> Iterator[str]:
    """The report as text, piece by piece: whole, that of many layers takes much memory.

    Args:
        report: fresh or saved.
        form: one of `FORMS`.
        view: which part of it.
        width: columns of the terminal that a table is to fit.
    """
    if form == "json":
        from qdebug.report.json import json_pieces

        yield from json_pieces(arranged(report, view))
    elif form == "csv":
        from qdebug.render.csv import csv_pieces

        yield from csv_pieces(report, view)
    elif form == "tflite-csv":
        from qdebug.report.tflite_csv import write_csv

        yield write_csv(arranged(report, view))
    elif form == "markdown":
        from qdebug.render.markdown import markdown

        yield markdown(report, view)
    else:
        from qdebug.render.table import table

        yield table(report, view, width)
