"""A replay as rows, one an operator: CSV for scripts, Markdown for pull requests."""

import csv
import io

from tabulate import tabulate

from qdebug.names import printable, spreadsheet_text
from qdebug.render.markdown import code_span
from qdebug.report.replay import OperatorReplay, Replay

_COLUMNS = (
    "operator",
    "op",
    "codes",
    "differ",
    "most_steps",
    "rounding",
    "matching",
    "overflows",
    "input_codes",
    "fault",
    "not_replayed",
)
_NUMBERS = ("codes", "differ", "most_steps", "overflows")

_Row = dict[str, str | int | None]


def replay_csv(replay: Replay) -> str:
    """The replay as CSV; operators that were not replayed have a reason and no figures."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in _rows(replay):
        cells = [row.get(column) for column in _COLUMNS]
        writer.writerow(spreadsheet_text(c) if isinstance(c, str) else c for c in cells)
    return out.getvalue()


def replay_markdown(replay: Replay) -> str:
    """The replay as a GitHub Markdown table, of the columns that hold anything."""
    rows = _rows(replay)
    kept = [each for each in _COLUMNS if any(row.get(each) not in (None, "", 0) for row in rows)]
    kept = [each for each in _COLUMNS if each in kept or each in ("differ", "most_steps")]
    return (
        tabulate(
            [[_span(row.get(column)) for column in kept] for row in rows],
            headers=[column.replace("_", " ") for column in kept],
            colalign=["right" if column in _NUMBERS else "left" for column in kept],
            tablefmt="pipe",
            disable_numparse=True,
        )
        + "\n"
    )


def _rows(replay: Replay) -> list[_Row]:
    """A row for each operator, first those that were replayed."""
    rows = [_row(each) for each in replay.operators]
    return rows + [
        {"operator": each.name, "op": each.op, "not_replayed": printable(each.reason)}
        for each in replay.unsupported
    ]


def _row(operator: OperatorReplay) -> _Row:
    return {
        "operator": operator.name,
        "op": operator.op,
        "codes": operator.num_codes,
        "differ": operator.num_differing,
        "most_steps": operator.max_steps,
        "rounding": operator.rounding,
        "matching": " ".join(operator.matching),
        "overflows": operator.overflows,
        "input_codes": operator.recorded,
        "fault": None if operator.fault is None else operator.fault.name,
    }


def _span(value: str | int | None) -> str:
    """A cell: text is a code span, which contains no markup."""
    if value is None or value == "":
        return "-"
    return code_span(value) if isinstance(value, str) else str(value)
