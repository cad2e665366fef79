"""Local references for QOperator models: the float operator beside each quantized one.

QLinearConv and its like hold no float tensor. So a Conv is put beside it, with the float model's
weights, fed with what the quantized operator is fed with, dequantized: the reference that TFLite's
NumericVerify takes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError
from qdebug.sources.onnx.graph import Additions, Graph
from qdebug.sources.onnx.match import Pair, constant_arrays, constant_shape
from qdebug.sources.onnx.network import Network, Operator, form_of

if TYPE_CHECKING:
    import onnx

# Attributes that quantized operators have and float ones do not need, with the value that says so.
_IDLE_ATTRIBUTES = {"channels_last": 0}

# Since this operator set Softmax works on one axis; before, on all from its axis on.
_SOFTMAX_SET = 13


def with_local_references(
    net: Network, floating: Graph, pairs: Sequence[Pair]
) -> tuple[list[Pair], Additions]:
    """The pairs, those without a float tensor in the graph given one, and what makes it."""
    import onnx

    builder = _Builder(net, floating, pairs)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    extended = []
    for pair in pairs:
        operator = pair.tensor.operator
        if operator and not pair.tensor.is_constant and not pair.tensor.floats:
            made = builder.beside(operator)
            if made:
                nodes += made.nodes
                constants |= {tensor.name: tensor for tensor in made.constants}
                pair = replace(pair, tensor=replace(pair.tensor, floats=made.nodes[-1].output[0]))
        extended.append(pair)
    return extended, Additions(nodes, list(constants.values()))


class _Builder:
    """Makes float operators for quantized ones."""

    def __init__(self, net: Network, floating: Graph, pairs: Sequence[Pair]) -> None:
        self._graph = net.graph
        self._floating = floating
        self._constants = {pair.tensor.codes: pair for pair in pairs if pair.tensor.is_constant}
        self._origin = net.origin
        self._taken = set(net.origin)

    def beside(self, operator: Operator) -> Additions | None:
        """The float operator and what feeds it; None where there is no such operator."""
        from onnx import helper, numpy_helper

        form = form_of(operator.node)
        attributes = self._attributes(operator)
        if form is None or attributes is None:
            return None
        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.TensorProto] = []
        inputs: list[str] = []
        for index in form.operands:
            codes = operator.node.input(index)
            if not codes:
                inputs.append("")
                continue
            name = self._new(codes)
            inputs.append(name)
            if self._graph.is_constant(self._origin.get(codes, codes)):
                values = self._values(self._origin.get(codes, codes))
                if values is None:
                    return None
                constants.append(numpy_helper.from_array(values, name))
            else:
                parts = [codes, operator.node.input(index + 1), operator.node.input(index + 2)]
                nodes.append(helper.make_node("DequantizeLinear", parts, [name]))
        output = self._new(operator.outputs[0])
        return Additions(
            [*nodes, helper.make_node(form.op, inputs, [output], **attributes)], constants
        )

    def _values(self, codes: str) -> NDArray[np.float32] | None:
        """A weight or bias: the float model's own, else what the codes stand for."""
        pair = self._constants.get(codes)
        if pair is None:
            return None
        try:
            constant_shape(pair, self._graph, self._floating)
            floats = constant_arrays(pair, self._graph, self._floating).floats
        except FieldError:
            return None
        return np.ascontiguousarray(floats, np.float32)

    def _attributes(self, operator: Operator) -> dict[str, Any] | None:
        """The float operator's attributes; None where it does not have one that matters."""
        from onnx import defs

        version = next(
            (o.version for o in self._graph.model.opset_import if o.domain in ("", "ai.onnx")), 0
        )
        try:
            known = defs.get_schema(operator.op, version).attributes
        except defs.SchemaError:
            return None
        kept = dict(operator.node.attributes)
        for name, value in _IDLE_ATTRIBUTES.items():
            if kept.get(name) == value:
                del kept[name]
        softmax_version = kept.pop("opset", version) if operator.op == "Softmax" else version
        if (softmax_version < _SOFTMAX_SET) != (version < _SOFTMAX_SET):
            return None
        return kept if kept.keys() <= known.keys() else None

    def _new(self, tensor: str) -> str:
        """A name that no tensor has yet."""
        name = f"{tensor}/float"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
