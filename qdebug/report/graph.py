"""Graph: the layers that feed each layer of a report, and which of them brings how much error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdebug.report.report import LayerReport

# Operators that hand on their inputs' errors in the tensors' own unit: element by element, or side
# by side. In all others, products above all, an input's error counts beside its own signal. A Relu
# or Clip has several inputs only where an operator before it has no layer: most often an Add.
_SUMS = frozenset(
    """ADD SUB ADD_N MAXIMUM MINIMUM SELECT SELECT_V2
    Add Sub Sum Mean Max Min Where Relu Clip LeakyRelu""".split()  # noqa: SIM905
)
_JOINS = frozenset(("CONCATENATION", "PACK", "Concat"))

# Figures beyond this (in dB; in steps and scales) are no measurements. Powers of what lies below,
# and their sums, stay finite.
_LARGEST_DB = 1000.0
_LARGEST = 1e50


@dataclass(frozen=True)
class Graph:
    """How the activations of a report are connected; layers are their places in the report.

    Weights and biases are left out: their error is that of the operator that reads them.

    Attributes:
        feeders: for each layer, those that feed it -> the part of the error that each brings, the
            largest first; parts sum to 1.
        order: all layers, each behind those that feed it.
    """

    feeders: Sequence[Mapping[int, float]]
    order: Sequence[int]


def graph_of(layers: Sequence["LayerReport"]) -> Graph:
    """The graph that the layers' `inputs` describe; where these are unknown, the report's order.

    A layer whose inputs are unknown is fed by the activation before it in the report. So is one
    whose activations are not in the report, which may show some layers only.

    The error power that a layer brings is that of a whole run (`model_float`): beside its signal,
    10^(-model_sqnr_db / 10); for sums and concatenations in its own unit, (model_rmse_scale *
    scale)^2, of a concatenation times its elements. One that lacks these figures brings as much as
    the worst that feeds it.
    """
    feeders = _named_feeders(layers)
    try:
        order = _sorted(feeders)
    except CycleError:  # not the inputs of a network
        feeders = _in_a_row(layers)
        order = _sorted(feeders)
    noise = _noises(layers, feeders, order)
    return Graph(
        [_parts(layer, found, noise) for layer, found in zip(layers, feeders, strict=True)],
        order,
    )


@dataclass(frozen=True)
class _Noise:
    """Error power of a layer in a whole run: beside its signal; of an element; of all elements."""

    relative: float = 0.0
    element: float = 0.0
    total: float = 0.0


def is_constant(layer: "LayerReport") -> bool:
    """Whether it is a weight or a bias."""
    return layer.kind in ("weight", "bias")


def _named_feeders(layers: Sequence["LayerReport"]) -> list[list[int]]:
    """The activations that each layer names, or the one before it."""
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
    """The activation before each, as in a chain."""
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
) -> list[_Noise]:
    noises = [_Noise()] * len(layers)
    for place in order:
        before = [noises[feeder] for feeder in feeders[place]]
        noises[place] = _noise(layers[place]) or _Noise(
            max((noise.relative for noise in before), default=0.0),
            max((noise.element for noise in before), default=0.0),
            max((noise.total for noise in before), default=0.0),
        )
    return noises


def _noise(layer: "LayerReport") -> _Noise | None:
    """The layer's own, None where its figures do not tell."""
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


def _parts(
    layer: "LayerReport", feeders: Sequence[int], noises: Sequence[_Noise]
) -> dict[int, float]:
    """What each brings as a share of what all bring; alike where nobody tells."""
    if layer.op in _JOINS:
        powers = [noises[feeder].total for feeder in feeders]
    elif layer.op in _SUMS:
        powers = [noises[feeder].element for feeder in feeders]
    else:
        powers = [noises[feeder].relative for feeder in feeders]
    total = math.fsum(powers)
    if not total:
        powers, total = [1.0] * len(feeders), float(len(feeders))
    shares = {feeder: power / total for feeder, power in zip(feeders, powers, strict=True)}
    return dict(sorted(shares.items(), key=lambda share: -share[1]))
