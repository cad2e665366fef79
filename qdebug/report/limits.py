"""Limits: which figures a layer must keep to, from options and configuration, and who does not."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdebug.errors import QdebugError
from qdebug.measure.metrics import TFLITE_THRESHOLD, Metrics
from qdebug.names import matches, nearest, printable, shown
from qdebug.report.diagnosis import CAUSES
from qdebug.report.report import LayerReport, Report


@dataclass(frozen=True)
class LimitKind:
    """What a limit of some name means: a figure, which side is wrong, and its unit."""

    figure: str
    unit: str
    is_minimum: bool = False
    is_share: bool = False


LIMIT_KINDS = {
    "max_rmse_scale": LimitKind("rmse_scale", "steps"),
    "max_mean_error": LimitKind("mean_error_scale", "steps, of either sign"),
    "min_sqnr": LimitKind("sqnr_db", "dB", is_minimum=True),
    "max_range_waste": LimitKind("range_waste", "share: 0.1 or 10%", is_share=True),
    "max_clipped": LimitKind("clipped", "share: 0.01 or 1%", is_share=True),
    "max_saturated": LimitKind("saturated", "share: 0.01 or 1%", is_share=True),
    "max_abs_error": LimitKind("max_abs_error", "the tensor's own unit"),
}


@dataclass(frozen=True)
class Limit:
    """One limit: its name, its bound, and where it came from."""

    name: str
    bound: float
    origin: str


@dataclass(frozen=True)
class Override:
    """Limits for the layers that a glob names."""

    pattern: str
    limits: Mapping[str, Limit]


@dataclass(frozen=True)
class Config:
    """What [tool.qdebug] says; all empty where there is no such table.

    Attributes:
        path: the file it was read from.
        source: pair files or a saved report to use where the command line names none.
        limits: for all layers, by name.
        ignore: globs of layers that are not checked.
        overrides: for some layers; the last that matches wins.
        fail_on: causes that no layer may have.
    """

    path: Path | None = None
    source: list[str] = field(default_factory=list)
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


def parse_bound(name: str, value: Any) -> float:
    """The bound of the limit `name`: a number, for shares also a text such as ``10%``.

    >>> parse_bound("max_clipped", "1%"), parse_bound("min_sqnr", 20)
    (0.01, 20.0)

    Raises:
        QdebugError: not a number, or a share outside 0 to 1.
    """
    kind = LIMIT_KINDS[name]
    return _bound(value, kind.is_share, kind.is_minimum)


def parse_share(value: Any) -> float:
    """A share: a number from 0 to 1, or a text such as ``80%``.

    >>> parse_share("80%")
    0.8

    Raises:
        QdebugError: not a number, or outside 0 to 1.
    """
    return _bound(value, is_share=True)


def _bound(value: Any, is_share: bool, is_minimum: bool = False) -> float:
    bound = float("nan")
    if isinstance(value, str):
        number, divisor = (value[:-1], 100) if is_share and value[-1:] == "%" else (value, 1)
        with suppress(ValueError):
            bound = float(number) / divisor
    elif isinstance(value, int | float) and not isinstance(value, bool):
        bound = float(value)
    wrong = not abs(bound) < float("inf") or (bound < 0 and not is_minimum)
    if wrong or (is_share and bound > 1):
        expected = "a share from 0 to 1 (or 0% to 100%)" if is_share else "a number"
        if not is_minimum and not is_share:
            expected += " of 0 or more"
        raise QdebugError(f"found '{printable(str(value))}', expected {expected}")
    return bound


def find_config(start: Path) -> Config:
    """The configuration in `start` or the nearest folder above that has one.

    It is ``qdebug.toml`` or the table ``[tool.qdebug]`` of ``pyproject.toml``.
    """
    for folder in [start, *start.parents]:
        for name in ("qdebug.toml", "pyproject.toml"):
            path = folder / name
            if path.is_file():
                config = read_config(path)
                if config.path is not None:
                    return config
    return Config()


def read_config(path: Path) -> Config:
    """The configuration in one file; empty where a pyproject.toml has no [tool.qdebug].

    Raises:
        QdebugError: not TOML, an unknown key, or a value of the wrong kind.
    """
    import tomllib

    shown = printable(str(path))
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror}") from None
    except ValueError as error:
        raise QdebugError(f"{shown}: not TOML: {error}") from None
    table = data.get("tool", {})
    table = table.get("qdebug") if isinstance(table, dict) else None
    if table is None:
        if path.name == "pyproject.toml":
            return Config()
        table = data
    where = f"{shown}: [tool.qdebug]" if table is not data else shown
    if not isinstance(table, dict):
        raise QdebugError(f"{where}: found {table!r:.60}, expected a table")
    entries = _known(table, [*LIMIT_KINDS, "source", "ignore", "layer", "fail_on"], where)
    layers = entries.get("layer", [])
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise QdebugError(f"{where}: 'layer': expected tables, each headed [[tool.qdebug.layer]]")
    return Config(
        path=path,
        source=[
            name if "://" in name else str(path.parent / name)
            for name in _texts(entries, "source", where)
        ],
        limits=_limits(entries, where),
        ignore=_texts(entries, "ignore", where),
        fail_on=parse_causes(_texts(entries, "fail_on", where), f"{where}: 'fail_on'"),
        overrides=[
            override
            for i, layer in enumerate(layers)
            for override in _overrides(layer, f"{where}, layer table {i + 1}")
        ],
    )


def _overrides(layer: Mapping[str, Any], where: str) -> list[Override]:
    entries = _known(layer, [*LIMIT_KINDS, "name"], where)
    patterns = _texts(entries, "name", where)
    if not patterns:
        raise QdebugError(f"{where}: 'name': found nothing, expected a layer's name or a glob")
    return [
        Override(pattern, _limits(entries, f"{where} '{printable(pattern)}'"))
        for pattern in patterns
    ]


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """The table with its keys in one spelling (``max-clipped`` is ``max_clipped``)."""
    entries = {key.replace("-", "_"): value for key, value in table.items()}
    for key in entries:
        if key not in keys:
            raise QdebugError(f"{where}: unknown key '{printable(key)}'; {nearest(key, keys)}")
    return entries


def _texts(entries: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = entries.get(key, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise QdebugError(
            f"{where}: '{key}': found {value!r:.60}, expected text or a list of texts"
        )
    return texts


def _limits(entries: Mapping[str, Any], origin: str) -> dict[str, Limit]:
    limits = {}
    for name in LIMIT_KINDS:
        if name in entries:
            try:
                limits[name] = Limit(name, parse_bound(name, entries[name]), origin)
            except QdebugError as error:
                raise QdebugError(f"{origin}: '{name}': {error}") from None
    return limits


def parse_causes(names: Sequence[str], where: str) -> list[str]:
    """Causes of a diagnosis, checked.

    Raises:
        QdebugError: no such cause.
    """
    for name in names:
        if name not in CAUSES:
            raise QdebugError(f"{where}: no cause '{printable(name)}'; {nearest(name, CAUSES)}")
    return list(names)


def failures(
    report: Report, options: Mapping[str, Limit], causes: Mapping[str, str], config: Config
) -> tuple[list[Failure], list[str]]:
    """Every figure that is over its limit, in the report's order; and every one that is unknown.

    A layer's limits are the configuration's, over them those of the command line, over them those
    of the layer's own overrides. `causes` are those that no layer may have, each with its origin.
    The second list has a line for each limited figure that the report does not know.
    """
    general = {**config.limits, **options}
    if not general and not causes:
        general = {"max_rmse_scale": Limit("max_rmse_scale", TFLITE_THRESHOLD, "default")}
        causes = {"non-finite": "default"}
    found: list[Failure] = []
    unknown = []
    for layer in report.layers:
        if layer.metrics is None or ignored(layer.name, config):
            continue
        limits = dict(general)
        for override in config.overrides:
            if matches(layer.name, override.pattern):
                limits.update(override.limits)
        for limit in limits.values():
            failure = _failure(layer, layer.metrics, limit)
            if isinstance(failure, Failure):
                found.append(failure)
            elif failure is not None:
                unknown.append(failure)
        cause = layer.diagnosis.cause if layer.diagnosis else None
        if cause is not None and cause in causes:
            found.append(Failure(layer.name, "cause", cause, "another", causes[cause]))
    return found, unknown


def ignored(name: str, config: Config) -> bool:
    """Whether the configuration says not to check this layer."""
    return any(matches(name, pattern) for pattern in config.ignore)


def unmatched(report: Report, config: Config) -> list[str]:
    """Globs of the configuration that no layer matches: most likely out of date."""
    patterns = [*config.ignore, *(override.pattern for override in config.overrides)]
    return [
        pattern
        for pattern in dict.fromkeys(patterns)
        if not any(matches(layer.name, pattern) for layer in report.layers)
    ]


def _failure(layer: LayerReport, metrics: Metrics, limit: Limit) -> Failure | str | None:
    """The failure, if the figure is over its limit; a line where it is unknown."""
    kind = LIMIT_KINDS[limit.name]
    value = getattr(metrics, kind.figure)
    expected = f"{'>=' if kind.is_minimum else '<='} {limit.bound:.4g}"
    if value is not None:
        over = value < limit.bound if kind.is_minimum else abs(value) > limit.bound
        found = f"{value:.4g}"
    elif not metrics.num_elements:
        over, found = bool(metrics.non_finite), "no finite element"
    elif kind.figure == "sqnr_db" and metrics.rmse is not None:
        over, found = metrics.rmse > 0, "no signal"  # no error at all is better than any limit
    elif kind.figure == "range_waste" and layer.bits is not None:
        over, found = False, ""  # means nothing for codes of so many bits
    else:
        return f"layer '{shown(layer.name)}': {kind.figure} is not known: not checked"
    return Failure(layer.name, kind.figure, found, expected, limit.origin) if over else None
