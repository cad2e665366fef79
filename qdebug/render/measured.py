"""What a switchboard measured, as a table, with a line that says whether to trust it."""

import textwrap
from collections.abc import Sequence
from itertools import groupby

from qdebug.advise.meter import LEAST_DB, MOST_DB, Gain
from qdebug.advise.parts import Part
from qdebug.advise.suggest import Suggestion
from qdebug.advise.switchboard import Found, Step
from qdebug.advise.tuning import Change
from qdebug.measure.outputs import RUINED_DB
from qdebug.names import printable, shorten, shown
from qdebug.run.board import BoardOperator

_LEAST_NAME_WIDTH = 24
_WIDTH = 100  # of the text below the table, if no terminal sets the width
_INDENT = " " * 33
_MOST_SPANS = 5  # of an output's slices, in a note

# The switches reproduce the quantized model if the SQNR differs by less than `_SAME_DB`, and the
# float model if the SQNR with all of them off is at least `_FLOAT_DB`.
_SAME_DB = 0.5
_FLOAT_DB = 60.0


def table(found: Found, width: int | None = None) -> str:
    """The operators, what each step gains, and whether the switches reproduce the models."""
    lines = ["      gain [dB]   in total [dB]  operator", "-" * 60]
    for step in found.steps:
        figures = f"{written_gain(step.gain):>15}  {written_gain(step.total):>14}  "
        for operator in step.operators:
            lines.append(figures + _named(operator, width, len(_INDENT)))
            figures = _INDENT
    if not found.steps:
        lines.append(f"{_INDENT}(none)")
    if found.changes:
        lines += ["", "or, instead:", "      gain [dB]   in total [dB]  change", "-" * 60]
        lines += [line for change in found.changes for line in _changed(change, width)]
    lines.append("")
    for text in summary(found):
        lines += textwrap.wrap(text, max(width or _WIDTH, _LEAST_NAME_WIDTH))
    return "\n".join(lines) + "\n"


def summary(found: Found) -> list[str]:
    """What is reached, and how it was checked: one text each."""
    outputs = "the output" if len(found.outputs) == 1 else f"{len(found.outputs)} outputs"
    if len(found.parts) > len(found.outputs):
        outputs = f"{len(found.parts)} parts of {outputs}"
    if len(found.parts) > 1:
        outputs += " (mean)"
    total = found.steps[-1].total.db if found.steps else 0.0
    count = len(found.operators)
    reached = level(min(found.all_on_db + total, MOST_DB))
    return [
        f"SQNR of {outputs} on {found.num_samples} sample{'s' * (found.num_samples != 1)}: "
        f"{level(found.all_on_db)} as quantized, {reached} with {count} of "
        f"{found.num_operators} operators in float.",
        f"Check: every switch on gives {level(found.all_on_db)}, the quantized model itself "
        f"{level(found.own_db)}; every switch off gives {level(found.all_off_db)}.",
    ]


def notes(found: Found) -> list[str]:
    """What the user should know about the search, one line each."""
    result = judged(found.outputs, found.parts)
    if found.timed_out:
        result.append("the time limit ended the search: this is the best found so far")
    if abs(found.all_on_db - found.own_db) > _SAME_DB:
        result.append(
            "the switches do not reproduce the quantized model: the gains are only estimates"
        )
    if found.all_off_db < _FLOAT_DB and not found.fixed:
        result.append(
            "the switches do not reproduce the float model: was another model quantized, or was "
            "batch normalization folded in only one of the two?"
        )
    if found.fixed:
        names = ", ".join(f"'{shown(name)}'" for name, _ in found.fixed[:3])
        more = ", ..." if len(found.fixed) > 3 else ""
        count = f"{len(found.fixed)} tensor{'s' * (len(found.fixed) != 1)}"
        result.append(f"{count} cannot be switched to float: {names}{more} ({found.fixed[0][1]})")
    best = found.best_single
    if found.own_db >= MOST_DB:
        result.append("the quantized model's outputs are exact: nothing to suggest")
    elif not found.steps and found.enough:
        result.append("the quantized model already reaches the goal: nothing to suggest")
    elif not found.steps and best is not None:
        operator = shown(best.operators[0].layer)
        result.append(
            f"nothing to suggest: no operator gains more than chance; the best, '{operator}', "
            f"gains {written_gain(best.gain)} dB"
        )
    if found.larger is not None:
        first, *_, last = found.larger.operators
        result.append(
            f"{len(found.larger.operators)} operators, '{shown(first.layer)}' to "
            f"'{shown(last.layer)}', gain {written_gain(found.larger.gain)} dB together, but "
            "--top allows fewer"
        )
    if found.num_samples == 1:
        result.append("one sample cannot tell a gain from chance: expected 8 or more")
    return result


def judged(outputs: Sequence[str], parts: Sequence[Part]) -> list[str]:
    """Which outputs are judged in two parts, one line each."""
    return [
        f"output '{shown(outputs[part.output])}' is judged in two parts: as quantized, "
        f"slices {_spans(part.slices)} of axis {part.axis} are below {RUINED_DB:g} dB, "
        "and the others hide it"
        for part in parts
        if part.is_ruined
    ]


def _spans(numbers: Sequence[int]) -> str:
    """Ascending whole numbers in few words.

    >>> _spans([0, 4, 5, 6, 9]), _spans(range(0, 100, 2))
    ('0, 4 to 6, 9', '0, 2, 4, 6, 8, ... (50 in all)')
    """
    texts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        first, *rest = (number for _, number in run)
        texts.append(f"{first} to {rest[-1]}" if rest else f"{first}")
    more = f", ... ({len(numbers)} in all)" if len(texts) > _MOST_SPANS else ""
    return ", ".join(texts[:_MOST_SPANS]) + more


def as_suggestions(found: Found) -> list[Suggestion]:
    """The operators as suggestions, which `render.suggestions` writes for converters."""
    result = []
    before = 0.0
    for step in found.steps:
        share = (10 ** (-before / 10) - 10 ** (-step.total.db / 10)) / len(step.operators)
        before = step.total.db
        result += [
            Suggestion(o.layer, o.nodes, o.op, share, share, _reason(step)) for o in step.operators
        ]
    return result


def _reason(step: Step) -> str:
    others = len(step.operators) - 1
    together = f" together with {others} more" if others else ""
    return f"gains {written_gain(step.gain)} dB{together}"


def written_gain(gain: Gain) -> str:
    """A gain with its standard error, if it has one.

    >>> written_gain(Gain(1.234, 0.052)), written_gain(Gain(-0.5, None))
    ('+1.23 +-0.05', '-0.50')
    """
    stderr = "" if gain.stderr_db is None else f" +-{gain.stderr_db:.2f}"
    return f"{gain.db:+.2f}{stderr}"


def level(decibels: float) -> str:
    """An SQNR in words.

    >>> level(2.994), level(120.0), level(-100.0)
    ('2.99 dB', 'exact (120 dB or more)', 'NaN or Inf')
    """
    if decibels >= MOST_DB:
        return f"exact ({MOST_DB:.0f} dB or more)"
    return "NaN or Inf" if decibels <= LEAST_DB else f"{decibels:.2f} dB"


def _changed(change: Change, width: int | None) -> list[str]:
    figures = f"{written_gain(change.gain):>15}  {written_gain(change.total):>14}  "
    name = printable(change.layer)
    if width is not None:
        name = shorten(name, max(_LEAST_NAME_WIDTH, width - len(_INDENT)))
    what = change.what
    if change.in_16_bits is not None and change.params is not None:
        what += f" (16 bits: {change.in_16_bits.db:+.2f} dB)"
    return [figures + name, _INDENT + "  " + what]


def _named(operator: BoardOperator, width: int | None, used: int) -> str:
    op = f" ({printable(operator.op)})" if operator.op else ""
    name = printable(operator.layer)
    if width is not None:
        name = shorten(name, max(_LEAST_NAME_WIDTH, width - used - len(op)))
    return f"{name}{op}"
