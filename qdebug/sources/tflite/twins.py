"""Twins: a float and a quantized TFLite model of one network, or one model in debug mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.sources.tflite.graph import VERIFY, Graph, Operator
from qdebug.sources.tflite.layers import Constant
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.pairing import Pairing, pair, similarity

# Cosine of two models' weights. The same network: 0.999 for int8, 0.99 for int4. Two trainings of
# one network: -0.05 to 0.39 (measured on the five weights of the sample network).
_SAME_WEIGHTS = 0.5
# Fewer weights than this agree or disagree by chance.
_ENOUGH_WEIGHTS = 16


@dataclass(frozen=True, eq=False)
class Twins:
    """A quantized graph, its float graph, and the pairing of their tensors and operators.

    In TFLite's debug mode both are parts of one model; `verified` then maps each quantized tensor
    to the float tensor that NumericVerify compares it with. `scaffolding` is the set of debug
    mode's tensors that do not belong to the quantized model proper.
    """

    quantized: Model
    quantized_graph: Graph
    floats: Model
    float_graph: Graph
    pairing: Pairing
    verified: Mapping[int, int]
    scaffolding: frozenset[int]

    @property
    def in_one(self) -> bool:
        """Whether both graphs belong to one model, in TFLite's debug mode."""
        return self.quantized is self.floats


def open_twins(models: Sequence[Model], notes: list[str]) -> Twins:
    """The two graphs and their pairing; what the user should know about them goes to `notes`.

    Raises:
        QdebugError: `models` is neither a float and a quantized model of one network, nor a single
            model in debug mode.
    """
    for model in models:
        notes += model.notes
    if len(models) == 1 and _verifiers(models[0].graph):
        return _debug_twins(models[0])
    if len(models) != 2:
        raise QdebugError(
            f"{', '.join(printable(model.path) for model in models)}: found {len(models)} "
            f"model{'s' * (len(models) != 1)}, expected a float and a quantized one, or one in "
            "TFLite's debug mode, with NumericVerify operators"
        )
    floats, quantized = _in_order(models[0], models[1], notes)
    graph, scaffolding = _live(quantized.graph)
    if scaffolding:
        notes.append(
            f"{printable(quantized.path)}: its NumericVerify operators are left out, because the "
            f"reference is {printable(floats.path)}"
        )
    pairing = pair(graph, floats.graph)
    if not pairing.operators:
        raise QdebugError(
            f"{_both(floats, quantized)} are not the same network: no operator in one has a "
            "partner in the other"
        )
    return Twins(quantized, graph, floats, floats.graph, pairing, {}, scaffolding)


def check_same_network(twins: Twins, constants: Sequence[object]) -> None:
    """Check that the two models' weights agree; in `constants`, only paired weights count.

    Raises:
        QdebugError: more than half of them disagree.
    """
    alike = {}
    for entry in constants:
        if isinstance(entry, Constant) and entry.layer.kind == "weight":
            tensors = (twins.quantized_graph, entry.tensor, twins.float_graph, entry.partner)
            cosine = similarity(*tensors, least=_ENOUGH_WEIGHTS)
            if cosine is not None:
                alike[entry.layer.name] = cosine
    apart = [name for name, cosine in alike.items() if cosine < _SAME_WEIGHTS]
    if 2 * len(apart) > len(alike):
        worst = min(apart, key=lambda name: alike[name])
        raise QdebugError(
            f"{_both(twins.floats, twins.quantized)} are not the same network: {len(apart)} of "
            f"{len(alike)} weights do not agree ('{printable(worst)}': cosine {alike[worst]:.2f}, "
            "expected about 1)"
        )


def _in_order(first: Model, second: Model, notes: list[str]) -> tuple[Model, Model]:
    """The float and the quantized one of two models.

    Raises:
        QdebugError: they are one model, both are quantized, or none is.
    """
    if first.content == second.content:
        raise QdebugError(
            f"{_both(first, second)} are the same model, expected a float and a quantized one"
        )
    # Quantized activations count before quantized weights, which a float model may have too.
    swapped = _quantized(first.graph) > _quantized(second.graph)
    floats, quantized = (second, first) if swapped else (first, second)
    activations, weights = _quantized(floats.graph)
    if not any(_quantized(quantized.graph)):
        raise QdebugError(
            f"{_both(first, second)}: found no quantized tensor in either, expected a float model "
            "and a quantized one"
        )
    if activations:
        raise QdebugError(
            f"{_both(first, second)} are both quantized, expected a float model and a quantized one"
        )
    if swapped:
        notes.append(
            f"{printable(first.path)} is the quantized model and {printable(second.path)} the "
            "float one; their order was swapped"
        )
    if weights:
        notes.append(
            f"{printable(floats.path)}: {weights} of its weights are quantized; the reference uses "
            "their dequantized values, in float arithmetic"
        )
    return floats, quantized


def _both(first: Model, second: Model) -> str:
    return f"{printable(first.path)} and {printable(second.path)}"


def _quantized(graph: Graph) -> tuple[int, int]:
    """The numbers of quantized activations and of quantized constants."""
    found = [tensor.index for tensor in graph.tensors if tensor.quantization is not None]
    return sum(map(graph.is_computed, found)), sum(map(graph.is_constant, found))


def _verifiers(graph: Graph) -> list[Operator]:
    return [
        operator
        for operator in graph.operators
        if operator.custom
        and operator.op == VERIFY
        and len(operator.inputs) == 2
        and min(operator.inputs) >= 0
    ]


def _live(graph: Graph) -> tuple[Graph, frozenset[int]]:
    """The quantized model within one in debug mode, and the tensors that do not belong to it."""
    if not _verifiers(graph):
        return graph, frozenset()
    needed = graph.needed(graph.outputs)
    live = graph.without({operator.index for operator in graph.operators} - needed)
    kept = {tensor for operator in live.operators for tensor in operator.inputs + operator.outputs}
    kept.update(graph.inputs)
    return live, frozenset(range(len(graph.tensors))) - kept


def _debug_twins(model: Model) -> Twins:
    """The quantized and float operators of a model in debug mode, paired by NumericVerify."""
    verifiers = _verifiers(model.graph)
    both = model.graph.without({operator.index for operator in verifiers})
    verified = {operator.inputs[0]: operator.inputs[1] for operator in verifiers}
    operators = {}
    for codes, values in verified.items():
        ours, theirs = both.producer.get(codes), both.producer.get(values)
        if ours and theirs and ours.op == theirs.op:
            operators[ours.index] = theirs
    inputs = {both.root[tensor]: both.root[tensor] for tensor in both.inputs}
    live, scaffolding = _live(model.graph)
    return Twins(model, live, model, both, Pairing(inputs, operators), verified, scaffolding)
