"""What if: the figures of one layer's floats under other quantizations.

Nothing is estimated: every alternative quantizes all floats, block by block. Two sweeps over the
data suffice for all layers together. The first gathers figures, ranges and distributions; the
second tries the alternatives that follow from them. Knows no file and no model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from qdebug.arithmetic.affine import (
    Float64Array,
    QuantParams,
    QuantScheme,
    params_from_range,
)
from qdebug.measure.figures import Figures
from qdebug.measure.layer import Block, Layer, UnreadableLayer, is_affine
from qdebug.measure.metrics import Metrics, layer_metrics, layers_metrics
from qdebug.measure.ranges import range_minmax, range_mse, range_percentile
from qdebug.measure.statistics import Statistics
from qdebug.measure.summary import (
    MOST_BYTES_OF_SUMMARY,
    MOST_CHANNELS,
    Summarizer,
    Summary,
)
from qdebug.report.report import Report
from qdebug.run.session import Session

PERCENTILES = (99.9, 99.99)

# With more bits than this, clipping gains nothing, so no range is searched for.
_MOST_SEARCHED_BITS = 16

# If a tensor with one scale seems to have more channels than this, the guessed axis is wrong.
_MOST_GUESSED_CHANNELS = 1 << 16

# At most this many bytes of summaries in one sweep.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Alternative:
    """One way to quantize the layer's floats, and its figures.

    Attributes:
        name: ``as_recorded``, ``affine``, ``symmetric``, ``percentile_99.9``, ``percentile_99.99``,
            ``mse``, ``per_channel``, ``per_tensor``, ``int16``, ``int8`` or ``int4``.
        change: what it changes: ``nothing``, ``range``, ``symmetry``, ``channels`` or ``bits``.
        params: scale, zero point and code range.
        metrics: the figures of D(Q(x)) - x, the quantizer alone.
        change_db: its SQNR less that of the recorded quantizer, in dB; None if either is undefined.
        needs_clamp: whether the figures hold only if a ReLU or Clip is an operator of its own. The
            recorded codes do its work (`Layer.clamp`), these would reach beyond it.
    """

    name: str
    change: str
    params: QuantParams
    metrics: Metrics
    change_db: float | None = None
    needs_clamp: bool = False


@dataclass(frozen=True, eq=False)
class WhatIf:
    """The figures of one layer's floats under other quantizations.

    Attributes:
        layer: as recorded.
        total: the figures with the recorded codes, carried error included.
        recorded: the recorded quantizer by itself.
        alternatives: the others.
    """

    layer: Layer
    total: Metrics
    recorded: Alternative
    alternatives: Sequence[Alternative]

    @property
    def symmetric(self) -> bool:
        """Whether the recorded zero points are all the middle code."""
        return self.layer.params.symmetric


class Look:
    """The first sweep's data of a layer: its statistics, ranges by channel, a summary."""

    def __init__(self, layer: Layer) -> None:
        """Begin; `layer` is cut as `viewed` cuts it."""
        params = layer.params
        self._figures = Figures(params)
        self._view = layer.view
        channels = layer.view[1] if layer.view else params.channels
        self._ranges: tuple[Float64Array, Float64Array] | None = None
        if channels > 1:
            self._ranges = np.zeros(channels), np.zeros(channels)  # ranges hold zero
        self._summarizer = None
        if params.bits <= _MOST_SEARCHED_BITS and params.channels <= MOST_CHANNELS:
            self._summarizer = Summarizer(params.scale)

    @property
    def statistics(self) -> Statistics:
        """Of the layer as recorded."""
        return self._figures.statistics

    @property
    def ranges(self) -> tuple[Float64Array, Float64Array] | None:
        """The ends of each channel's range, zero included; None if some data has no channels."""
        return self._ranges

    @property
    def summary(self) -> Summary | None:
        """The floats by scale; None if no range is searched for."""
        return None if self._summarizer is None else self._summarizer.summary()

    def add(self, layer: Layer, block: Block) -> None:
        """Add a block."""
        self._figures.add(layer, block)
        if layer.view != self._view:
            self._ranges = None
        if self._ranges is not None:
            here = slice(block.first_channel, block.first_channel + block.floats.shape[1])
            low, high = range_minmax(block.floats, axis=1)
            for ends, found, wider in zip(self._ranges, (low, high), _WIDER, strict=True):
                ends[here] = wider(ends[here], found)
        if self._summarizer is not None:
            by_scale = block.as_one_channel() if layer.params.channels == 1 else block
            self._summarizer.add(by_scale.floats, by_scale.first_channel)

    def merge(self, other: "Look") -> None:
        """Merge another's data."""
        self._figures.merge(other._figures)
        if self._ranges is None or other._ranges is None:
            self._ranges = None
        else:
            for ends, found, wider in zip(self._ranges, other._ranges, _WIDER, strict=True):
                wider(ends, found, out=ends)
        if self._summarizer is not None and other._summarizer is not None:
            self._summarizer.merge(other._summarizer)


_WIDER = (np.minimum, np.maximum)


class _Trials:
    """The second sweep's data of a layer: the figures of each candidate's D(Q(x)) - x."""

    def __init__(self, candidates: Sequence[QuantParams]) -> None:
        self._candidates = candidates
        self._figures = [Figures(params) for params in candidates]

    @property
    def metrics(self) -> list[Metrics]:
        """Of each candidate."""
        statistics = [figures.statistics for figures in self._figures]
        return layers_metrics(list(zip(statistics, self._candidates, strict=True)))

    def add(self, layer: Layer, block: Block) -> None:
        """Quantize a block with each candidate."""
        alone = replace(block, model_float=None)
        for figures in self._figures:
            figures.add_best(alone)

    def merge(self, other: "_Trials") -> None:
        """Merge another's figures."""
        for mine, theirs in zip(self._figures, other._figures, strict=True):
            mine.merge(theirs)


def explore(session: Session, names: Sequence[str]) -> tuple[Report, dict[str, WhatIf]]:
    """The report of these layers, and their figures under other quantizations, in two sweeps.

    Each alternative changes one thing: another range, for example, keeps the recorded symmetry,
    channels and bits. A bias has no alternatives, because its scale is the product of the input's
    and the weights' scales. For a layer of more than `summary.WHOLE_ELEMENTS`, percentiles and the
    search for the least error work on a histogram; the ranges that they choose are then judged on
    all floats. Layers that cannot be read have no what-if; the report says why. Nor have layers
    whose steps differ.

    Raises:
        QdebugError: a name that the source does not have.
    """
    chosen = session.choose(names)
    layers = [viewed(layer) for layer in chosen if is_affine(layer)]
    statistics = _without_alternatives(session, chosen)
    plans: dict[str, list[_Plan]] = {}
    metrics: dict[str, Metrics] = {}
    for group in _groups(layers):
        looks = session.sweep([(layer, partial(Look, layer)) for layer in group])
        for layer in group:
            if session.reasons(layer.name) and layer.name not in looks:
                continue
            look = looks.pop(layer.name, None) or Look(layer)
            statistics[layer.name] = look.statistics
            metrics[layer.name] = layer_metrics(look.statistics, layer.params)
            plans[layer.name] = _plans(layer, look, metrics[layer.name])
    candidates = {name: [params for _, _, params in planned] for name, planned in plans.items()}
    readable = [layer for layer in layers if layer.name in plans]
    wanted: list[tuple[Layer, Callable[[], _Trials | Figures]]] = []
    wanted += [(each, partial(_Trials, candidates[each.name])) for each in readable]
    others = session.others(chosen, statistics)
    wanted += [(each, partial(Figures, each.params)) for each in others if isinstance(each, Layer)]
    found = session.sweep(wanted)
    tried = {name: each for name, each in found.items() if isinstance(each, _Trials)}
    statistics |= {n: each.statistics for n, each in found.items() if isinstance(each, Figures)}
    what_ifs = {}
    for layer in readable:
        name = layer.name
        if name in tried or not statistics[name].count.any():
            figures = (tried.get(name) or _Trials(candidates[name])).metrics
            recorded = replace(layer, view=None)
            what_ifs[name] = _what_if(recorded, metrics[name], plans[name], figures)
    return session.report_of(chosen, statistics, others=others), what_ifs


def _without_alternatives(
    session: Session, chosen: Sequence[Layer | UnreadableLayer]
) -> dict[str, Statistics]:
    """The statistics of the layers whose steps differ."""
    layers = [each for each in chosen if isinstance(each, Layer) and not is_affine(each)]
    found = session.sweep([(layer, partial(Figures, layer.quantization)) for layer in layers])
    return {name: figures.statistics for name, figures in found.items()}


def _groups(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """The layers in their order, as many in a sweep as `_MOST_BYTES` of summaries allow."""
    group: list[Layer] = []
    size = 0
    for layer in layers:
        if group and size + MOST_BYTES_OF_SUMMARY > _MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(layer)
        size += min(8 * math.prod(layer.shape), MOST_BYTES_OF_SUMMARY)
    if group:
        yield group


def _what_if(
    layer: Layer, total: Metrics, plans: "Sequence[_Plan]", tried: Sequence[Metrics]
) -> WhatIf:
    """The alternatives that were tried, compared with the recorded quantizer."""
    found = {
        name: Alternative(name, change, params, metrics)
        for (name, change, params), metrics in zip(plans, tried, strict=True)
    }
    if "mse" in found:
        # The search uses a histogram and discrete steps: another range may be slightly better.
        ranges = [alternative for alternative in found.values() if alternative.change == "range"]
        best = min(ranges, key=lambda alternative: alternative.metrics.mse or 0.0)
        found["mse"] = replace(found["mse"], params=best.params, metrics=best.metrics)
    recorded = found.pop("as_recorded")
    base = recorded.metrics.sqnr_db
    alternatives = [
        replace(
            alternative,
            change_db=None
            if base is None or alternative.metrics.sqnr_db is None
            else alternative.metrics.sqnr_db - base,
            needs_clamp=_reaches_beyond(alternative.params, layer.clamp),
        )
        for alternative in found.values()
    ]
    return WhatIf(layer, total, replace(recorded, change_db=0.0), alternatives)


def _reaches_beyond(params: QuantParams, clamp: tuple[float, float] | None) -> bool:
    """Whether codes stand for floats more than half a step outside this range."""
    if clamp is None:
        return False
    low, high = ((code - params.zero_point) * params.scale for code in params.code_range)
    half = params.scale / 2
    return bool(np.any(low < clamp[0] - half) or np.any(high > clamp[1] + half))


def viewed(layer: Layer) -> Layer:
    """The layer, viewed so that one scale per channel can be tried."""
    axis = None if layer.params.axis is not None or layer.kind == "bias" else _channel_axis(layer)
    return replace(layer, view=None if axis is None else (axis, layer.shape[axis]))


def _channel_axis(layer: Layer) -> int | None:
    """The axis for one scale per channel: the one that a runtime would use.

    Weights: the output channels. They are the first axis, except in TFLite the last of a depthwise
    convolution, in ONNX the last of a MatMul and the second of a ConvTranspose. Activations: the
    last axis, because TFLite's tensors are NHWC. If the operator's name is an ONNX name and there
    are more than two axes: the second, because ONNX's tensors are NCHW. None if that axis has fewer
    than two channels.
    """
    shape, op = layer.shape, layer.op or ""
    if len(shape) < 2:
        return None
    if layer.kind == "weight":
        axis = {"DEPTHWISE_CONV_2D": len(shape) - 1, "MatMul": len(shape) - 1, "ConvTranspose": 1}
        chosen = axis.get(op, 0)
    else:
        chosen = 1 if len(shape) > 2 and op and not op.isupper() else len(shape) - 1
    return chosen if 2 <= shape[chosen] <= _MOST_GUESSED_CHANNELS else None


# An alternative to try: its name, what it changes, its parameters.
_Plan = tuple[str, str, QuantParams]


def _plans(layer: Layer, look: Look, metrics: Metrics) -> list[_Plan]:
    """All alternatives to try."""
    recorded = layer.params
    symmetric = recorded.symmetric
    one = recorded.axis is None
    ends: tuple[Any, Any] = min(metrics.float_min or 0.0, 0.0), max(metrics.float_max or 0.0, 0.0)
    if not one and look.ranges is not None:
        ends = look.ranges
    low, high = ends
    weight = layer.kind == "weight"
    signed = "u" * recorded.dtype.startswith("u") + "int8"
    affine = QuantScheme(
        recorded.dtype, recorded.bits, recorded.narrow_range, rounding=recorded.rounding
    )
    middle = replace(affine, symmetric=True, narrow_range=weight or recorded.narrow_range)
    same = middle if symmetric else affine

    def fitted(scheme: QuantScheme) -> QuantParams:
        return params_from_range(low, high, scheme, recorded.axis)

    plans = [("as_recorded", "nothing", recorded)]
    if layer.kind == "bias":
        return plans
    plans += [
        (
            "affine",
            "symmetry" if symmetric else "range",
            fitted(replace(affine, narrow_range=False)),
        ),
        ("symmetric", "range" if symmetric else "symmetry", fitted(middle)),
    ]
    summary = look.summary
    if summary is not None:
        rows, weights = summary.rows, summary.weights
        for percentile in PERCENTILES:
            ends = range_percentile(rows, percentile, 0, symmetric, weights)
            params = params_from_range(*ends, same, recorded.axis)
            plans.append((f"percentile_{percentile}", "range", params))
        ends = range_mse(rows, same, 0, weights)
        plans.append(("mse", "range", params_from_range(*ends, same, recorded.axis)))
    if not one:
        plans.append(("per_tensor", "channels", params_from_range(np.min(low), np.max(high), same)))
    elif layer.view is not None and look.ranges is not None:
        axis, channels = layer.view
        elements = metrics.num_elements + (metrics.non_finite or 0)
        if 2 * channels <= elements:  # one scale per element would be no quantization
            scheme = middle if weight else same
            params = params_from_range(*look.ranges, scheme, axis)
            plans.append(("per_channel", "channels", params))
    for bits, scheme in (
        (16, replace(affine, dtype="int16", bits=None, narrow_range=weight, symmetric=True)),
        (8, replace(same, dtype=signed, bits=None)),
        (4, replace(same, dtype=signed, bits=4)),
    ):
        if bits != recorded.bits:
            plans.append((f"int{bits}", "bits", fitted(scheme)))
    return plans
