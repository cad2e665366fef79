"""An ONNX graph as the float network that it represents, with quantization removed.

QuantizeLinear and DequantizeLinear disappear, QLinearConv becomes Conv, and so on. In this form a
float graph and a quantized graph can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qdebug.sources.onnx.graph import Graph, Node

# Operators that pass on their first input under another name.
QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")
_TRANSPARENT = (*QUANTIZERS, "DequantizeLinear", "Identity", "Dropout")


@dataclass(frozen=True)
class Form:
    """How a quantized operator expresses a float one.

    Attributes:
        op: the float operator.
        operands: places of its tensors among the quantized operator's inputs, in the float
            operator's order; scale and zero point follow each (QLinear operators).
        result: places of the output's scale and zero point; None if it has none.
    """

    op: str
    operands: tuple[int, ...]
    result: tuple[int, int] | None = None


_FORMS = {
    "QLinearConv": Form("Conv", (0, 3, 8), (6, 7)),
    "QLinearMatMul": Form("MatMul", (0, 3), (6, 7)),
    "QGemm": Form("Gemm", (0, 3, 6), (7, 8)),
    "QLinearAdd": Form("Add", (0, 3), (6, 7)),
    "QLinearMul": Form("Mul", (0, 3), (6, 7)),
    "QLinearSigmoid": Form("Sigmoid", (0,), (3, 4)),
    "QLinearLeakyRelu": Form("LeakyRelu", (0,), (3, 4)),
    "QLinearAveragePool": Form("AveragePool", (0,), (3, 4)),
    "QLinearGlobalAveragePool": Form("GlobalAveragePool", (0,), (3, 4)),
    "QLinearReduceMean": Form("ReduceMean", (0,), (3, 4)),
    "QLinearSoftmax": Form("Softmax", (0,), (3, 4)),
    "ConvInteger": Form("Conv", (0, 1)),
    "MatMulInteger": Form("MatMul", (0, 1)),
    "MatMulIntegerToFloat": Form("MatMul", (0, 1)),
    "DynamicQuantizeMatMul": Form("MatMul", (0, 1)),
    "MatMulNBits": Form("MatMul", (0, 1)),
}
_INTEGER = ("ConvInteger", "MatMulInteger")


def form_of(node: Node) -> Form | None:
    """How this operator expresses a float one; None if it is a float operator itself."""
    if node.op == "QLinearConcat":
        return Form("Concat", tuple(range(2, len(node.inputs), 3)), (0, 1))
    return _FORMS.get(node.op)


@dataclass(frozen=True, eq=False)
class Operator:
    """A float operator, or a quantized one seen as float; tensors by their origins' names."""

    op: str
    index: int
    node: Node
    inputs: tuple[str, ...]  # an empty string for each omitted input
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """The operators of a graph without quantization.

    Attributes:
        graph: the graph that it represents.
        operators: in the order of execution.
        origin: any tensor -> the first tensor with the same values, except for rounding.
        aliases: origin -> all names of these values.
        producer: origin -> the operator that it is an output of.
        consumers: origin -> the operators that read it, each with its place there.
    """

    graph: Graph
    operators: Sequence[Operator]
    origin: Mapping[str, str]
    aliases: Mapping[str, Sequence[str]]
    producer: Mapping[str, Operator]
    consumers: Mapping[str, Sequence[tuple[Operator, int]]]


def network(graph: Graph) -> Network:
    """The graph with quantization removed."""
    origin: dict[str, str] = {}
    operators: list[Operator] = []
    aliases: dict[str, list[str]] = {}
    producer: dict[str, Operator] = {}
    consumers: dict[str, list[tuple[Operator, int]]] = {}
    integers: set[str] = set()  # outputs of integer operators, not yet scaled

    def origin_of(tensor: str) -> str:
        if tensor not in origin:
            origin[tensor] = tensor
            aliases.setdefault(tensor, []).append(tensor)
        return origin[tensor]

    for index, node in enumerate(graph.nodes):
        if not node.inputs or not node.outputs:
            continue
        first = origin_of(node.inputs[0])
        scaled = next((o for o in map(origin.get, node.inputs) if o in integers), None)
        if node.op in _TRANSPARENT or (scaled and node.op in ("Cast", "Mul")):
            same = scaled or first
            origin[node.outputs[0]] = same
            aliases[same].append(node.outputs[0])
            continue
        form = form_of(node)
        places = form.operands if form else tuple(range(len(node.inputs)))
        operator = Operator(
            op=form.op if form else node.op,
            index=index,
            node=node,
            inputs=tuple(node.input(place) and origin_of(node.input(place)) for place in places),
            outputs=tuple(origin_of(tensor) for tensor in node.outputs),
        )
        operators.append(operator)
        if node.op in _INTEGER:
            integers.add(operator.outputs[0])
        for output in operator.outputs:
            producer.setdefault(output, operator)
        for place, tensor in enumerate(operator.inputs):
            if tensor:
                consumers.setdefault(tensor, []).append((operator, place))
    return Network(graph, operators, origin, aliases, producer, consumers)
