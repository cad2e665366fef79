"""Lifted operators: those of the quantized graph that a switched graph can run as they are.

Such an operator stands beside its float partner, and its own kernel computes its codes. The others
are computed in float arithmetic on rounded values, which differs in a few codes of 100 000.
"""

from collections.abc import Set

from qdebug.sources.tflite.gates import Gates
from qdebug.sources.tflite.graph import Graph, Operator
from qdebug.sources.tflite.layers import unique_names
from qdebug.sources.tflite.twins import Twins


def lifted(twins: Twins, floats: Graph, gates: Gates, changed: Set[str]) -> dict[int, Operator]:
    """Operator of the float graph -> its partner, where the partner can run in the same graph.

    All its float inputs and outputs must be codes of layers with one set of parameters, none of
    them `changed`.
    """
    quantized, names = twins.quantized_graph, unique_names(twins.quantized_graph)
    own = {operator.index: operator for operator in quantized.operators}
    partners = {theirs.index: own[ours] for ours, theirs in twins.pairing.operators.items()}

    def is_whole(operator: Operator, twin: Operator) -> bool:
        if twin.custom or len(operator.inputs) != len(twin.inputs):
            return False
        for output, codes in zip(operator.outputs, twin.outputs, strict=True):
            gate = gates.made.get(output)
            if not gate or gate.layer != names[codes] or gate.own or gate.layer in changed:
                return False
        for position, (tensor, codes) in enumerate(zip(operator.inputs, twin.inputs, strict=True)):
            gate = gates.reads.get((operator.index, position))
            if gate:
                if gate.layer != names[codes] or gate.own or gate.layer in changed:
                    return False
            elif codes >= 0 and quantized.is_constant(codes):
                if names[codes] in changed:
                    return False
            elif (
                codes >= 0
                and (tensor < 0 or quantized.tensors[codes].type != floats.tensors[tensor].type)
            ) or (codes >= 0 and floats.tensors[tensor].type == "FLOAT32"):
                return False
        return not any(quantized.tensors[t].variable for t in twin.inputs if t >= 0)

    return {
        operator.index: partners[operator.index]
        for operator in floats.operators
        if operator.index in gates.places
        and operator.index in partners
        and is_whole(operator, partners[operator.index])
    }
