"""Report: metrics and diagnosis of all layers, to and from JSON without loss."""

import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

from qdebug import __version__
from qdebug.affine import QuantParams
from qdebug.diagnosis import ERRORS, Diagnosis, Subject, diagnose, origin, unreadable
from qdebug.errors import QdebugError
from qdebug.layer import Layer, UnreadableLayer
from qdebug.metrics import ChannelMetrics, Metrics
from qdebug.names import shown
from qdebug.statistics import Statistics

SCHEMA = "qdebug.report/1"

# The fields of a layer that are objects in JSON.
_PARTS = ("metrics", "diagnosis")

T = TypeVar("T")


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a layer."""

    scale: float
    zero_point: int
    metrics: Metrics


class _Channels(Sequence[ChannelReport]):
    """The channels of a layer, each made when it is asked for: there may be very many."""

    def __init__(self, params: QuantParams, metrics: Sequence[Metrics]) -> None:
        self._params = params
        self._metrics = metrics

    def __len__(self) -> int:
        return len(self._metrics)

    @overload
    def __getitem__(self, index: int) -> ChannelReport: ...
    @overload
    def __getitem__(self, index: slice) -> list[ChannelReport]: ...
    def __getitem__(self, index: int | slice) -> ChannelReport | list[ChannelReport]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        scale, zero_point = self._params.scale.item(index), self._params.zero_point.item(index)
        return ChannelReport(scale, zero_point, self._metrics[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class LayerReport:
    """One layer: what it is, its figures, what is wrong with it.

    All but name and diagnosis are None where the layer is unreadable. `scale` and `zero_point` are
    lists where there is one a channel; then `channels` holds the figures of each.
    """

    name: str
    op: str | None = None
    kind: str | None = None
    nodes: list[str] | None = None
    dtype: str | None = None
    bits: int | None = None
    narrow_range: bool | None = None
    shape: list[int] | None = None
    axis: int | None = None
    scale: float | list[float] | None = None
    zero_point: int | list[int] | None = None
    metrics: Metrics | None = None
    channels: Sequence[ChannelReport] | None = None
    diagnosis: Diagnosis | None = None

    @property
    def above_rounding(self) -> bool:
        """Whether the error is more than rounding, of whatever floats, explains."""
        if self.diagnosis is None or self.diagnosis.cause is None:
            return self.metrics is not None and self.metrics.exceeds_reference
        return self.diagnosis.cause in ERRORS

    @property
    def unreadable(self) -> str | None:
        """Why the layer could not be read, None where it could."""
        return self.diagnosis.evidence if self.diagnosis and self.metrics is None else None


@dataclass(frozen=True)
class Report:
    """All layers of a source, in its order.

    Attributes:
        sources: the files read.
        layers: one each.
        problems: files that could not be read at all, a line each.
        notes: what was left out or done otherwise than one would think, a line each.
        qdebug_version: of the program that made it.
    """

    sources: list[str]
    layers: list[LayerReport]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    qdebug_version: str = __version__

    @property
    def num_elements(self) -> int:
        """Finite elements in all layers."""
        return sum(layer.metrics.num_elements for layer in self.layers if layer.metrics)

    @property
    def complaints(self) -> list[str]:
        """What could not be read, files and layers, a line each; empty where all could."""
        return self.problems + [layer.unreadable for layer in self.layers if layer.unreadable]


def layer_report(layer: Layer, statistics: Statistics, metrics: Metrics) -> LayerReport:
    """The report of a layer from its statistics, and from its figures as a whole."""
    params = layer.params
    per_channel = params.channels > 1
    scales, zero_points = params.scale.tolist(), params.zero_point.tolist()
    channels = _Channels(params, ChannelMetrics(statistics, params)) if per_channel else None
    return LayerReport(
        name=layer.name,
        op=layer.op,
        kind=layer.kind,
        nodes=list(layer.nodes) or None,
        dtype=params.dtype,
        bits=params.bits,
        narrow_range=params.narrow_range,
        shape=list(layer.shape),
        axis=params.axis,
        scale=scales if per_channel else scales[0],
        zero_point=zero_points if per_channel else zero_points[0],
        metrics=metrics,
        channels=channels,
        diagnosis=_diagnosis(layer, metrics, channels),
    )


def _diagnosis(
    layer: Layer, metrics: Metrics, channels: Sequence[ChannelReport] | None
) -> Diagnosis:
    params = layer.params
    codes = (params.dtype, params.bits, params.qmin, params.qmax)

    def subject(figures: Metrics, scale: float | None, zero_point: int | None) -> Subject:
        return Subject(figures, *codes, scale, zero_point, layer.kind, params.narrow_range)

    if channels is None:
        return diagnose(subject(metrics, float(params.scale[0]), int(params.zero_point[0])))

    def channel_subject(index: int) -> Subject:
        channel = channels[index]
        return subject(channel.metrics, channel.scale, channel.zero_point)

    return diagnose(subject(metrics, None, None), channel_subject, len(channels))


def with_origins(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """The layers of a model in order; each diagnosis says where the model's error began."""
    metrics = [None if _is_constant(layer) else layer.metrics for layer in layers]
    names = [shown(layer.name) for layer in layers]
    result = []
    for place, layer in enumerate(layers):
        where = origin(metrics, names, place)
        if where and layer.diagnosis:
            evidence = f"{layer.diagnosis.evidence}; {where}"
            layer = replace(layer, diagnosis=replace(layer.diagnosis, evidence=evidence))
        result.append(layer)
    return result


def _is_constant(layer: LayerReport) -> bool:
    return layer.kind in ("weight", "bias")


def unreadable_report(layer: UnreadableLayer) -> LayerReport:
    """The report of a layer that could not be read."""
    return LayerReport(name=layer.name, diagnosis=unreadable(layer.reason))


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
    parts = {name: value and vars(value) for name, value in vars(layer).items() if name in _PARTS}
    text = _indented({**vars(layer), **parts, "channels": None}, 2)
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
