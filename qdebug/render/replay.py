"""A replay as text: a line for each operator, then what differs, and what was not replayed."""

from collections import Counter
from collections.abc import Sequence

import click
from tabulate import tabulate

from qdebug.names import printable, shorten, shortened
from qdebug.report.replay import Difference, OperatorReplay, Replay

_HEADINGS = ("operator", "op", "codes", "differ", "most\nsteps", "rounding\nthat fits")
_INPUT_CODES = "input\ncodes"  # a column beside a dump: whether they are the dump's
_NAME_WIDTH = 40
_LONG_NAME_WIDTH = 80


def replay_text(replay: Replay, tolerance: int = 0) -> str:
    """The replay as a table, with the differences and the operators left out below it."""
    names = shortened([printable(each.name) for each in replay.operators], _NAME_WIDTH)
    failing = replay.failing(tolerance)
    body = [_line(name, each) for name, each in zip(names, replay.operators, strict=True)]
    headings, aligned = [*_HEADINGS], ["left", "left", *["right"] * 3, "left"]
    if replay.dumped:
        headings, aligned = [*headings, _INPUT_CODES], [*aligned, "left"]
        body = [[*line, each.recorded] for line, each in zip(body, replay.operators, strict=True)]
    text = tabulate(body, headings, "simple", colalign=aligned)
    parts = [_head(replay), "", text, "", _verdict(replay, failing, tolerance)]
    parts += [_overflows(each) for each in replay.operators if each.overflows]
    for each in failing:
        parts += ["", *_details(each)]
    if replay.unsupported:
        parts += ["", *_unsupported(replay)]
    return "\n".join(parts) + "\n"


def _line(name: str, operator: OperatorReplay) -> list[object]:
    matching = ", ".join(operator.matching) or f"none; {operator.rounding} is nearest"
    if len(operator.matching) == len(operator.differing):
        matching = "every" if len(operator.differing) > 1 else "-"
    return [
        name,
        operator.op,
        operator.num_codes,
        operator.num_differing,
        operator.max_steps,
        matching,
    ]


def _head(replay: Replay) -> str:
    count = f"{replay.num_samples} sample{'s' * (replay.num_samples != 1)}"
    return f"{printable(replay.model)}: computed again in integers, {count}; compared with " + (
        printable(replay.codes)
    )


def _verdict(replay: Replay, failing: Sequence[OperatorReplay], tolerance: int) -> str:
    codes = sum(each.num_codes for each in replay.operators)
    count = f"{len(replay.operators)} operator{'s' * (len(replay.operators) != 1)}"
    if failing:
        beyond = f" by more than {tolerance} steps" if tolerance else ""
        line = f"{len(failing)} of {count} differ{'s' * (len(failing) == 1)}{beyond}"
        return click.style(line, fg="red", bold=True)
    differing = sum(each.num_differing for each in replay.operators)
    if differing:
        return f"{count}: {differing} of {codes} codes differ, none by more than {tolerance} steps"
    return f"{count}: not one of {codes} codes differs"


def _details(operator: OperatorReplay) -> list[str]:
    name = shorten(printable(operator.name), _LONG_NAME_WIDTH)
    share = f"{operator.num_differing} of {operator.num_codes} codes"
    lines = [f"{operator.op} {name}: {share} differ, by up to {operator.max_steps} steps"]
    if operator.fault is not None:
        rest = f", but for {operator.fault.differing} codes" if operator.fault.differing else ""
        lines.append(f"  the codes are those of a kernel with a fault: {operator.fault.name}{rest}")
    else:
        lines.append("  no known fault explains the codes")
    return [*lines, *map(_difference, operator.first)]


def _overflows(operator: OperatorReplay) -> str:
    name = shorten(printable(operator.name), _LONG_NAME_WIDTH)
    sums = f"{operator.overflows} sum{'s' * (operator.overflows != 1)}"
    fit = "does" if operator.overflows == 1 else "do"
    return f"{operator.op} {name}: {sums} {fit} not fit the int32 accumulator"


def _difference(found: Difference) -> str:
    index = ", ".join(map(str, found.index))
    codes = f"computed {found.computed}, recorded {found.recorded}"
    return f"  sample {found.sample}, [{index}]: {codes}"


def _unsupported(replay: Replay) -> list[str]:
    """Each kind of operator that was not replayed, with the reason and how many there are."""
    counts = Counter((each.op, each.reason) for each in replay.unsupported)
    first = {(each.op, each.reason): each.name for each in reversed(replay.unsupported)}
    lines = [f"not replayed: {len(replay.unsupported)}"]
    for (op, reason), count in counts.items():
        name = shorten(printable(first[op, reason]), _NAME_WIDTH)
        more = f" and {count - 1} more" if count > 1 else ""
        lines.append(f"  {printable(op)} {name}{more}: {printable(reason)}")
    return lines
