"""Tunable layers: which tensors of a LiteRT pair can get other parameters. Runs nothing."""

from collections.abc import Mapping, Sequence

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.run.board import BoardLayer
from qdebug.sources.tflite.board.gates import Gates
from qdebug.sources.tflite.board.shared_scales import AS_INPUT, AS_OUTPUT, FIXED
from qdebug.sources.tflite.graph import FLOATS, PASSING, Graph, Operator
from qdebug.sources.tflite.layers import Constant, constants, unique_names
from qdebug.sources.tflite.twins import Twins

# Operators that pass on an input's codes, besides those whose ranges `shared_scales` estimates.
_MORE_AS_INPUT = frozenset(
    """BATCH_TO_SPACE_ND DEPTH_TO_SPACE EXPAND_DIMS REDUCE_MAX REVERSE_V2 SPLIT_V SPACE_TO_BATCH_ND
    SQUEEZE TILE TOPK_V2""".split()  # noqa: SIM905
)
_MORE_AS_OUTPUT = frozenset(("MINIMUM",))
# Operators whose kernels need a scale of their own for the output.
_FIXED = FIXED | {"L2_NORMALIZATION", "LOG_SOFTMAX"}
# The axis of a weight's output channels.
_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}


def _shares(operator: Operator, graph: Graph) -> list[tuple[int, int]]:
    """Pairs of tensors (that sets the scale, that has it) of an operator."""
    found: list[tuple[int, int]] = []
    if operator.op in AS_INPUT | _MORE_AS_INPUT and operator.inputs:
        place = 1 if operator.op == "SPLIT" else 0  # behind the axis
        found += [(operator.inputs[place], output) for output in operator.outputs]
    elif operator.op in AS_OUTPUT | _MORE_AS_OUTPUT and operator.outputs:
        found += [(operator.outputs[0], tensor) for tensor in operator.inputs]
    return [
        (first, second)
        for first, second in found
        if min(first, second) >= 0 and _same(graph, first, second)
    ]


def _same(graph: Graph, first: int, second: int) -> bool:
    """Whether two tensors are codes of one scale and zero point."""
    one, two = graph.tensors[first], graph.tensors[second]
    if one.quantization is None or two.quantization is None or one.type != two.type:
        return False
    return np.array_equal(one.quantization.scale, two.quantization.scale) and np.array_equal(
        one.quantization.zero_point, two.quantization.zero_point
    )


def _leaders(graph: Graph) -> dict[int, int]:
    """Tensor -> the one whose scale it must have."""
    leader: dict[int, int] = {}

    def root(tensor: int) -> int:
        while tensor in leader:
            tensor = leader[tensor]
        return tensor

    for operator in graph.operators:
        for first, second in _shares(operator, graph):
            ours, theirs = root(first), root(second)
            if ours != theirs:
                leader[theirs] = ours
    return {tensor: root(tensor) for tensor in leader}


def followers(quantized: Graph) -> dict[str, list[str]]:
    """Layer -> the layers whose codes have its scale, because an operator shares it."""
    names = unique_names(quantized)
    found: dict[str, list[str]] = {}
    for tensor, leader in _leaders(quantized).items():
        found.setdefault(names[leader], []).append(names[tensor])
    return found


def values_of(gates: Gates, floats: Graph) -> dict[str, int]:
    """Activation -> the tensor of the float graph that it quantizes."""
    found: dict[str, int] = {}
    for tensor, gate in gates.made.items():
        found.setdefault(gate.layer, tensor)
    inputs = {operator.index: operator.inputs for operator in floats.operators}
    for (operator, position), gate in gates.reads.items():
        found.setdefault(gate.layer, inputs[operator][position])
    return found


def tunable_layers(
    twins: Twins, gates: Gates, floats: Graph, following: Mapping[str, Sequence[str]]
) -> list[BoardLayer]:
    """The layers that can be changed, in the order of execution.

    Left out are biases, codes whose scale a kernel or another layer sets, and weights of operators
    that quantize their input at run time, which is not computed here.
    """
    graph = twins.quantized_graph
    names = unique_names(graph)
    followed = {follower for found in following.values() for follower in found}
    fixed = {
        names[tensor]
        for operator in graph.operators
        if operator.op in _FIXED
        for tensor in operator.outputs
    }
    fixed |= {names[tensor.index] for tensor in graph.tensors if graph.is_constant(tensor.index)}
    left_out = fixed | followed

    touching: dict[str, set[int]] = {}
    for gate in (*gates.made.values(), *gates.reads.values(), *gates.ends.values()):
        touching.setdefault(gate.layer, set()).update(gate.switch or ())
    for read, weight in gates.weights.items():
        if read[0] in gates.places:
            touching.setdefault(weight.layer, set()).add(gates.places[read[0]])

    def layer(name: str, kind: str, params: QuantParams, axis: int | None = None) -> BoardLayer:
        places = set(touching.get(name, ()))
        for follower in following.get(name, ()):
            places |= touching.get(follower, set())
        return BoardLayer(name, kind, params, frozenset(places), axis)

    weights = _weights(twins, gates)
    known = values_of(gates, floats)
    result: dict[str, BoardLayer] = {}
    for tensor in graph.inputs:
        name = names[tensor]
        if name in known and name not in left_out:
            result[name] = layer(name, "activation", gates.params[name])
    for operator in graph.operators:
        for tensor in operator.inputs:
            name = names[graph.root[tensor]] if tensor >= 0 else ""
            if name in weights and name not in followed and name not in following:
                params, axis = weights[name]
                result.setdefault(name, layer(name, "weight", params, axis))
        for tensor in operator.outputs:
            name = names[tensor]
            if name in known and name not in left_out and gates.params[name].channels == 1:
                result.setdefault(name, layer(name, "activation", gates.params[name]))
    return [found for found in result.values() if found.operators]


def _weights(twins: Twins, gates: Gates) -> dict[str, tuple[QuantParams, int | None]]:
    """The weights that can be changed: their parameters and axis of output channels."""
    graph = twins.quantized_graph
    operators = {operator.index: operator for operator in graph.operators}
    known = {weight.layer for weight in gates.weights.values()}
    found: dict[str, tuple[QuantParams, int | None]] = {}
    for index, constant in constants(
        graph, twins.float_graph, twins.pairing.operators, unique_names(graph)
    ):
        if not isinstance(constant, Constant) or constant.layer.kind != "weight":
            continue
        operator = operators[index]
        if constant.layer.name not in known or _is_hybrid(operator, constant.tensor, graph):
            continue
        is_weight = (
            len(operator.inputs) > 1
            and operator.inputs[1] >= 0
            and graph.root[operator.inputs[1]] == constant.tensor
        )
        axis = _CHANNELS.get(operator.op) if is_weight else None
        found[constant.layer.name] = constant.layer.params, axis
    return found


def _is_hybrid(operator: Operator, weight: int, graph: Graph) -> bool:
    """Whether an operator reads a weight's codes and also floats."""
    return (
        operator.op not in PASSING
        and weight in operator.inputs
        and any(
            tensor >= 0 and graph.is_computed(tensor) and graph.tensors[tensor].type in FLOATS
            for tensor in operator.inputs
        )
    )
