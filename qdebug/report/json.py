"""A Report to JSON and back, without loss (docs/report.md)."""

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from qdebug.errors import QdebugError
from qdebug.measure.metrics import Metrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import ChannelReport, LayerReport, Report

SCHEMA = "qdebug.report/1"

# The fields of a layer, in order; and those that are objects in JSON.
_FIELDS = [field.name for field in dataclasses.fields(LayerReport)]
_PARTS = ("metrics", "diagnosis")

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
        "sources": report.sources,
        "problems": report.problems,
        "notes": report.notes,
    }
    yield _indented(head, 0).removesuffix("\n}") + ',\n "layers": ['
    for number, layer in enumerate(report.layers):
        yield ",\n" if number else "\n"
        yield from _layer_pieces(layer)
    yield "\n ]\n}\n"


def _layer_pieces(layer: LayerReport) -> Iterator[str]:
    values = {name: getattr(layer, name) for name in _FIELDS}
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
        layers=[
            _layer(entry, f"{file}: layers[{i}]")
            for i, entry in enumerate(_read(data, "layers", list[dict[str, Any]], file))
        ],
        problems=_read(data, "problems", list[str] | None, file) or [],
        notes=_read(data, "notes", list[str] | None, file) or [],
        qdebug_version=_read(data, "qdebug_version", str, file),
    )


def _layer(entry: Mapping[str, Any], where: str) -> LayerReport:
    plain = {
        name: _read(entry, name, kind, where)
        for name, kind in typing.get_type_hints(LayerReport).items()
        if name not in ("metrics", "channels", "diagnosis")
    }
    for name in ("scale", "zero_point"):
        if plain[name] == []:
            raise QdebugError(f"{where}: field '{name}': found an empty list, expected numbers")
    metrics = _read(entry, "metrics", dict[str, Any] | None, where)
    channels = _read(entry, "channels", list[dict[str, Any]] | None, where)
    diagnosis = _read(entry, "diagnosis", dict[str, Any] | None, where)
    return LayerReport(
        **plain,
        metrics=None if metrics is None else _record(Metrics, metrics, f"{where}.metrics"),
        channels=channels
        and [
            ChannelReport(
                scale=_read(channel, "scale", float, f"{where}.channels[{c}]"),
                zero_point=_read(channel, "zero_point", int, f"{where}.channels[{c}]"),
                metrics=_record(Metrics, channel, f"{where}.channels[{c}]"),
            )
            for c, channel in enumerate(channels)
        ],
        diagnosis=None
        if diagnosis is None
        else _record(Diagnosis, diagnosis, f"{where}.diagnosis"),
    )


def _record(kind: type[T], entry: Mapping[str, Any], where: str) -> T:
    return kind(
        **{
            name: _read(entry, name, field, where)
            for name, field in typing.get_type_hints(kind).items()
        }
    )


def _read(entry: Mapping[str, Any], name: str, kind: Any, where: str) -> Any:
    value = entry.get(name)
    if not _fits(value, kind):
        raise QdebugError(
            f"{where}: field '{name}': found {json.dumps(value)[:60]}, expected {_words(kind)}"
        )
    return value


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _words(kind: Any) -> str:
    """An annotated type as a user would say it."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return f"a list ({_words(typing.get_args(kind)[0])})"
    return _WORDS.get(kind, "null" if kind is types.NoneType else "an object")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of the annotated type; a whole number may stand for a float."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return isinstance(value, list) and all(_fits(v, item) for v in value)
    kind = typing.get_origin(kind) or kind
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    # Whole numbers beyond 64 bits count nothing; arithmetic with floats would fail on them.
    return isinstance(value, kind) and not (kind is int and abs(value) >= 2**63)
