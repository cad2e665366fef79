"""What if: the figures of one layer's floats under other ways to quantize them.

Nothing is estimated: every alternative quantizes all floats, block by block. Knows no file and no
model: a function gives the layer's data anew for each of the two passes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qdebug.arithmetic.affine import (
    Float64Array,
    QuantParams,
    QuantScheme,
    codes_of,
    params_from_range,
)
from qdebug.arithmetic.ranges import range_minmax, range_mse, range_percentile
from qdebug.errors import LayerError, QdebugError
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import Metrics, layer_metrics
from qdebug.measure.statistics import measure, no_statistics
from qdebug.measure.summary import MOST_CHANNELS, Summarizer, Summary
from qdebug.report.report import LayerReport

PERCENTILES = (99.9, 99.99)

# With more bits than this nothing is gained by clipping, and nobody chooses such a range.
_MOST_SEARCHED_BITS = 16

# Channels of a tensor that has one scale: more than this is a mistake about the axis.
_MOST_GUESSED_CHANNELS = 1 << 16

Blocks = Callable[[Layer], Iterable[Block]]


@dataclass(frozen=True, eq=False)
class Alternative:
    """One way to quantize the layer's floats, and what it gives.

    Attributes:
        name: ``as_recorded``, ``affine``, ``symmetric``, ``percentile_99.9``, ``percentile_99.99``,
            ``mse``, ``per_channel``, ``per_tensor``, ``int16``, ``int8`` or ``int4``.
        change: what it changes: ``nothing``, ``range``, ``symmetry``, ``channels`` or ``bits``.
        params: scale, zero point and codes.
        metrics: the figures of D(Q(x)) - x: of the quantizer alone.
        change_db: its SQNR less that of the recorded quantizer, in dB; None where one has none.
    """

    name: str
    change: str
    params: QuantParams
    metrics: Metrics
    change_db: float | None = None


@dataclass(frozen=True, eq=False)
class WhatIf:
    """What other ways to quantize one layer's floats would give.

    Attributes:
        layer: as recorded.
        total: the figures with the recorded codes, whatever is wrong with them.
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


def predict(layer: Layer, report: LayerReport, blocks: Blocks) -> WhatIf:
    """The figures of every alternative.

    There are none for a bias, whose scale is the product of the input's and the weights'. Each
    changes one thing: the range keeps the recorded symmetry, channels and bits, and so on.
    Two passes: one to see ranges, channels and the distribution, one to quantize. The floats of a
    layer of more than `summary.WHOLE_ELEMENTS` are known to percentiles and to the search for the
    least error by a histogram only; what they choose is then judged by all floats.

    Args:
        layer: as the source has it.
        report: its figures, as `engine.run` gives them.
        blocks: the layer's data; called for every pass with the layer cut along the axis wanted.

    Raises:
        QdebugError: the data cannot be read.
    """
    assert report.metrics is not None
    elements = report.metrics.num_elements + (report.metrics.non_finite or 0)
    axis = layer.params.axis if layer.kind == "bias" else channel_axis(layer, elements)
    try:
        seen = _look(_along(layer, axis), report, elements, blocks)
    except QdebugError:
        # Where pieces of the tensor differ in shape a guessed axis may not be everyone's.
        if axis is None or layer.params.axis is not None:
            raise
        axis = None
        seen = _look(layer, report, elements, blocks)
    plans = _plans(layer, axis, seen)
    tried = _try([params for _, _, params in plans], blocks(_along(layer, axis)))
    found = {
        name: Alternative(name, change, params, metrics)
        for (name, change, params), metrics in zip(plans, tried, strict=True)
    }
    if "mse" in found:
        # The search goes by the histogram and by steps: another range may turn out a little better.
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
        )
        for alternative in found.values()
    ]
    return WhatIf(layer, report.metrics, replace(recorded, change_db=0.0), alternatives)


def channel_axis(layer: Layer, elements: int) -> int | None:
    """The axis for one scale a channel: the recorded one, else the one that a runtime would take.

    Weights: the output channels, which in TFLite are the first axis but for depthwise convolutions'
    last, in ONNX the last of a MatMul and the second of a ConvTranspose. Activations: the last
    axis, for TFLite's tensors are NHWC; the second of more than two where the operator is written
    as ONNX does, for its tensors are NCHW. None where that axis has no two channels of two
    elements; `elements` are all of the layer's, for its shape may be that of one sample only.
    """
    shape, op = layer.shape, layer.op or ""
    if layer.params.axis is not None:
        return layer.params.axis
    if len(shape) < 2:
        return None
    if layer.kind == "weight":
        axis = {"DEPTHWISE_CONV_2D": len(shape) - 1, "MatMul": len(shape) - 1, "ConvTranspose": 1}
        chosen = axis.get(op, 0)
    else:
        chosen = 1 if len(shape) > 2 and op and not op.isupper() else len(shape) - 1
    most = min(elements // 2, _MOST_GUESSED_CHANNELS)
    return chosen if 2 <= shape[chosen] <= most else None


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the first pass has seen: ranges by channel of the axis in question, and the floats."""

    low: Float64Array
    high: Float64Array
    summary: Summary | None


def _along(layer: Layer, axis: int | None) -> Layer:
    """The layer as if it had a scale for each channel of `axis`, so that it is cut along it."""
    if axis is None or axis == layer.params.axis:
        return layer
    channels = layer.shape[axis]
    params = replace(
        layer.params,
        scale=np.full(channels, layer.params.scale[0]),
        zero_point=np.full(channels, layer.params.zero_point[0]),
        axis=axis,
    )
    return replace(layer, params=params)


def _look(cut: Layer, report: LayerReport, elements: int, blocks: Blocks) -> _Seen:
    """The first pass. Ranges hold zero, as those of quantizers must."""
    assert report.metrics is not None
    channels = cut.params.channels
    low, high = np.zeros(channels), np.zeros(channels)
    metrics = [channel.metrics for channel in report.channels or []] or [report.metrics]
    largest = [max(-(m.float_min or 0.0), m.float_max or 0.0) for m in metrics]
    summarizer = None
    if cut.params.bits <= _MOST_SEARCHED_BITS and len(largest) <= MOST_CHANNELS:
        summarizer = Summarizer(largest, elements)
    for block in blocks(cut):
        stop = block.first_channel + block.floats.shape[1]
        if stop > channels:
            raise LayerError(f"found {stop} channels, expected {channels}")
        here = slice(block.first_channel, stop)
        block_low, block_high = range_minmax(block.floats, axis=1)
        low[here] = np.minimum(low[here], block_low)
        high[here] = np.maximum(high[here], block_high)
        if summarizer is not None:
            view = block if len(largest) == channels else _as_one_channel(block)
            summarizer.add(view.floats, view.first_channel)
    return _Seen(low, high, None if summarizer is None else summarizer.summary())


def _plans(layer: Layer, axis: int | None, seen: _Seen) -> list[tuple[str, str, QuantParams]]:
    """Name, what it changes and parameters of all there is to try."""
    recorded = layer.params
    symmetric = recorded.symmetric
    one = recorded.axis is None
    low, high = (
        (seen.low.min(initial=0.0), seen.high.max(initial=0.0)) if one else (seen.low, seen.high)
    )
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
    if seen.summary is not None:
        rows, weights = seen.summary.rows, seen.summary.weights
        for percentile in PERCENTILES:
            ends = range_percentile(rows, percentile, 0, symmetric, weights)
            params = params_from_range(*ends, same, recorded.axis)
            plans.append((f"percentile_{percentile}", "range", params))
        ends = range_mse(rows, same, 0, weights)
        plans.append(("mse", "range", params_from_range(*ends, same, recorded.axis)))
    if not one:
        ends = seen.low.min(), seen.high.max()
        plans.append(("per_tensor", "channels", params_from_range(*ends, same)))
    elif axis is not None:
        scheme = middle if weight else same
        params = params_from_range(seen.low, seen.high, scheme, axis)
        plans.append(("per_channel", "channels", params))
    for bits, scheme in (
        (16, replace(affine, dtype="int16", bits=None, narrow_range=weight, symmetric=True)),
        (8, replace(same, dtype=signed, bits=None)),
        (4, replace(same, dtype=signed, bits=4)),
    ):
        if bits != recorded.bits:
            plans.append((f"int{bits}", "bits", fitted(scheme)))
    return plans


def _try(candidates: Sequence[QuantParams], blocks: Iterable[Block]) -> list[Metrics]:
    """The second pass: the figures of each candidate's D(Q(x)) - x."""
    statistics = [no_statistics(params.channels) for params in candidates]
    for block in blocks:
        for i, params in enumerate(candidates):
            view = block if params.channels > 1 else _as_one_channel(block)
            statistics[i].absorb(measure(_quantized(view, params), params))
    return [
        layer_metrics(each, params) for each, params in zip(statistics, candidates, strict=True)
    ]


def _quantized(block: Block, params: QuantParams) -> Block:
    """The block with the codes that these parameters give."""
    x = block.floats.astype(np.float64)  # (outer, channels, inner)
    scale, zero_point = params.rows(block.first_channel, block.first_channel + x.shape[1])
    codes = codes_of(x, scale, zero_point, params.code_range, params.rounding)
    return Block(x, codes, first_channel=block.first_channel)


def _as_one_channel(block: Block) -> Block:
    return Block(block.floats.reshape(1, 1, -1), block.codes.reshape(1, 1, -1))
