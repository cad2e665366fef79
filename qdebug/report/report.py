"""Report: metrics and diagnosis of all layers; `report_json` writes and reads it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from qdebug import __version__
from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.measure.metrics import REFERENCE, ChannelMetrics, Metrics
from qdebug.measure.outputs import OutputMetrics
from qdebug.measure.slices import SliceMetrics
from qdebug.measure.statistics import Statistics
from qdebug.names import shown
from qdebug.report.diagnosis import (
    ERRORS,
    Diagnosis,
    Subject,
    diagnose,
    diagnose_channels,
    origin,
    unreadable,
)
from qdebug.report.graph import graph_of, is_constant
from qdebug.report.grid_diagnosis import diagnose_grid
from qdebug.report.upstream import with_causes


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a layer; scale and zero point are None in a layer with a grid."""

    scale: float | None
    zero_point: int | None
    metrics: Metrics


class _Channels(Sequence[ChannelReport]):
    """The channels of a layer, each made when it is asked for: there may be very many."""

    def __init__(self, params: QuantParams | Grid, metrics: Sequence[Metrics]) -> None:
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
        if isinstance(self._params, Grid):
            return ChannelReport(None, None, self._metrics[index])
        scale, zero_point = self._params.scale.item(index), self._params.zero_point.item(index)
        return ChannelReport(scale, zero_point, self._metrics[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Measured:
    """What an operator does to the model's outputs, measured by running the model.

    Attributes:
        gain_db: how much the outputs' SQNR gains if this operator is left in float, all others
            being quantized.
        gain_stderr_db: its standard error over the samples; None for a single sample.
        alone_db: the outputs' SQNR if only this operator is quantized.
    """

    gain_db: float
    gain_stderr_db: float | None
    alone_db: float


@dataclass(frozen=True)
class LayerReport:
    """One layer: what it is, its figures, what is wrong with it.

    All but name, inputs and diagnosis are None where the layer is unreadable. `inputs` names the
    layers that feed it, None where unknown. `scale` and `zero_point` are lists where there is one a
    channel; then `channels` holds the figures of each. `slices` has those of a tensor with one
    scale along an axis that live models name. `measured` is about the operator that makes the
    layer, None where that was not measured.
    """

    name: str
    op: str | None = None
    kind: str | None = None
    nodes: list[str] | None = None
    inputs: list[str] | None = None
    dtype: str | None = None
    bits: int | None = None
    narrow_range: bool | None = None
    rounding: str | None = None
    shape: list[int] | None = None
    axis: int | None = None
    scale: float | list[float] | None = None
    zero_point: int | list[int] | None = None
    grid: str | None = None
    metrics: Metrics | None = None
    slices: SliceMetrics | None = None
    channels: Sequence[ChannelReport] | None = None
    diagnosis: Diagnosis | None = None
    measured: Measured | None = None

    @property
    def above_rounding(self) -> bool:
        """Whether the error is more than rounding explains, whatever the floats."""
        if self.diagnosis is None or self.diagnosis.cause is None:
            return self.metrics is not None and self.metrics.exceeds_reference
        return self.diagnosis.cause in ERRORS

    @property
    def badness(self) -> float:
        """The layer's error over its expected error; infinite for zeros that have an error."""
        if self.metrics is None:
            return -math.inf
        if self.metrics.times_expected is not None:
            return self.metrics.times_expected
        if self.metrics.rmse_scale is None:
            return -math.inf
        if self.metrics.rmse_scale_expected is None:
            return self.metrics.rmse_scale / REFERENCE
        ratio = self.metrics.rmse_scale_ratio
        return math.inf if ratio is None else ratio

    @property
    def unreadable(self) -> str | None:
        """Why the layer could not be read; None if it could."""
        return self.diagnosis.evidence if self.diagnosis and self.metrics is None else None


@dataclass(frozen=True)
class Report:
    """All layers of a source, in its order.

    Attributes:
        sources: the files read.
        layers: one report per layer.
        problems: files that could not be read at all, one line each.
        notes: what was left out, and choices that may surprise the user, one line each.
        outputs: the model's own outputs, against those of the float model.
        qdebug_version: the version that made the report.
        runtime: what ran the models: its version, and its kernels; empty for files.
    """

    sources: list[str]
    layers: Sequence[LayerReport]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outputs: list[OutputMetrics] = field(default_factory=list)
    qdebug_version: str = __version__
    runtime: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_elements(self) -> int:
        """Finite elements in all layers."""
        return sum(layer.metrics.num_elements for layer in self.layers if layer.metrics)

    @property
    def complaints(self) -> list[str]:
        """Files and layers that could not be read, one line each; empty if all could."""
        return self.problems + [layer.unreadable for layer in self.layers if layer.unreadable]


def layer_report(
    layer: Layer, statistics: Statistics, metrics: Metrics, slices: SliceMetrics | None = None
) -> LayerReport:
    """The report of a layer from its statistics and the figures of the whole layer."""
    params = layer.quantization
    per_channel = params.channels > 1
    channels = ChannelMetrics(statistics, params) if per_channel else None
    report = LayerReport(
        name=layer.name,
        op=layer.op,
        kind=layer.kind,
        nodes=list(layer.nodes) or None,
        inputs=None if layer.inputs is None else list(layer.inputs),
        shape=list(layer.shape),
        axis=params.axis,
        metrics=metrics,
        slices=slices,
        channels=None if channels is None else _Channels(params, channels),
    )
    if isinstance(params, Grid):
        diagnosis = diagnose_grid(metrics, channels)
        return replace(report, grid=params.name, diagnosis=diagnosis)
    scales, zero_points = params.scale.tolist(), params.zero_point.tolist()
    return replace(
        report,
        dtype=params.dtype,
        bits=params.bits,
        narrow_range=params.narrow_range,
        rounding=params.rounding,
        scale=scales if per_channel else scales[0],
        zero_point=zero_points if per_channel else zero_points[0],
        diagnosis=_diagnosis(layer, params, metrics, channels),
    )


def _diagnosis(
    layer: Layer, params: QuantParams, metrics: Metrics, channels: ChannelMetrics | None
) -> Diagnosis:
    codes = (params.dtype, params.bits, params.qmin, params.qmax)

    def subject(figures: Metrics, scale: float | None, zero_point: int | None) -> Subject:
        about = (layer.kind, params.narrow_range, layer.op, layer.shape)
        return Subject(figures, *codes, scale, zero_point, *about)

    def of_channel(index: int, figures: Metrics) -> Subject:
        return subject(figures, params.scale.item(index), params.zero_point.item(index))

    if channels is None:
        return diagnose(of_channel(0, metrics))
    return diagnose_channels(subject(metrics, None, None), channels, of_channel)


def with_origins(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """The layers of a model; each diagnosis says where the model's error began.

    The error is followed back through the layers that feed each layer (`graph_of`).
    """
    metrics = [None if is_constant(layer) else layer.metrics for layer in layers]
    names = [shown(layer.name) for layer in layers]
    graph = graph_of(layers)
    feeders, layers = graph.feeders, with_causes(layers, graph)
    result = []
    for place, layer in enumerate(layers):
        where = origin(metrics, names, place, feeders)
        if where and layer.diagnosis and layer.diagnosis.cause != "inherited":
            evidence = f"{layer.diagnosis.evidence}; {where}"
            layer = replace(layer, diagnosis=replace(layer.diagnosis, evidence=evidence))
        result.append(layer)
    return result


def unreadable_report(layer: UnreadableLayer) -> LayerReport:
    """The report of a layer that could not be read."""
    inputs = None if layer.inputs is None else list(layer.inputs)
    return LayerReport(name=layer.name, inputs=inputs, diagnosis=unreadable(layer.reason))


def without_figures(layer: Layer | UnreadableLayer) -> LayerReport:
    """A layer that was not read: it only connects others."""
    inputs = None if layer.inputs is None else list(layer.inputs)
    if isinstance(layer, UnreadableLayer):
        return LayerReport(name=layer.name, inputs=inputs)
    return LayerReport(name=layer.name, op=layer.op, kind=layer.kind, inputs=inputs)
