"""Upstream: causes that a layer's own figures cannot show, found from the layers around it.

A layer's own diagnosis assumes that its floats are sound. Here they are compared with the float
model's own run. Where that run is sound, the cause lies upstream, and the first layer with an error
is named.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qdebug.measure.metrics import LOW_SQNR_DB, REFERENCE, Metrics
from qdebug.measure.outputs import RUINED_DB
from qdebug.names import printable, shown
from qdebug.report.diagnosis import Diagnosis, wasted
from qdebug.report.graph import JOINS, Graph, is_constant

if TYPE_CHECKING:
    from qdebug.report.report import LayerReport

Layers = Sequence["LayerReport"]

# Operators that only move codes: their outputs hold elements of their inputs.
_MOVES = frozenset(
    """Reshape Transpose Split Slice Squeeze Unsqueeze Flatten Gather Expand Tile DepthToSpace
    SpaceToDepth Concat Identity RESHAPE TRANSPOSE SPLIT SPLIT_V SLICE STRIDED_SLICE SQUEEZE
    EXPAND_DIMS GATHER PACK UNPACK CONCATENATION DEPTH_TO_SPACE SPACE_TO_DEPTH TILE
    BROADCAST_TO""".split()  # noqa: SIM905
)

# Floats outside the range are the float model's own if it has at least this share of their number
# there.
_OWN_SHARE = 0.1
# A layer that loses less than this share of its floats does not ruin its readers.
_LEAST_LOST = 0.05


def with_causes(layers: Layers, graph: Graph) -> list["LayerReport"]:
    """The layers, their diagnoses revised in the light of the layers around them."""
    model = _Model(list(layers), graph)
    for rule in (_computed_from_constants, _of_weights, _joined, _read_in_vain, _inherited, _moved):
        for place in graph.order:
            found = rule(model, place)
            if found is not None:
                model.layers[place] = replace(model.layers[place], diagnosis=found)
    return model.layers


class _Model:
    """The layers, the feeders of each, and the readers of each."""

    def __init__(self, layers: list["LayerReport"], graph: Graph) -> None:
        self.layers = layers
        self.by_name = {layer.name: layer for layer in layers}
        self.feeders = graph.feeders
        self.readers: list[list[int]] = [[] for _ in layers]
        for place, feeders in enumerate(graph.feeders):
            for feeder in feeders:
                self.readers[feeder].append(place)
        # Tensors that are the same in every run.
        self.fixed: set[int] = set()
        for place in graph.order:
            layer, feeders = layers[place], graph.feeders[place]
            known = layer.op is not None and layer.inputs is not None
            if known and not is_constant(layer) and self.fixed.issuperset(feeders):
                self.fixed.add(place)

    def db(self, place: int) -> float:
        """SQNR of a layer's codes against the float model's own run; inf if unknown."""
        m = self.layers[place].metrics
        if m is None or m.model_min is None:
            return math.inf
        if m.inherited_non_finite:
            return -math.inf
        return math.inf if m.model_sqnr_db is None else m.model_sqnr_db

    def at_fault(self, place: int) -> bool:
        """Whether the layer itself is known to have lost information."""
        diagnosis = self.layers[place].diagnosis
        return diagnosis is not None and (diagnosis.verdict, diagnosis.cause) == (
            "bad",
            "coarse-scale",
        )

    def first(self, place: int) -> int | None:
        """The first layer on the way to this one whose own values are not the float model's.

        The way leads from each layer back to its worst feeder. It ends at a layer that is at fault,
        or whose feeders are sound.
        """
        first, at = None, place
        for _ in self.layers:
            off = {
                feeder: -math.inf if self.at_fault(feeder) else self.db(feeder)
                for feeder in self.feeders[at]
            }
            if not off or min(off.values()) >= LOW_SQNR_DB:
                break
            first = at = min(off, key=lambda feeder: off[feeder])
            if self.at_fault(at):
                break
        return first


def _computed_from_constants(model: _Model, place: int) -> Diagnosis | None:
    """A tensor that is the same in every run may be constant by design."""
    diagnosis = model.layers[place].diagnosis
    if diagnosis is None or diagnosis.cause != "constant" or place not in model.fixed:
        return None
    return Diagnosis("ok", "ok", f"{diagnosis.evidence}: computed from constants alone", "")


def _of_weights(model: _Model, place: int) -> Diagnosis | None:
    """The weights that move an operator's output are named, with what is wrong with them."""
    layer = model.layers[place]
    diagnosis = layer.diagnosis
    if diagnosis is None or diagnosis.cause != "weights":
        return None
    read = [each for each in map(model.by_name.get, layer.inputs or ()) if each is not None]
    weights = [each for each in read if each.kind == "weight" and each.diagnosis and each.metrics]
    rounded = [shown(each.name) for each in read if each.op == "QUANTIZE"]
    if not weights:
        return replace(
            diagnosis,
            cause="carried",
            evidence=diagnosis.evidence.replace("quantized weights move", "rounded inputs move"),
            advice=", ".join(["look at how its inputs are quantized", *rounded]),
        )
    worst = min(weights, key=lambda each: _decibels_of(each.metrics))
    assert worst.diagnosis is not None
    name, own = shown(worst.name), worst.diagnosis
    why = f"'{name}' has {_decibels_of(worst.metrics):.3g} dB"
    if own.cause not in (None, "ok"):
        why += f" ({own.cause})"
    advice = f"quantize '{name}' with a scale per channel"
    if rounded:
        why += f"; the rounding of its input '{rounded[0]}' is part of it"
    if isinstance(worst.scale, list):
        advice = f"'{name}' has a scale per channel: " + (
            own.advice or "give it more bits, or train with quantized weights"
        )
    elif worst.grid is not None:
        advice = f"'{name}' is {printable(worst.grid)}: " + (
            own.advice or "choose a format of more bits or smaller blocks for it"
        )
    return replace(diagnosis, evidence=f"{diagnosis.evidence}; {why}", advice=advice)


def _decibels_of(m: Metrics | None) -> float:
    """SQNR of a layer; inf if it is exact."""
    return math.inf if m is None or m.sqnr_db is None else m.sqnr_db


def _moved(model: _Model, place: int) -> Diagnosis | None:
    """Codes that are only moved get the verdict of the layers that they come from."""
    layer = model.layers[place]
    feeders = [model.layers[feeder] for feeder in model.feeders[place]]
    if layer.op not in _MOVES or layer.diagnosis is None or not feeders:
        return None
    same = (layer.scale, layer.zero_point, layer.dtype)
    if any((each.scale, each.zero_point, each.dtype) != same for each in feeders):
        return None
    if layer.metrics is None or any(each.diagnosis is None for each in feeders):
        return None
    if layer.diagnosis.cause in ("clipping", "bias", "wrong-scale", "non-finite"):
        return None  # an error of its own
    worst = max(feeders, key=lambda each: _VERDICTS.index(each.diagnosis.verdict))  # type: ignore[union-attr]
    assert worst.diagnosis is not None
    evidence = worst.diagnosis.evidence
    if not evidence.startswith(_MOVED):
        evidence = f"{_MOVED} of '{shown(worst.name)}': {evidence}"
    return replace(worst.diagnosis, evidence=evidence)


_MOVED = "the moved codes"
_VERDICTS = ("ok", "warn", "bad", "unreadable")


def _joined(model: _Model, place: int) -> Diagnosis | None:
    """Tensors of different magnitudes share one scale: the step is too coarse for the smaller."""
    layer = model.layers[place]
    if layer.op not in JOINS or layer.diagnosis is None or not isinstance(layer.scale, float):
        return None
    if layer.diagnosis.verdict == "bad" and layer.diagnosis.cause != "coarse-scale":
        return None
    found = []
    for feeder in model.feeders[place]:
        metrics = model.layers[feeder].metrics
        if metrics is None or metrics.sqnr_db is None or metrics.sqnr_db < LOW_SQNR_DB:
            continue
        size = math.hypot(metrics.float_mean or 0.0, metrics.float_std or 0.0)
        joined = _decibels(size / (REFERENCE * layer.scale))
        if joined < RUINED_DB:
            found.append((joined, size, metrics.sqnr_db, model.layers[feeder].name))
    if not found:
        return None
    joined, size, own, name = min(found)
    return Diagnosis(
        "bad",
        "coarse-scale",
        f"'{shown(name)}' is joined with larger values: its root mean square is {size:.3g}, "
        f"{size / layer.scale:.2g} steps of {layer.scale:.3g}; its SQNR falls from {own:.3g} to "
        f"about {joined:.3g} dB",
        f"leave this {layer.op} in float, or use its inputs separately",
    )


def _read_in_vain(model: _Model, place: int) -> Diagnosis | None:
    """The layers that read the tensor show what a coarse scale costs.

    If they hardly change, the loss did not matter; if they are ruined, it did.
    """
    layer = model.layers[place]
    m, diagnosis = layer.metrics, layer.diagnosis
    if m is None or diagnosis is None or is_constant(layer) or not m.lost:
        return None
    if diagnosis.cause not in ("coarse-scale", "ok") or layer.op in JOINS:
        return None
    arriving = {
        reader: db
        for reader in model.readers[place]
        if (db := _arriving_db(model.layers[reader].metrics)) is not None
        and all(model.db(other) >= LOW_SQNR_DB for other in model.feeders[reader] if other != place)
    }
    given = _arriving_db(m)
    if not arriving or given is None:
        return None
    reader = min(arriving, key=lambda each: arriving[each])
    least = arriving[reader]
    if diagnosis.cause == "coarse-scale" and least >= LOW_SQNR_DB:
        kept = f"; but the layers that read it keep at least {least:.3g} dB"
        bad = diagnosis.verdict == "bad"
        return (
            replace(diagnosis, verdict="warn", evidence=diagnosis.evidence + kept) if bad else None
        )
    not_finite = least == -math.inf < given
    if not_finite or (m.lost >= _LEAST_LOST and least < RUINED_DB <= given - RUINED_DB):
        step = f"{layer.scale:.3g}" if isinstance(layer.scale, float) else "its channels"
        after = "has values that are not finite" if not_finite else f"has {least:.3g} dB"
        return Diagnosis(
            "bad",
            "coarse-scale",
            f"{100 * m.lost:.3g} % of the floats that are not zero become zero (step {step}); "
            f"the SQNR of the floats here is {given:.3g} dB; "
            f"'{shown(model.layers[reader].name)}', which reads them, {after}",
            diagnosis.advice or "use 16 bits, or leave the operators around it in float",
        )
    return None


def _inherited(model: _Model, place: int) -> Diagnosis | None:
    """Values that are not finite or do not fit the range, unlike the float model's own."""
    layer = model.layers[place]
    m, diagnosis = layer.metrics, layer.diagnosis
    if m is None or diagnosis is None or m.model_min is None or m.model_max is None:
        return None
    own = f"[{m.model_min:.3g}, {m.model_max:.3g}]"
    if diagnosis.cause == "non-finite" and m.inherited_non_finite == m.non_finite:
        what = f"{m.non_finite} values are NaN or infinite; the float model's own are all finite, "
        what += f"in {own}"
    elif diagnosis.cause == "clipping" and (m.model_clipped or 0) < _OWN_SHARE * (m.clipped or 0):
        what = f"{100 * (m.clipped or 0):.3g} % of the values are clipped, but only "
        what += f"{100 * (m.model_clipped or 0):.3g} % of the float model's own, in {own}"
    elif diagnosis.cause == "constant" and m.model_min < m.model_max:
        what = f"all values are equal; the float model's own lie in {own}"
    elif diagnosis.cause == "range-waste" and not _wasted_by_model(layer, m):
        what = f"most of the range is unused; the float model's own values, in {own}, use it"
    else:
        return None
    first = model.first(place)
    if first is None:
        return replace(
            diagnosis,
            cause="inherited",
            evidence=f"{what}: the values that arrive here are not the float model's",
            advice="look at the operators between this layer and the layers that feed it",
        )
    cause = model.layers[first].diagnosis
    why = f" ({cause.cause})" if cause is not None and cause.cause not in (None, "ok") else ""
    return replace(
        diagnosis,
        cause="inherited",
        evidence=f"{what}: the error enters at '{shown(model.layers[first].name)}'{why}",
        advice=f"look at '{shown(model.layers[first].name)}' first",
    )


def _wasted_by_model(layer: "LayerReport", m: Metrics) -> bool:
    """Whether the float model's own values leave too many codes unused as well."""
    if layer.bits is None or m.model_min is None or m.model_max is None:
        return True
    scale = max(layer.scale) if isinstance(layer.scale, list) else layer.scale
    if scale is None:
        return True
    span = max(m.model_max, 0.0) - min(m.model_min, 0.0)
    return wasted(1 - span / scale / (2**layer.bits - 1))


def _arriving_db(m: Metrics | None) -> float | None:
    """SQNR of a layer's floats against the float model's own run, in dB."""
    if m is None or m.model_sqnr_db is None or not m.model_rmse_scale:
        return None
    if m.inherited_non_finite:
        return -math.inf
    if not m.inherited_rmse_scale:
        return math.inf
    return m.model_sqnr_db + _decibels(m.model_rmse_scale / m.inherited_rmse_scale)


def _decibels(ratio: float) -> float:
    return 20 * math.log10(ratio) if ratio > 0 else -math.inf
