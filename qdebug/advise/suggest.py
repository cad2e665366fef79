"""Suggest: the operators to leave in float, worst first, with each one's share of the error.

Works from a report alone: knows no tensor and no model. docs/selective.md has the
theory and measurements on real models.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal

from qdebug.advise.converters import quantized_operators, read_alone
from qdebug.errors import QdebugError
from qdebug.measure.metrics import REFERENCE
from qdebug.report.graph import Graph, graph_of
from qdebug.report.report import LayerReport, Report

# The figures that shares are computed from, the best first; see `suggestions`.
Basis = Literal["model", "local", "steps"]

DEFAULT_BUDGET = 0.8

# Operators that only change a tensor's representation.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear")

# Where a report does not split the error: if an activation's error beyond its own rounding is less
# than this share of its weights' error, its floats were computed with the quantized weights.
_LACKS_WEIGHTS = 0.01

# If leaving an operator in float removes less than this share of its error, it only rounds.
_ONLY_ROUNDS = 0.001

# The error power that a layer inherits may exceed what its feeders contribute, because an operator
# amplifies it. In five real models (883 layers: OCR, YOLOv8, a BERT-like encoder, magika, the
# sample) it does so by less than 3.2 dB in a sum and 22 dB in any other operator. The next values
# are 105 dB and more, where the feeders' figures do not show the error that matters (a softmax
# after a mask).
_AMPLIFIED_DB = 30.0

# Relative rounding error allowed in a sum of floats.
_ROUNDING = 1e-12

# Larger figures (in steps; in dB of a ratio) are not measurements. Powers of smaller ones, and
# their sums, stay finite.
_LARGEST_STEPS = 1e50
_LARGEST_DB = 1000.0


@dataclass(frozen=True)
class Suggestion:
    """An operator to leave in float.

    Attributes:
        layer: the report's name for its output tensor; for its weight, if only that is known.
        nodes: the float model's names for the operator; empty if the report has none.
        op: its kind, if known.
        share: the share of the model's error that is made here, or by rounding tensors that are
            quantized for this operator alone.
        removes: the part of `share` that disappears if only this operator is left in float.
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
    """All operators worth leaving in float.

    Attributes:
        basis: the figures that the shares are computed from.
        candidates: these operators; the one that removes most comes first.
        untold: names of layers that lack the figures for this basis.
        untraced: the share of the model's error that no layer's figures account for.
    """

    basis: Basis
    candidates: Sequence[Suggestion]
    untold: Sequence[str]
    untraced: float = 0.0


@dataclass(frozen=True)
class _Power:
    """Error power of one layer: in squared steps, or relative to the signal's power.

    Attributes:
        own: of all error made at its operator.
        kept: the part of `own` that stays if the operator is left in float: its output's rounding.
        inherited: of the error in its operator's inputs.
        brought: `inherited` as a part of `inherited_rmse_scale`^2; weights made the rest.
    """

    own: float
    kept: float
    inherited: float = 0.0
    brought: float = 1.0


@dataclass(frozen=True)
class _Operator:
    """One operator in a report: its output tensor and its weights.

    `place` is the output tensor's index in the report, -1 if there is none.
    """

    made: LayerReport | None
    weights: Sequence[LayerReport]
    place: int = -1

    @property
    def layer(self) -> LayerReport:
        """The layer that names it."""
        return self.made or self.weights[0]


def suggestions(report: Report) -> Suggestions:
    """The operators of a report that are worth leaving in float, the most effective first.

    The share of an operator is the part of the model's error that it adds. There are three bases.
    The basis is "model" if half of the activations have figures for it, else the one that most
    have figures for.

    "model" needs a run of the float model (`inherited_rmse_scale`). On the way to the output each
    layer passes on the error that it inherits and adds its own; the two are independent, so powers
    add. At an output, the share own / (own + inherited) was made there. The rest is assigned to the
    layers that feed it, in proportion to the error power that each contributes, and so on back to
    the inputs. A layer that several others read gets a part from each of them. Several outputs
    (layers that feed no other) share in proportion to their noise-to-signal ratios; equally if one
    is unknown. A layer without figures passes on everything that it gets. `graph_of` says what
    feeds a layer and how much each feeder contributes.

    A feeder gets at most what it contributes, amplified by `_AMPLIFIED_DB`. So a layer that
    inherits nothing and adds next to nothing is not charged with an error that is orders of
    magnitude larger. What no feeder accounts for is `untraced`.

    "local" works without such a run: each layer's noise-to-signal ratio, 10^(-sqnr_db / 10), as a
    share of their sum. Through a chain these ratios add up to that of the output.

    "steps" works without SQNR (TFLite's CSV): squares of rmse/scale as shares of their sum, as if
    all tensors filled their ranges equally.

    Leaving one operator in float removes its share except its output's own rounding and clipping
    (`quantizer_rmse_scale`), because the next operator quantizes that tensor again. After the last
    layer of the basis "model" there is no next operator, so its whole share disappears.

    ONNX Runtime keeps a tensor quantized while any quantized node makes or reads it. If only one
    does, all of the tensor's error counts as that operator's and disappears with it (`read_alone`).

    The weights' error is part of their operator's own, unless the reference itself was computed
    with the quantized weights (ONNX's QDQ form). Then it is part of the inherited error, which is
    divided in proportion to the noise-to-signal ratios of the weights and of the layer before.

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
    freed = _freed(operators, shares, read_alone(report.layers, graph))
    quantized = quantized_operators(report.layers)
    found: dict[tuple[str, ...] | str, Suggestion] = {}
    for operator, power, share in zip(operators, powers, shares, strict=True):
        inputs = freed.get(operator.place, 0.0)
        if power is None or not (power.own or inputs) or not _can_be_left(operator, quantized):
            continue
        nodes = tuple(filter(None, operator.layer.nodes or ()))
        key = nodes or operator.layer.name
        part = (power.own - power.kept) / power.own if power.own else 0.0
        suggestion = Suggestion(
            layer=operator.layer.name,
            nodes=nodes,
            op=operator.layer.op,
            share=share + inputs,
            removes=share * part + inputs,
            reason=_reason(operator),
        )
        found[key] = _merged(found[key], suggestion) if key in found else suggestion
    candidates = [s for s in found.values() if s.removes > _ONLY_ROUNDS * s.share]
    return Suggestions(
        basis=basis,
        candidates=sorted(candidates, key=lambda s: -s.removes),
        untold=[o.layer.name for o, p in zip(operators, powers, strict=True) if p is None],
        untraced=_untraced(shares) if basis == "model" and candidates else 0.0,
    )


def chosen(
    candidates: Sequence[Suggestion], *, top: int | None = None, budget: float | None = None
) -> list[Suggestion]:
    """The fewest candidates that reach the budget, at most `top`; all if neither is given.

    The budget is a share of the sum of `removes` over all candidates.
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
    """The operators that make an activation, with their weights; then those with weights only."""
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


def _can_be_left(operator: _Operator, quantized: set[int]) -> bool:
    """Whether a quantized operator, not a mere conversion, makes the layer."""
    layer = operator.layer
    if layer.op is None:
        return layer.kind is None  # a plain pair file has no `op`
    return layer.op not in _CONVERSIONS and (operator.made is None or operator.place in quantized)


def _freed(
    operators: Sequence[_Operator], shares: Sequence[float], alone: Mapping[int, int]
) -> dict[int, float]:
    """Operator's place -> the error of the tensors that are quantized for it alone."""
    freed: dict[int, float] = {}
    for operator, share in zip(operators, shares, strict=True):
        if operator.made is not None and operator.place in alone:
            reader = alone[operator.place]
            freed[reader] = freed.get(reader, 0.0) + share
    return freed


def _best_basis(operators: Sequence[_Operator], graph: Graph) -> tuple[Basis, list[_Power | None]]:
    """The basis that most operators have figures for, and their powers.

    Operators of which only weights are known cannot have a run of the float model, so they count
    only if there is nothing else. "model" says so much more that half of the operators are enough.
    """
    found: dict[Basis, list[_Power | None]] = {
        "model": _through_the_graph(operators, graph),
        "local": [_beside_the_signal(operator) for operator in operators],
        "steps": [_in_steps(operator) for operator in operators],
    }
    activations = [operator.made is not None for operator in operators]
    known = {basis: _number(compress(powers, activations)) for basis, powers in found.items()}
    if not any(known.values()):
        known = {basis: _number(powers) for basis, powers in found.items()}
    best = max(found, key=lambda basis: known[basis])
    basis: Basis = "model" if 2 * known["model"] >= known[best] else best
    return basis, found[basis]


def _number(powers: Iterable[_Power | None]) -> int:
    """How many are known."""
    return sum(power is not None for power in powers)


def _through_the_graph(operators: Sequence[_Operator], graph: Graph) -> list[_Power | None]:
    """Powers in squared steps, inherited error included; an output has no `kept` power."""
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
            brought = arriving / (ratio + arriving) if ratio else 1.0
            leaving[place] = (power.own + inherited) * (noise / power.own)
            own = power.own + inherited * (1 - brought)
            power, inherited = replace(power, own=own, brought=brought), inherited * brought
        powers[place] = replace(power, inherited=inherited)
    for place in powers.keys() - _quantized_again(powers, graph):
        powers[place] = replace(powers[place], kept=0.0)
    return [powers.get(operator.place) for operator in operators]


def _quantized_again(powers: Mapping[int, _Power], graph: Graph) -> set[int]:
    """Layers that a layer with figures reads, directly or through layers without figures."""
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
    """Power in squared steps; if the rounding error is unknown, it is assumed to be uniform."""
    own, rounding = (_figure(operator, f) for f in ("rmse_scale", "quantizer_rmse_scale"))
    if own is None:
        return None
    rounding = REFERENCE if rounding is None else rounding
    return _Power(own * own, min(own * own, rounding * rounding))


def _tells_rounding(operator: _Operator) -> bool:
    return _figure(operator, "quantizer_rmse_scale") is not None


def _unseen_weights(operator: _Operator, power: _Power, noise: float) -> float:
    """The weights' noise-to-signal ratio if the operator's own error lacks it, else 0."""
    weights, seen = _noise_of_weights(operator), _figure(operator, "weights_rmse_scale")
    if seen is not None:
        return 0.0 if seen else weights
    beyond_rounding = noise * ((power.own - power.kept) / power.own)
    return weights if beyond_rounding < _LACKS_WEIGHTS * weights else 0.0


def _noise_of_weights(operator: _Operator) -> float:
    return math.fsum(_noise_to_signal(weight) or 0.0 for weight in operator.weights)


def _noise_to_signal(layer: LayerReport | None) -> float | None:
    """Power of the error relative to the signal: 10^(-sqnr_db / 10); None if undefined."""
    decibels = layer.metrics.sqnr_db if layer and layer.metrics else None
    if decibels is None or abs(decibels) > _LARGEST_DB:
        return None
    return float(10 ** (-decibels / 10))


def _figure(operator: _Operator, name: str) -> float | None:
    """A figure of the operator's output tensor, in steps; None if undefined."""
    value = getattr(operator.made.metrics, name) if operator.made else None
    return None if value is None or abs(value) > _LARGEST_STEPS else float(value)


def _handed_on(
    operators: Sequence[_Operator], powers: Sequence[_Power | None], graph: Graph
) -> list[float]:
    """Each operator's share of the error at the outputs; see `suggestions`."""
    known = {o.place: power for o, power in zip(operators, powers, strict=True) if power}
    rest = _at_outputs(_outputs(known, graph), graph)
    shares: dict[int, float] = {}
    for place in reversed(graph.order):
        here, power = rest.pop(place, 0.0), known.get(place)
        if power is not None and power.own:
            shares[place] = here * (power.own / (power.own + power.inherited))
            here = max(here - shares[place], 0.0)
        here *= _explained(graph.growth[place], power)
        for feeder, part in graph.feeders[place].items():
            rest[feeder] = rest.get(feeder, 0.0) + here * part
    return [shares.get(operator.place, 0.0) for operator in operators]


def _at_outputs(outputs: Sequence[int], graph: Graph) -> dict[int, float]:
    """Output -> its share of the error."""
    noises = [graph.noise[place] for place in outputs]
    known = [noise for noise in noises if noise is not None]
    total = math.fsum(known)
    if len(known) < len(outputs) or not total:
        return dict.fromkeys(outputs, 1 / max(len(outputs), 1))
    return {place: noise / total for place, noise in zip(outputs, known, strict=True)}


def _explained(growth: float | None, power: _Power | None) -> float:
    """The share of a layer's inherited error that its feeders can account for."""
    brought = 1.0 if power is None else power.brought
    if growth is None or not brought:
        return 1.0
    return float(10 ** (min(_AMPLIFIED_DB - growth - 10 * math.log10(brought), 0.0) / 10))


def _untraced(shares: Sequence[float]) -> float:
    """What is left of the whole error; 0 if it is within rounding."""
    left = 1 - math.fsum(shares)
    return left if left > len(shares) * _ROUNDING else 0.0


def _outputs(powers: Mapping[int, _Power], graph: Graph) -> list[int]:
    """Layers that feed no other, if they or a layer before them have figures."""
    feed = {feeder for feeders in graph.feeders for feeder in feeders}
    told: set[int] = set()
    for place in graph.order:
        if place in powers or told.intersection(graph.feeders[place]):
            told.add(place)
    return [place for place in graph.order if place in told and place not in feed]


def _of_sum(powers: Sequence[_Power | None]) -> list[float]:
    """Shares of the sum of all known powers."""
    total = math.fsum(power.own for power in powers if power is not None)
    return [power.own / total if power is not None and total else 0.0 for power in powers]


def _merged(first: Suggestion, second: Suggestion) -> Suggestion:
    """One operator with two outputs, named by the worse."""
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
