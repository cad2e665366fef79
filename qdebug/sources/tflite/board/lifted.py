"""Lifted operators: those of the quantized graph that a switched graph can run as they are.

Such an operator runs next to its float partner, and its own kernel computes its codes. All others
are computed in float arithmetic on rounded values, which changes a few codes in 100 000.
"""

from qdebug.sources.tflite.board.gates import Gate, Gates
from qdebug.sources.tflite.graph import Graph, Operator
from qdebug.sources.tflite.layers import unique_names
from qdebug.sources.tflite.twins import Twins


def lifted(twins: Twins, floats: Graph, gates: Gates) -> dict[int, Operator]:
    """Operator of the float graph -> its partner, where the partner can run in the same graph.

    Both must read and write the same values: codes of a layer, or floats.
    """
    quantized, names = twins.quantized_graph, unique_names(twins.quantized_graph)
    own = {operator.index: operator for operator in quantized.operators}
    partners = {theirs.index: own[ours] for ours, theirs in twins.pairing.operators.items()}

    def agree(gate: Gate | None, tensor: int, codes: int) -> bool:
        """Whether a value of the float graph, behind its gate, is one of the quantized graph."""
        if gate:
            return gate.layer == names[codes]
        ours, theirs = quantized.tensors[codes], floats.tensors[tensor]
        return ours.type == theirs.type and ours.quantization is None

    def fits(operator: Operator, twin: Operator) -> bool:
        if twin.custom or len(operator.inputs) != len(twin.inputs):
            return False
        for position, (tensor, codes) in enumerate(zip(operator.inputs, twin.inputs, strict=True)):
            if min(tensor, codes) < 0 and tensor == codes:
                continue
            if min(tensor, codes) < 0 or quantized.tensors[codes].variable:
                return False
            # A constant behind DEQUANTIZE would have to be lifted with it.
            constant = floats.is_constant(floats.root[tensor])
            if constant != quantized.is_constant(codes):
                return False
            if not quantized.is_constant(codes) and not agree(
                gates.reads.get((operator.index, position)), tensor, codes
            ):
                return False
        outputs = zip(operator.outputs, twin.outputs, strict=True)
        return all(agree(gates.made.get(tensor), tensor, codes) for tensor, codes in outputs)

    return {
        operator.index: partners[operator.index]
        for operator in floats.operators
        if operator.index in gates.places and fits(operator, partners[operator.index])
    }
