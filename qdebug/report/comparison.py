"""Two reports of one model compared: which layers got worse, beyond chance and beyond a limit."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qdebug.errors import QdebugError
from qdebug.report.limits import Failure, parse_growth
from qdebug.report.report import LayerReport, Report

SCHEMA = "qdebug.diff/1"

Status = Literal["worse", "vanished", "new", "better", "same"]

DEFAULT_REGRESSION = parse_growth(None)

# Two figures that differ by less changed alike: the first is named.
_TIE = 1e-6

# A change is chance unless it exceeds this many standard errors.
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Change:
    """One layer, or one output of the model, in both reports.

    Attributes:
        name: of the layer.
        status: what became of it.
        figure: the figure that changed most: ``rmse_scale`` or ``sqnr_db``.
        ratio: the new error over the old one in that figure; None if one of them is unknown.
        beyond_chance: whether the change exceeds three standard errors.
        old: the layer in the old report; None if it is new.
        new: the layer in the new report; None if it has vanished.
    """

    name: str
    status: Status
    figure: str = "rmse_scale"
    ratio: float | None = None
    beyond_chance: bool = False
    old: LayerReport | None = None
    new: LayerReport | None = None


@dataclass(frozen=True)
class Comparison:
    """What changed from one report to another.

    Attributes:
        old: the files of the old report.
        new: the files of the new report.
        changes: every layer, the worst first.
        outputs: every output of the model: its name and SQNR in both reports, in dB.
        limit: the share by which an error may grow.
        notes: versions that differ, and what could not be compared; one line each.
    """

    old: Sequence[str]
    new: Sequence[str]
    changes: Sequence[Change]
    outputs: Sequence[tuple[str, float | None, float | None]] = ()
    limit: float = DEFAULT_REGRESSION
    notes: Sequence[str] = field(default_factory=tuple)

    def count(self, status: Status) -> int:
        """How many layers have this status."""
        return sum(change.status == status for change in self.changes)

    def regressions(self, allowed: Collection[Status] = ()) -> list[Change]:
        """The layers that got worse, have vanished or are new, but for statuses in `allowed`."""
        faults = {"worse", "vanished", "new"} - set(allowed)
        return [change for change in self.changes if change.status in faults]


def standard_error(layer: LayerReport, figure: float) -> float:
    """The standard error of a root mean square over a layer's elements: figure / sqrt(2 n).

    That of a normal error: its square has the variance 2 sigma^4, and the root of a mean square v
    changes by dv / (2 sqrt v). An error that is uniform over a step has 0.63 times as much.
    """
    count = layer.metrics.num_elements if layer.metrics else 0
    return figure / math.sqrt(2 * count) if count else math.inf


def compare(old: Report, new: Report, limit: float = DEFAULT_REGRESSION) -> Comparison:
    """What changed from `old` to `new`, layer by layer.

    A layer got worse if its rmse/scale, or its error relative to the signal (SQNR), grew by more
    than `limit` and by more than three standard errors; likewise better.

    Raises:
        QdebugError: no layer is in both reports.
    """
    before = {layer.name: layer for layer in old.layers}
    after = {layer.name: layer for layer in new.layers}
    if before and after and not before.keys() & after.keys():
        raise QdebugError(
            f"found no layer that is in both reports, expected reports of one model: "
            f"'{next(iter(before))}' and '{next(iter(after))}', for example"
        )
    changes = [
        _change(name, before.get(name), after.get(name), limit)
        for name in dict.fromkeys([*before, *after])
    ]
    order = ("worse", "vanished", "new", "better", "same")
    changes.sort(key=lambda change: (order.index(change.status), -_size(change)))
    return Comparison(
        old.sources, new.sources, changes, list(_outputs(old, new)), limit, _notes(old, new)
    )


def _size(change: Change) -> float:
    """How large a change is, whatever its direction."""
    return 0.0 if change.ratio is None else abs(math.log(max(change.ratio, 1e-300)))


def _change(name: str, old: LayerReport | None, new: LayerReport | None, limit: float) -> Change:
    if old is None or new is None:
        return Change(name, "new" if old is None else "vanished", old=old, new=new)
    if old.metrics is None or new.metrics is None:
        gone = new.metrics is None and old.metrics is not None
        return Change(name, "vanished" if gone else "same", old=old, new=new)
    found: tuple[float, str, bool] | None = None
    for figure, was, now in _errors(old, new):
        if was == now:
            ratio, sure = 1.0, False
        else:
            ratio = now / was if was else math.inf
            apart = _STANDARD_ERRORS * math.hypot(
                standard_error(old, was), standard_error(new, now)
            )
            sure = abs(now - was) > apart
        size = abs(math.log(max(ratio, 1e-300)))
        if found is None or (sure, size) > (found[2], abs(math.log(max(found[0], 1e-300))) + _TIE):
            found = ratio, figure, sure
    if found is None:
        return Change(name, "same", old=old, new=new)
    ratio, figure, sure = found
    status: Status = "same"
    if sure and ratio > 1 + limit:
        status = "worse"
    elif sure and ratio < 1 / (1 + limit):
        status = "better"
    return Change(name, status, figure, ratio, sure, old, new)


def _errors(old: LayerReport, new: LayerReport) -> Iterator[tuple[str, float, float]]:
    """The errors that can be compared: in steps, and relative to the signal."""
    was, now = old.metrics, new.metrics
    assert was is not None
    assert now is not None
    if was.rmse_scale is not None and now.rmse_scale is not None:
        yield "rmse_scale", was.rmse_scale, now.rmse_scale
    if was.sqnr_db is not None and now.sqnr_db is not None:
        yield "sqnr_db", _relative_error(was.sqnr_db), _relative_error(now.sqnr_db)


def _relative_error(sqnr_db: float) -> float:
    """RMS of the error over that of the signal, at most 10^300: a saved report may say anything."""
    return float(10 ** min(-sqnr_db / 20, 300.0))


def _outputs(old: Report, new: Report) -> Iterator[tuple[str, float | None, float | None]]:
    before = {output.name: output.sqnr_db for output in old.outputs}
    after = {output.name: output.sqnr_db for output in new.outputs}
    for name in dict.fromkeys([*before, *after]):
        yield name, before.get(name), after.get(name)


def _notes(old: Report, new: Report) -> list[str]:
    """What made the reports, where it differs."""
    before = {"qdebug": old.qdebug_version, **old.runtime}
    after = {"qdebug": new.qdebug_version, **new.runtime}
    return [
        f"{name} differs: {before.get(name, 'not recorded')} and {after.get(name, 'not recorded')}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def regression_failures(
    comparison: Comparison, baseline: str, allowed: Collection[Status] = ()
) -> list[Failure]:
    """The regressions as failures of a check; `baseline` is the file that they are held against."""
    failures = []
    for change in comparison.regressions(allowed):
        if change.status != "worse":
            found = "a new layer" if change.status == "new" else "vanished"
            expected = "as in the baseline"
            failures.append(Failure(change.name, "layer", found, expected, baseline))
            continue
        was, now = figure_of(change.old, change.figure), figure_of(change.new, change.figure)
        assert change.ratio is not None
        grown = "" if math.isinf(change.ratio) else f" ({100 * (change.ratio - 1):+.3g} %)"
        bound = f"{was:.4g}, at most {100 * comparison.limit:.3g} % worse"
        failures.append(Failure(change.name, change.figure, f"{now:.4g}{grown}", bound, baseline))
    return failures


def figure_of(layer: LayerReport | None, figure: str) -> float | None:
    """A layer's figure; None if it has none."""
    if layer is None or layer.metrics is None:
        return None
    value: float | None = getattr(layer.metrics, figure)
    return value


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values (docs/ci.md)."""
    statuses: Sequence[Status] = ("worse", "vanished", "new", "better", "same")
    return {
        "schema": SCHEMA,
        "old": list(comparison.old),
        "new": list(comparison.new),
        "limit": comparison.limit,
        "counts": {status: comparison.count(status) for status in statuses},
        "changes": [_change_json(change) for change in comparison.changes],
        "outputs": [
            {"name": name, "old_sqnr_db": old, "new_sqnr_db": new}
            for name, old, new in comparison.outputs
        ],
        "notes": list(comparison.notes),
    }


def _change_json(change: Change) -> dict[str, Any]:
    infinite = change.ratio is not None and math.isinf(change.ratio)
    return {
        "name": change.name,
        "status": change.status,
        "figure": change.figure,
        "ratio": None if infinite else change.ratio,
        "beyond_chance": change.beyond_chance,
        "old": _side(change.old),
        "new": _side(change.new),
    }


def _side(layer: LayerReport | None) -> Mapping[str, Any] | None:
    if layer is None:
        return None
    return {
        "rmse_scale": figure_of(layer, "rmse_scale"),
        "sqnr_db": figure_of(layer, "sqnr_db"),
        "verdict": layer.diagnosis.verdict if layer.diagnosis else None,
        "cause": layer.diagnosis.cause if layer.diagnosis else None,
    }
