"""Suggest: the operators to leave in float, worst first, and the share of the error each carries.

From a report alone: knows no tensor, no model and no converter. docs/selective.md has the theory
and what it is worth on real models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qdebug.errors import QdebugError
from qdebug.measure.metrics import REFERENCE
from qdebug.report.graph import Graph, graph_of
from qdebug.report.report import LayerReport, Report

# What shares are made of, the best first; see `suggestions`.
Basis = Literal["model", "local", "steps"]

DEFAULT_BUDGET = 0.8

# Operators that only change a tensor's representation.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear")

# An activation whose error beyond its own rounding is less than this share of its weights' was
# compared with floats that were computed with the quantized weights.
_LACKS_WEIGHTS = 0.01

# An operator of whose error less than this share goes away by leaving it in float only rounds.
_ONLY_ROUNDS = 0.001

# Sums of floats may miss their total by so much, as a share.
_ROUNDING = 1e-12

# Figures beyond this (in steps; in dB of a ratio) are no measurements. Powers of what lies below,
# and their sums, stay finite.
_LARGEST_STEPS = 1e50
_LARGEST_DB = 1000.0


@dataclass(frozen=True)
class Suggestion:
    """An operator to leave in float.

    Attributes:
        layer: the tensor that it makes, as the report has it; a weight's where that is all.
        nodes: what the float model calls the operator; empty where the report does not say.
        op: its kind, where known.
        share: of the model's error, as a share: what is made here.
        removes: the part of that which leaving this operator alone in float takes away.
        reason: a line of figures, or the diagnosis.
    """

    layer: str
    nodes: tuple[str, ...]
    op: str | None
    share: float
    removes: float
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """All operators that leaving in float helps.

    Attributes:
        basis: what the shares are made of.
        candidates: those operators, the one that removes most first.
        untold: layers whose figures do not tell, by name.
    """

    basis: Basis
    candidates: Sequence[Suggestion]
    untold: Sequence[str]


@dataclass(frozen=True)
class _Power:
    """Error power of one layer: in squared steps, or beside the signal's power.

    Attributes:
        own: of all error made at its operator.
        kept: the part of it that stays when the operator is left in float: its output's rounding.
        inherited: of what its operator's inputs had wrong.
    """

    own: float
    kept: float
    inherited: float = 0.0


@dataclass(frozen=True)
class _Operator:
    """What a report has of one operator: a tensor that it makes, weights that it reads.

    `place` is the tensor's in the report, -1 where there is none.
    """

    made: LayerReport | None
    weights: Sequence[LayerReport]
    place: int = -1

    @property
    def layer(self) -> LayerReport:
        """What it is named by."""
        return self.made or self.weights[0]


def suggestions(report: Report) -> Suggestions:
    """The operators of a report that leaving in float helps, the one that helps most first.

    The share of an operator is what it adds to the model's error. On the way to the output each
    layer hands on the error it inherits and adds its own, which is independent, so powers add. Of
    the error at an output own / (own + inherited) was made there. The rest goes to the layers that
    feed it, in proportion to the error power that each brings, and so on back to the inputs. A
    layer that several others read gets a part from each of them. Several outputs (layers that feed
    no other) share equally. A layer without figures hands on all that it gets. `graph_of` says what
    feeds a layer and how much it brings. That is the basis "model"; it needs a run of the float
    model (`inherited_rmse_scale`).

    Without such a run ("local"): own noise-to-signal ratios, 10^(-sqnr_db / 10), as shares of their
    sum: through a chain they add up to the output's. Without SQNR ("steps", TFLite's CSV): squares
    of rmse/scale likewise, as if all tensors filled their ranges alike. Of the three the one that
    most layers have figures for.

    What leaving one operator in float removes is its share without its output's own rounding and
    clipping (`quantizer_rmse_scale`): the next operator quantizes that tensor again. Behind the
    last layer of the basis "model" there is no next one, and all its share goes.

    The weights' error is in their operator's own, except where the reference was itself computed
    with the quantized weights (ONNX's QDQ form). There it is inherited, and is taken out of that in
    proportion: the weights' noise-to-signal ratio beside that of the layer before.

    Raises:
        QdebugError: the report has no operator to judge.
    """
    operators = _operators(report)
    if not operators:
        raise QdebugError(
            "found no operator among the layers, expected activations: a report made with --inputs"
        )
    graph = graph_of(report.layers)
    basis, powers = _best_basis(operators, graph)
    shares = _handed_on(operators, powers, graph) if basis == "model" else _of_sum(powers)
    found: dict[tuple[str, ...] | str, Suggestion] = {}
    for operator, power, share in zip(operators, powers, shares, strict=True):
        if power is None or not power.own or not _can_be_left(operator.layer):
            continue
        nodes = tuple(filter(None, operator.layer.nodes or ()))
        key = nodes or operator.layer.name
        suggestion = Suggestion(
            layer=operator.layer.name,
            nodes=nodes,
            op=operator.layer.op,
            share=share,
            removes=share * (power.own - power.kept) / power.own,
            reason=_reason(operator),
        )
        found[key] = _merged(found[key], suggestion) if key in found else suggestion
    candidates = [s for s in found.values() if s.removes > _ONLY_ROUNDS * s.share]
    return Suggestions(
        basis=basis,
        candidates=sorted(candidates, key=lambda s: -s.removes),
        untold=[o.layer.name for o, p in zip(operators, powers, strict=True) if p is None],
    )


def chosen(
    candidates: Sequence[Suggestion], *, top: int | None = None, budget: float | None = None
) -> list[Suggestion]:
    """The fewest candidates that keep to a budget, and no more than `top`; all without either.

    A budget is a share of what all candidates remove, each left in float by itself.
    """
    kept = list(candidates)
    if budget is not None:
        total = math.fsum(s.removes for s in candidates)
        enough = budget * total * (1 - _ROUNDING)
        kept = []
        while math.fsum(s.removes for s in kept) < enough:
            kept.append(candidates[len(kept)])
    return kept[:top]


def _operators(report: Report) -> list[_Operator]:
    """Who makes an activation, each with its weights; then who only reads weights."""
    weights: dict[tuple[str, ...], list[LayerReport]] = {}
    for layer in report.layers:
        if layer.metrics and layer.kind == "weight" and layer.nodes:
            weights.setdefault(tuple(layer.nodes), []).append(layer)
    operators = [
        # Of several outputs the first has the weights.
        _Operator(layer, weights.pop(tuple(layer.nodes or ()), []), place)
        for place, layer in enumerate(report.layers)
        if layer.metrics and layer.kind not in ("weight", "bias")
    ]
    return operators + [_Operator(None, readers) for readers in weights.values()]


def _can_be_left(layer: LayerReport) -> bool:
    """Whether an operator makes the layer: not the model's inputs, no mere change of format."""
    if layer.op is None:
        return layer.kind is None  # a plain pair file, which does not say
    return layer.op not in _CONVERSIONS


def _best_basis(operators: Sequence[_Operator], graph: Graph) -> tuple[Basis, list[_Power | None]]:
    """The basis that most operators have the figures for, and their powers."""
    found: dict[Basis, list[_Power | None]] = {
        "model": _through_the_graph(operators, graph),
        "local": [_beside_the_signal(operator) for operator in operators],
        "steps": [_in_steps(operator) for operator in operators],
    }
    basis = max(found, key=lambda b: sum(power is not None for power in found[b]))
    return basis, found[basis]


def _through_the_graph(operators: Sequence[_Operator], graph: Graph) -> list[_Power | None]:
    """Powers in squared steps, with what each layer inherits; of an output's nothing is kept."""
    by_place = {operator.place: operator for operator in operators if operator.made}
    powers: dict[int, _Power] = {}
    leaving: dict[int, float] = {}  # noise-to-signal ratio of a layer in the whole run
    for place in graph.order:
        arriving = max((leaving[feeder] for feeder in graph.feeders[place]), default=0.0)
        leaving[place] = arriving
        operator = by_place.get(place)
        if operator is None:
            continue
        power, inherited = _in_steps(operator), _figure(operator, "inherited_rmse_scale")
        if power is None or inherited is None or not _tells_rounding(operator):
            continue
        inherited *= inherited
        noise = _noise_to_signal(operator.made)
        if noise and power.own:
            ratio = _unseen_weights(operator, power, noise)
            weights = inherited * ratio / (ratio + arriving) if ratio else 0.0
            leaving[place] = (power.own + inherited) * (noise / power.own)
            power, inherited = replace(power, own=power.own + weights), inherited - weights
        powers[place] = replace(power, inherited=inherited)
    for place in powers.keys() - _quantized_again(powers, graph):
        powers[place] = replace(powers[place], kept=0.0)
    return [powers.get(operator.place) for operator in operators]


def _quantized_again(powers: Mapping[int, _Power], graph: Graph) -> set[int]:
    """Layers that some layer with figures reads, maybe past others that have none."""
    read: set[int] = set()
    for place in reversed(graph.order):
        if place in powers or place in read:
            read.update(graph.feeders[place])
    return read


def _beside_the_signal(operator: _Operator) -> _Power | None:
    """Power as a noise-to-signal ratio."""
    if operator.made is None:
        return _Power(_noise_of_weights(operator), 0.0)
    power, noise = _in_steps(operator), _noise_to_signal(operator.made)
    if power is None or not power.own:
        return power
    if noise is None or not _tells_rounding(operator):
        return None
    return _Power(noise + _unseen_weights(operator, power, noise), noise * (power.kept / power.own))


def _in_steps(operator: _Operator) -> _Power | None:
    """Power in squared steps; where nothing tells the rounding, it is taken for uniform."""
    own, rounding = (_figure(operator, f) for f in ("rmse_scale", "quantizer_rmse_scale"))
    if own is None:
        return None
    rounding = REFERENCE if rounding is None else rounding
    return _Power(own * own, min(own * own, rounding * rounding))


def _tells_rounding(operator: _Operator) -> bool:
    return _figure(operator, "quantizer_rmse_scale") is not None


def _unseen_weights(operator: _Operator, power: _Power, noise: float) -> float:
    """The weights' noise-to-signal ratio where the operator's own error lacks it, else 0."""
    weights = _noise_of_weights(operator)
    beyond_rounding = noise * ((power.own - power.kept) / power.own)
    return weights if beyond_rounding < _LACKS_WEIGHTS * weights else 0.0


def _noise_of_weights(operator: _Operator) -> float:
    return math.fsum(_noise_to_signal(weight) or 0.0 for weight in operator.weights)


def _noise_to_signal(layer: LayerReport | None) -> float | None:
    """Power of the error beside the signal's: 10^(-sqnr_db / 10); None where it cannot be had."""
    decibels = layer.metrics.sqnr_db if layer and layer.metrics else None
    if decibels is None or abs(decibels) > _LARGEST_DB:
        return None
    return float(10 ** (-decibels / 10))


def _figure(operator: _Operator, name: str) -> float | None:
    """A figure of the tensor that the operator makes, in steps; None where it cannot be had."""
    value = getattr(operator.made.metrics, name) if operator.made else None
    return None if value is None or abs(value) > _LARGEST_STEPS else float(value)


def _handed_on(
    operators: Sequence[_Operator], powers: Sequence[_Power | None], graph: Graph
) -> list[float]:
    """Shares of the error at the outputs by where it was made; see `suggestions`."""
    known = {o.place: power for o, power in zip(operators, powers, strict=True) if power}
    outputs = _outputs(known, graph)
    rest = dict.fromkeys(outputs, 1 / max(len(outputs), 1))
    shares: dict[int, float] = {}
    for place in reversed(graph.order):
        here, power = rest.pop(place, 0.0), known.get(place)
        if power is not None and power.own:
            shares[place] = here * (power.own / (power.own + power.inherited))
            here = max(here - shares[place], 0.0)
        for feeder, part in graph.feeders[place].items():
            rest[feeder] = rest.get(feeder, 0.0) + here * part
    return [shares.get(operator.place, 0.0) for operator in operators]


def _outputs(powers: Mapping[int, _Power], graph: Graph) -> list[int]:
    """Layers that feed no other, but for those behind which no layer has figures."""
    feed = {feeder for feeders in graph.feeders for feeder in feeders}
    told: set[int] = set()
    for place in graph.order:
        if place in powers or told.intersection(graph.feeders[place]):
            told.add(place)
    return [place for place in graph.order if place in told and place not in feed]


def _of_sum(powers: Sequence[_Power | None]) -> list[float]:
    """Shares of the sum of all that is known."""
    total = math.fsum(power.own for power in powers if power is not None)
    return [power.own / total if power is not None and total else 0.0 for power in powers]


def _merged(first: Suggestion, second: Suggestion) -> Suggestion:
    """One operator of two outputs, named by the worse."""
    return replace(
        max(first, second, key=lambda s: s.removes),
        share=first.share + second.share,
        removes=first.removes + second.removes,
    )


def _reason(operator: _Operator) -> str:
    """Why the operator is suggested: the diagnosis if there is one, else its figures."""
    diagnosis = operator.layer.diagnosis
    if diagnosis is not None and diagnosis.cause != "ok":
        return f"{diagnosis.cause}: {diagnosis.evidence}"
    figures = []
    metrics = operator.made.metrics if operator.made else None
    if metrics is not None and metrics.rmse_scale is not None:
        rounding = metrics.quantizer_rmse_scale
        alone = "" if rounding is None else f", {rounding:#.3g} by rounding its output alone"
        figures.append(f"rmse/scale {metrics.rmse_scale:#.3g}{alone}")
    for name, layer in (("SQNR", operator.made), *(("weights' SQNR", w) for w in operator.weights)):
        if layer is not None and layer.metrics and layer.metrics.sqnr_db is not None:
            figures.append(f"{name} {layer.metrics.sqnr_db:.1f} dB")
    return "; ".join(figures)
