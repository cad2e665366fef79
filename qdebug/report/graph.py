"""Graph: the layers that feed each layer of a report, and how much error each contributes."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdebug.report.report import LayerReport

# Operators that pass on their inputs' errors in the tensors' own unit: element by element, or side
# by side. In all others, mostly products, an input's error counts relative to its own signal. A
# Relu or Clip has several inputs only if an operator before it, usually an Add, has no layer.
_SUMS = frozenset(
    """ADD SUB ADD_N MAXIMUM MINIMUM SELECT SELECT_V2
    Add Sub Sum Mean Max Min Where Relu Clip LeakyRelu""".split()  # noqa: SIM905
)
JOINS = frozenset(("CONCATENATION", "PACK", "Concat"))

# Larger figures (in dB; in steps and scales) are not measurements. Powers of smaller ones, and
# their sums, stay finite.
_LARGEST_DB = 1000.0
_LARGEST = 1e50


@dataclass(frozen=True)
class Graph:
    """How the activations of a report are connected; a layer is its index in the report.

    Weights and biases are left out, because their error belongs to the operator that reads them.

    Attributes:
        feeders: for each layer, the layers that feed it -> the part of the error that each
            contributes, the largest first; parts sum to 1.
        order: all layers, each after those that feed it.
        noise: for each layer, its error power in a whole run relative to its signal; if its own
            is unknown, that of the worst layer that feeds it; None if none is known.
        growth: for each layer, the error power that it inherits over the sum of what its feeders
            bring, in dB: 0 if they explain it, infinite if they are exact; None if unknown.
    """

    feeders: Sequence[Mapping[int, float]]
    order: Sequence[int]
    noise: Sequence[float | None]
    growth: Sequence[float | None]


def graph_of(layers: Sequence["LayerReport"]) -> Graph:
    """The graph that the layers' `inputs` describe; if they are unknown, the report's order.

    A layer whose inputs are unknown is taken to be fed by the activation before it in the report.
    So is a layer whose feeding activations are not in the report, which may show only some layers.

    A layer's error power is that of a whole run (`model_float`), relative to its signal:
    10^(-model_sqnr_db / 10). For sums and concatenations it is in the tensor's own unit,
    (model_rmse_scale * scale)^2, for a concatenation times the number of elements. A layer that
    lacks these figures contributes as much as the worst layer that feeds it. If nothing before it
    has them either, it contributes what the other feeders leave of the reader's inherited error.
    """
    feeders = _named_feeders(layers)
    try:
        order = _sorted(feeders)
    except CycleError:  # not the inputs of a network
        feeders = _in_a_row(layers)
        order = _sorted(feeders)
    noises = _noises(layers, feeders, order)
    brought = [
        [_power(noises[feeder], layer.op) for feeder in found]
        for layer, found in zip(layers, feeders, strict=True)
    ]
    inherited = [_inherited(layer) for layer in layers]
    parts = map(_parts, brought, inherited)
    return Graph(
        feeders=[
            dict(sorted(zip(found, shares, strict=True), key=lambda part: -part[1]))
            for found, shares in zip(feeders, parts, strict=True)
        ],
        order=order,
        noise=[None if noise is None else noise.relative for noise in noises],
        growth=list(map(_growth, brought, inherited)),
    )


def surroundings(layers: Sequence["LayerReport"], chosen: Collection[str]) -> set[str]:
    """Names of other layers that the diagnoses of the chosen ones depend on.

    These are the layers upstream; those that read the chosen or these; and what else feeds these
    readers. Figures of all others change nothing (`report.with_origins`).

    Args:
        layers: all layers; no figures are needed.
        chosen: names of some of them.
    """
    feeders = _named_feeders(layers)
    places = {layer.name: place for place, layer in enumerate(layers)}
    upstream: set[int] = set()
    waiting = [place for place, layer in enumerate(layers) if layer.name in chosen]
    while waiting:
        place = waiting.pop()
        if place not in upstream:
            upstream.add(place)
            named = [places[name] for name in layers[place].inputs or () if name in places]
            waiting += [*feeders[place], *named]  # `named`: with weights
    found = set(upstream)
    for place, read in enumerate(feeders):
        if not upstream.isdisjoint(read):
            found |= {place, *read}
    return {layers[place].name for place in found} - set(chosen)


@dataclass(frozen=True)
class _Noise:
    """Error power of a layer in a whole run: relative to its signal, per element, and total."""

    relative: float = 0.0
    element: float = 0.0
    total: float = 0.0


def is_constant(layer: "LayerReport") -> bool:
    """Whether it is a weight or a bias."""
    return layer.kind in ("weight", "bias")


def _named_feeders(layers: Sequence["LayerReport"]) -> list[list[int]]:
    """The activations that feed each layer: those that it names, else the one before it."""
    places: dict[str, int] = {}
    for place, layer in enumerate(layers):
        places.setdefault(layer.name, place)
    feeders = _in_a_row(layers)
    for place, layer in enumerate(layers):
        if is_constant(layer) or layer.inputs is None:
            continue
        found = dict.fromkeys(places.get(name) for name in layer.inputs)
        activations = [p for p in found if p is not None and not is_constant(layers[p])]
        if activations or None not in found:
            feeders[place] = activations
    return feeders


def _in_a_row(layers: Sequence["LayerReport"]) -> list[list[int]]:
    """The activation before each layer, as in a chain."""
    feeders: list[list[int]] = []
    before: list[int] = []
    for place, layer in enumerate(layers):
        feeders.append([] if is_constant(layer) else before)
        before = before if is_constant(layer) else [place]
    return feeders


def _sorted(feeders: Sequence[Sequence[int]]) -> list[int]:
    return list(TopologicalSorter(dict(enumerate(feeders))).static_order())


def _noises(
    layers: Sequence["LayerReport"], feeders: Sequence[Sequence[int]], order: Sequence[int]
) -> list[_Noise | None]:
    noises: list[_Noise | None] = [None] * len(layers)
    for place in order:
        before = [known for feeder in feeders[place] if (known := noises[feeder])]
        noises[place] = _noise(layers[place])
        if noises[place] is None and before:
            noises[place] = _Noise(
                max(noise.relative for noise in before),
                max(noise.element for noise in before),
                max(noise.total for noise in before),
            )
    return noises


def _noise(layer: "LayerReport") -> _Noise | None:
    """The layer's own error power, None if it lacks the figures."""
    metrics = layer.metrics
    if metrics is None or metrics.model_rmse_scale is None or layer.scale is None:
        return None
    if metrics.model_rmse_scale == 0:
        return _Noise()
    scales = layer.scale if isinstance(layer.scale, list) else [layer.scale]
    size = max(map(abs, (metrics.model_rmse_scale, *scales)))
    decibels = metrics.model_sqnr_db
    if decibels is None or abs(decibels) > _LARGEST_DB or size > _LARGEST:
        return None
    square = math.fsum(scale * scale for scale in scales) / len(scales)
    element = metrics.model_rmse_scale**2 * square
    return _Noise(10 ** (-decibels / 10), element, element * metrics.num_elements)


def _power(noise: _Noise | None, reader: str | None) -> float | None:
    """The error power of a feeder, in the unit in which this operator passes it on."""
    if noise is None:
        return None
    if reader in JOINS:
        return noise.total
    return noise.element if reader in _SUMS else noise.relative


def _inherited(layer: "LayerReport") -> float | None:
    """The error power that a layer inherits, in that unit; None if it lacks the figures."""
    power = _power(_noise(layer), layer.op)
    metrics = layer.metrics
    if power is None or metrics is None or metrics.inherited_rmse_scale is None:
        return None
    if not power or not metrics.model_rmse_scale:
        return 0.0
    if abs(metrics.inherited_rmse_scale) > _LARGEST:
        return None
    ratio = metrics.inherited_rmse_scale / metrics.model_rmse_scale
    return power * ratio * ratio


def _parts(brought: Sequence[float | None], inherited: float | None) -> list[float]:
    """The share of the error that each feeder contributes; equal shares if that is unknown."""
    known = [power for power in brought if power is not None]
    total, unknown = math.fsum(known), len(brought) - len(known)
    if unknown and inherited and known:
        # The known ones bring no more than they have; the others bring the rest.
        whole = max(total, inherited)
        left = max(1 - total / whole, 0.0) / unknown
        return [left if power is None else power / whole for power in brought]
    if unknown or not total:
        return [1 / len(brought) for _ in brought]
    return [power / total for power in known]


def _growth(brought: Sequence[float | None], inherited: float | None) -> float | None:
    """How much more error a layer inherits than its feeders bring, in dB; None if unknown."""
    known = [power for power in brought if power is not None]
    if not brought or len(known) < len(brought) or inherited is None:
        return None
    total = math.fsum(known)
    if not inherited:
        return -math.inf
    return 10 * (math.log10(inherited) - math.log10(total)) if total else math.inf
