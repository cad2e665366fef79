"""A Report to JSON and back, without loss (docs/report.md)."""

import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from qdebug.errors import QdebugError
from qdebug.measure.metrics import Metrics
from qdebug.measure.outputs import OutputMetrics
from qdebug.measure.slices import SliceMetrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import ChannelReport, LayerReport, Measured, Report

SCHEMA = "qdebug.report/1"

# The fields of a layer that are objects in JSON.
_PARTS: dict[str, type[Metrics | SliceMetrics | Diagnosis | Measured]] = {
    "metrics": Metrics,
    "slices": SliceMetrics,
    "diagnosis": Diagnosis,
    "measured": Measured,
}

# Name and annotated type of each field, in order.
_RECORDS = (LayerReport, Metrics, SliceMetrics, Diagnosis, Measured, OutputMetrics)
_FIELDS: Mapping[type, Mapping[str, Any]] = {kind: typing.get_type_hints(kind) for kind in _RECORDS}

T = TypeVar("T")


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON values, as docs/report.md describes them."""
    values: dict[str, Any] = json.loads(dumps(report))
    return values


def dumps(report: Report) -> str:
    """The report as JSON text."""
    return "".join(json_pieces(report))


def json_pieces(report: Report) -> Iterator[str]:
    """The report as JSON text, piece by piece: whole, that of many layers takes much memory."""
    head = {
        "schema": SCHEMA,
        "qdebug_version": report.qdebug_version,
        "runtime": dict(report.runtime),
        "sources": report.sources,
        "problems": report.problems,
        "notes": report.notes,
        "outputs": [vars(output) for output in report.outputs],
    }
    yield _indented(head, 0).removesuffix("\n}") + ',\n "layers": ['
    for number, layer in enumerate(report.layers):
        yield ",\n" if number else "\n"
        yield from _layer_pieces(layer)
    yield "\n ]\n}\n"


def _layer_pieces(layer: LayerReport) -> Iterator[str]:
    values = {name: getattr(layer, name) for name in _FIELDS[LayerReport]}
    parts = {name: values[name] and vars(values[name]) for name in _PARTS}
    text = _indented({**values, **parts, "channels": None}, 2)
    if not layer.channels:
        yield text
        return
    # No name can look like this: within text a quotation mark has a backslash before it.
    before, after = text.split('"channels": null', 1)
    yield before + '"channels": ['
    for number, channel in enumerate(layer.channels):
        # A channel's figures stand beside its scale and zero point.
        values = {"scale": channel.scale, "zero_point": channel.zero_point}
        yield ("," if number else "") + "\n" + _indented(values | vars(channel.metrics), 4)
    yield "\n   ]" + after


def _indented(value: Mapping[str, Any], depth: int) -> str:
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=True)
    return " " * depth + text.replace("\n", "\n" + " " * depth)


def loads(text: str, file: str) -> Report:
    """The report that `dumps` wrote; `file` is for the messages.

    Fields that this version does not know are left alone, missing ones are None.

    Raises:
        QdebugError: not JSON, not a report, or a field of another type.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QdebugError(f"{file}: not JSON: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise QdebugError(f"{file}: field 'schema': found {schema!r:.60}, expected '{SCHEMA}'")
    return Report(
        sources=_read(data, "sources", list[str], file),
        layers=_layers(_read(data, "layers", list[dict[str, Any]], file), file),
        problems=_read(data, "problems", list[str] | None, file) or [],
        notes=_read(data, "notes", list[str] | None, file) or [],
        outputs=_records(
            OutputMetrics,
            _read(data, "outputs", list[dict[str, Any]] | None, file) or [],
            lambda index: f"{file}: outputs[{index}]",
        ),
        qdebug_version=_read(data, "qdebug_version", str, file),
        runtime={
            name: str(value)
            for name, value in (_read(data, "runtime", dict[str, Any] | None, file) or {}).items()
        },
    )


# A JSON object, and what the messages call the one at an index.
_Entry = Mapping[str, Any]
_Where = Callable[[int], str]


def _layers(entries: Sequence[_Entry], file: str) -> list[LayerReport]:
    def where(index: int) -> str:
        return f"{file}: layers[{index}]"

    columns: dict[str, list[Any]] = {}
    for name, kind in _FIELDS[LayerReport].items():
        if name in _PARTS:
            columns[name] = _parts(_PARTS[name], entries, name, where)
        elif name == "channels":
            lists = _column(entries, name, list[dict[str, Any]] | None, where)
            columns[name] = [
                some and _channels(some, where(i), entries[i].get("grid"))
                for i, some in enumerate(lists)
            ]
        else:
            columns[name] = _column(entries, name, kind, where)
    for name in ("scale", "zero_point"):
        if [] in columns[name]:
            place = where(columns[name].index([]))
            raise QdebugError(f"{place}: field '{name}': found an empty list, expected numbers")
    return [LayerReport(*row) for row in _rows(columns)]


def _channels(entries: Sequence[_Entry], layer: str, grid: Any) -> list[ChannelReport]:
    """The channels of a layer; only those of a layer with a grid have no scale."""

    def where(index: int) -> str:
        return f"{layer}.channels[{index}]"

    scales = _column(entries, "scale", float | None if grid else float, where)
    zero_points = _column(entries, "zero_point", int | None if grid else int, where)
    metrics = _records(Metrics, entries, where)
    return list(map(ChannelReport, scales, zero_points, metrics))


def _parts(kind: type[T], entries: Sequence[_Entry], name: str, where: _Where) -> list[T | None]:
    """The objects of a field that may be null."""
    parts = _column(entries, name, dict[str, Any] | None, where)
    places = [index for index, part in enumerate(parts) if part is not None]
    records = _records(
        kind, [parts[index] for index in places], lambda i: f"{where(places[i])}.{name}"
    )
    found: list[T | None] = [None] * len(parts)
    for index, record in zip(places, records, strict=True):
        found[index] = record
    return found


def _records(kind: type[T], entries: Sequence[_Entry], where: _Where) -> list[T]:
    """Objects of one dataclass, field by field: thousands are checked as fast as one."""
    columns = {name: _column(entries, name, field, where) for name, field in _FIELDS[kind].items()}
    return [kind(*row) for row in _rows(columns)]


def _rows(columns: Mapping[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _read(entry: _Entry, name: str, kind: Any, where: str) -> Any:
    return _column([entry], name, kind, lambda _: where)[0]


def _column(entries: Sequence[_Entry], name: str, kind: Any, where: _Where) -> list[Any]:
    """The values of one field in all entries, null where it is missing.

    Raises:
        QdebugError: one is not of the annotated type.
    """
    values = [entry.get(name) for entry in entries]
    if not _fit(values, kind):
        index = next(index for index, value in enumerate(values) if not _fit([value], kind))
        raise QdebugError(
            f"{where(index)}: field '{name}': found {json.dumps(values[index])[:60]}, "
            f"expected {_words(kind)}"
        )
    return values


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _words(kind: Any) -> str:
    """An annotated type as a user would say it."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return f"a list ({_words(typing.get_args(kind)[0])})"
    return _WORDS.get(kind, "null" if kind is types.NoneType else "an object")


def _fit(values: Sequence[Any], kind: Any) -> bool:
    """Whether JSON values are all of the annotated type; a whole number may stand for a float."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    found = set(map(type, values))
    return all(
        any(
            _alike_fit(
                values if len(found) == 1 else [v for v in values if type(v) is each], option
            )
            for option in options
        )
        for each in found
    )


def _alike_fit(values: Sequence[Any], kind: Any) -> bool:
    """Whether JSON values, all of one type, are of the annotated one."""
    found, wanted = type(values[0]), typing.get_origin(kind) or kind
    if found is list:
        return wanted is list and _fit([*chain.from_iterable(values)], *typing.get_args(kind))
    if found is float:
        return wanted is float and all(map(math.isfinite, values))
    if found is int and wanted is float:
        return bool(max(map(abs, values)) <= sys.float_info.max)
    if found is int:
        # Whole numbers beyond 64 bits count nothing; arithmetic with floats would fail on them.
        return wanted is int and bool(max(map(abs, values)) < 2**63)
    return found is wanted
