"""Limits on the figures of layers, and the layers that exceed them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from qdebug.errors import QdebugError
from qdebug.measure.metrics import LOW_SQNR_DB, TFLITE_THRESHOLD, Metrics
from qdebug.measure.outputs import RUINED_DB, is_ruined
from qdebug.names import matches, nearest, printable, shown
from qdebug.report.diagnosis import CAUSES
from qdebug.report.report import LayerReport, Report


@dataclass(frozen=True)
class LimitKind:
    """The meaning of a limit's name: its figure, whether it is a minimum, and its unit."""

    figure: str
    unit: str
    is_minimum: bool = False
    is_share: bool = False


LIMIT_KINDS = {
    "max_rmse_scale": LimitKind("rmse_scale", "steps"),
    "max_times_expected": LimitKind("rmse_scale_ratio", "times the error of rounding alone"),
    "max_mean_error": LimitKind("mean_error_scale", "steps, of either sign"),
    "min_sqnr": LimitKind("sqnr_db", "dB", is_minimum=True),
    "max_range_waste": LimitKind("range_waste", "share: 0.1 or 10%", is_share=True),
    "max_clipped": LimitKind("clipped", "share: 0.01 or 1%", is_share=True),
    "max_saturated": LimitKind("saturated", "share: 0.01 or 1%", is_share=True),
    "max_abs_error": LimitKind("max_abs_error", "the tensor's own unit"),
}


# Limits on the outputs of the model.
OUTPUT_KINDS = {
    "min_output_sqnr": LimitKind("sqnr_db", "dB", is_minimum=True),
    "min_top1": LimitKind("top1", "share: 0.95 or 95%", is_minimum=True, is_share=True),
}
ALL_KINDS = LIMIT_KINDS | OUTPUT_KINDS


@dataclass(frozen=True)
class Limit:
    """One limit: its name, its bound, and where it came from."""

    name: str
    bound: float
    origin: str


@dataclass(frozen=True)
class Override:
    """Limits for the layers that match a glob."""

    pattern: str
    limits: Mapping[str, Limit]


@dataclass(frozen=True)
class Config:
    """The contents of [tool.qdebug]; all empty if there is no such table.

    Attributes:
        path: the file it was read from.
        source: what to read if the command line names no source.
        reading: how to read that source: options by name, such as ``inputs``.
        limits: for all layers, by name.
        ignore: globs of layers that are not checked.
        overrides: for some layers; the last that matches wins.
        fail_on: causes that no layer may have.
    """

    path: Path | None = None
    source: list[str] = field(default_factory=list)
    reading: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    ignore: list[str] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    fail_on: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """A layer that is over a limit: what was found and what was expected, in words."""

    layer: str
    figure: str
    found: str
    expected: str
    origin: str


@dataclass(frozen=True)
class Case:
    """One figure of one layer that was held against a limit; `failure` is None if it passed."""

    layer: str
    figure: str
    failure: Failure | None


def parse_bound(name: str, value: Any) -> float:
    """The bound of the limit `name`: a number, for shares also a text such as ``10%``.

    >>> parse_bound("max_clipped", "1%"), parse_bound("min_sqnr", 20)
    (0.01, 20.0)

    Raises:
        QdebugError: not a number, or a share outside 0 to 1.
    """
    kind = ALL_KINDS[name]
    return _bound(value, kind.is_share, kind.is_minimum)


def parse_share(value: Any, where: str) -> float:
    """A share: a number from 0 to 1, or a text such as ``80%``; `where` is for the message.

    >>> parse_share("80%", "budget")
    0.8

    Raises:
        QdebugError: not a number, or outside 0 to 1.
    """
    try:
        return _bound(value, is_share=True)
    except QdebugError as error:
        raise QdebugError(f"{where}: {error}") from None


def parse_growth(value: Any, where: str = "--max-regression") -> float:
    """How much an error may grow: a number of 0 or more, or a text such as ``10%``; 0.1 for None.

    >>> parse_growth("5%"), parse_growth(2), parse_growth(None)
    (0.05, 2.0, 0.1)

    Raises:
        QdebugError: not such a number.
    """
    if value is None:
        return 0.1
    percent = isinstance(value, str) and value.endswith("%")
    try:
        return _bound(value[:-1] if percent else value, is_share=False) / (100 if percent else 1)
    except QdebugError:
        found = f"found {value!r:.60}, expected a number of 0 or more, such as 0.1 or 10%"
        raise QdebugError(f"{where}: {found}") from None


def parse_decibels(value: Any, where: str) -> float:
    """A level: a number of dB, or a text such as ``20dB``; `where` is for the message.

    >>> parse_decibels("20dB", "target"), parse_decibels("12.5 dB", "target")
    (20.0, 12.5)

    Raises:
        QdebugError: not a number.
    """
    is_text = isinstance(value, str)
    number = value[:-2] if is_text and value[-2:].lower() == "db" else value
    try:
        return _bound(number, is_share=False, is_minimum=True)
    except QdebugError:
        found = f"found {value!r:.60}, expected a number of dB, such as 20dB"
        raise QdebugError(f"{where}: {found}") from None


def _bound(value: Any, is_share: bool, is_minimum: bool = False) -> float:
    bound = float("nan")
    if isinstance(value, str):
        number, divisor = (value[:-1], 100) if is_share and value[-1:] == "%" else (value, 1)
        with suppress(ValueError):
            bound = float(number) / divisor
    elif isinstance(value, Real) and not isinstance(value, bool):
        bound = float(value)
    wrong = not abs(bound) < float("inf") or (bound < 0 and not is_minimum)
    if wrong or (is_share and bound > 1):
        expected = "a share from 0 to 1 (or 0% to 100%)" if is_share else "a number"
        if not is_minimum and not is_share:
            expected += " of 0 or more"
        raise QdebugError(f"found '{printable(str(value))}', expected {expected}")
    return bound


def parse_causes(names: Sequence[str], where: str) -> list[str]:
    """Check that these are causes of a diagnosis.

    Raises:
        QdebugError: no such cause.
    """
    for name in names:
        if name not in CAUSES:
            raise QdebugError(f"{where}: no cause '{printable(name)}'; {nearest(name, CAUSES)}")
    return list(names)


@dataclass(frozen=True)
class CheckResult:
    """The result of a check; true if it passed.

    Attributes:
        failures: every figure that is over its limit, in the report's order.
        unknown: one line per limited figure that the report does not have.
        num_checked: number of layers that were checked.
        num_outputs: number of the model's outputs that were checked.
        unreadable: one line per file or layer that could not be read.
        cases: every figure that was held against a limit.
    """

    failures: list[Failure]
    unknown: list[str]
    num_checked: int
    unreadable: list[str] = field(default_factory=list)
    num_outputs: int = 0
    cases: list[Case] = field(default_factory=list)

    def add(self, layer: str, figure: str, failure: Failure | None) -> None:
        """Note a case, and its failure if it has one."""
        self.cases.append(Case(layer, figure, failure))
        if failure is not None:
            self.failures.append(failure)

    @property
    def passed(self) -> bool:
        """Whether all was read, layers were checked, and each is known to be within limits."""
        return self.num_checked > 0 and not (self.failures or self.unknown or self.unreadable)

    def __bool__(self) -> bool:
        return self.passed


def limits_of(bounds: Mapping[str, Any], flag: Callable[[str], str] = str) -> dict[str, Limit]:
    """Limits by name from bounds by name; `flag` gives a limit's name in messages.

    Raises:
        QdebugError: no such limit, or an invalid bound.
    """
    limits = {}
    for name, bound in bounds.items():
        if name not in ALL_KINDS:
            raise QdebugError(f"no limit '{printable(name)}'; {nearest(name, ALL_KINDS)}")
        try:
            limits[name] = Limit(name, parse_bound(name, bound), flag(name))
        except QdebugError as error:
            raise QdebugError(f"{flag(name)}: {error}") from None
    return limits


def check(
    report: Report, limits: Mapping[str, Limit], causes: Mapping[str, str], config: Config
) -> CheckResult:
    """Check every layer of a report against its limits.

    The configuration's limits apply to every layer; `limits` override them, and a layer's own
    overrides come last. Without any limit or cause, no output of the model may have an SQNR below
    10 dB (`RUINED_DB`); and unless all outputs are known to have 20 dB (`LOW_SQNR_DB`) or more,
    rmse/scale must not exceed 0.7 (`TFLITE_THRESHOLD`), nor may a layer have values that are not
    finite.

    Args:
        report: fresh or saved.
        limits: for all layers.
        causes: the causes that no layer may have, each with its origin.
        config: limits, overrides and layers to ignore.
    """
    general = {**config.limits, **limits}
    if not general and not causes:
        general = {"min_output_sqnr": Limit("min_output_sqnr", RUINED_DB, "default")}
        if not _outputs_are_sound(report):
            general["max_rmse_scale"] = Limit("max_rmse_scale", TFLITE_THRESHOLD, "default")
            causes = {"non-finite": "default"}
    of_outputs = [limit for limit in general.values() if limit.name in OUTPUT_KINDS]
    general = {name: limit for name, limit in general.items() if name in LIMIT_KINDS}
    checked = sum(1 for layer in report.layers if _is_checked(layer, config))
    outputs = len(report.outputs) if of_outputs else 0
    result = CheckResult([], [], checked, report.complaints, outputs)
    for limit in of_outputs:
        _check_outputs(report, limit, result)
    for layer in report.layers:
        if layer.metrics is None or not _is_checked(layer, config):
            continue
        of_layer = dict(general)
        for override in config.overrides:
            if matches(layer.name, override.pattern):
                of_layer.update(override.limits)
        for limit in of_layer.values():
            failure = _failure(layer, layer.metrics, limit)
            if isinstance(failure, str):
                result.unknown.append(failure)
            else:
                result.add(layer.name, LIMIT_KINDS[limit.name].figure, failure)
        cause = layer.diagnosis.cause if layer.diagnosis else None
        if causes and cause is not None:
            wrong = Failure(layer.name, "cause", cause, "another", causes.get(cause, ""))
            result.add(layer.name, "cause", wrong if cause in causes else None)
    return result


def _outputs_are_sound(report: Report) -> bool:
    """Whether the model's outputs are known, and all are near those of the float model."""
    return bool(report.outputs) and all(
        not is_ruined(output) and (output.sqnr_db is None or output.sqnr_db >= LOW_SQNR_DB)
        for output in report.outputs
    )


def _check_outputs(report: Report, limit: Limit, result: CheckResult) -> None:
    """Add to `result` what a limit on the model's outputs finds."""
    figure = OUTPUT_KINDS[limit.name].figure
    known = [output for output in report.outputs if getattr(output, figure) is not None]
    if limit.name == "min_output_sqnr":  # an exact output has none, and one that is not finite
        known = [output for output in report.outputs if output.num_elements + output.non_finite]
    if not known and limit.origin != "default":
        needed = "needs a float and a quantized model, or a file of qdebug capture"
        result.unknown.append(f"{figure} of the model's outputs is not known: {needed}")
    for output in known:
        value = getattr(output, figure)
        found = "no signal" if value is None else f"{value:.4g}"
        over = bool(output.rmse) if value is None else value < limit.bound
        if output.non_finite:
            over, found = True, f"{output.non_finite} NaN or infinite"
        name, expected = f"output {output.name}", f">= {limit.bound:.4g}"
        failure = Failure(name, figure, found, expected, limit.origin) if over else None
        result.add(name, figure, failure)


def _is_checked(layer: LayerReport, config: Config) -> bool:
    ignored = any(matches(layer.name, pattern) for pattern in config.ignore)
    return layer.metrics is not None and not ignored


def unmatched(report: Report, config: Config) -> list[str]:
    """Globs of the configuration that match no layer; they are probably out of date."""
    patterns = [*config.ignore, *(override.pattern for override in config.overrides)]
    return [
        pattern
        for pattern in dict.fromkeys(patterns)
        if not any(matches(layer.name, pattern) for layer in report.layers)
    ]


def _failure(layer: LayerReport, metrics: Metrics, limit: Limit) -> Failure | str | None:
    """The failure, if the figure is over its limit; a message if the figure is unknown."""
    kind = LIMIT_KINDS[limit.name]
    figure = "steps" if kind.figure == "rmse_scale" else kind.figure
    value = getattr(metrics, figure)
    expected = f"{'>=' if kind.is_minimum else '<='} {limit.bound:.4g}"
    if value is not None:
        over = value < limit.bound if kind.is_minimum else abs(value) > limit.bound
        found = f"{value:.4g}"
    elif not metrics.num_elements:
        over, found = bool(metrics.non_finite), "no finite element"
    elif kind.figure == "sqnr_db" and metrics.rmse is not None:
        over, found = metrics.rmse > 0, "no signal"  # no error is within any limit
    elif kind.figure == "rmse_scale_ratio" and metrics.rmse_scale_expected == 0:
        over, found = bool(metrics.rmse_scale), "an error in exact zeros"
    elif kind.figure == "range_waste" and layer.bits is not None:
        over, found = False, ""  # undefined for more than 16 bits
    elif layer.grid is not None:
        over, found = False, ""  # undefined where steps differ
    else:
        return f"layer '{shown(layer.name)}': {kind.figure} is not known: not checked"
    return Failure(layer.name, kind.figure, found, expected, limit.origin) if over else None
