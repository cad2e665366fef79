"""The quantized tensors of an ONNX graph: their codes, scales and zero points."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, Rounding
from qdebug.errors import FieldError
from qdebug.sources.onnx.graph import CODE_TYPES, Graph, Node
from qdebug.sources.onnx.network import Network, Operator, form_of

# An operator that packs its weights in its own layout.
PACKED = "MatMulNBits"

# QuantizeLinear rounds halves to even; so do onnxruntime's integer kernels and NumPy, with which
# quantizers make the weights.
_ROUNDING: Rounding = "half_even"

# Operators whose third operand is a bias.
_BIASED = ("Conv", "ConvTranspose", "Gemm")
_BIAS = 2
_INT32 = 6

# Operators whose result depends only on their input's shape.
_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class Quantized:
    """A quantized tensor.

    Attributes:
        codes: the tensor that holds the codes.
        floats: the input of the QuantizeLinear that makes the codes; empty if there is none.
        scale: constants whose product is the scale; empty if it is not constant.
        zero_point: a constant, or empty for 0.
        axis: the axis of a scale or zero point that is a vector.
        block: the number of elements along that axis that share a scale; 0 if all do.
        code_type: protobuf's number of the code type.
        is_constant: a weight or a bias: its values are in the model.
        operator: the operator that reads a constant or makes any other tensor; None if there is
            none.
        place: of a constant among that operator's operands.
    """

    codes: str
    floats: str
    scale: tuple[str, ...]
    zero_point: str
    axis: int
    block: int
    code_type: int
    is_constant: bool
    operator: Operator | None
    place: int

    @property
    def kind(self) -> str:
        """What it is, in a Layer's words."""
        if not self.is_constant:
            return "activation"
        is_bias = self.operator and self.operator.op in _BIASED and self.place == _BIAS
        return "bias" if is_bias or self.code_type == _INT32 else "weight"

    @property
    def tensor(self) -> str:
        """Its name in this graph, for messages."""
        return self.floats or self.codes

    @property
    def key(self) -> tuple[str, ...]:
        """Two QuantizeLinear of one tensor with the same constants make the same codes."""
        return (self.tensor, *self.scale, self.zero_point)


def quantized_tensors(net: Network) -> list[Quantized]:
    """All quantized tensors, each before the next operator's: weights, biases, then its output."""
    found: dict[tuple[str, ...], Quantized] = {}
    for node in net.graph.nodes:
        for tensor in _of_node(net, node):
            found.setdefault(tensor.key, tensor)
    return sorted(
        found.values(),
        key=lambda t: (t.operator.index if t.operator else -1, not t.is_constant, t.place),
    )


def slice_axis(tensor: Quantized, shape: tuple[int, ...]) -> int:
    """The axis whose slices may have magnitudes of their own; 0 if there is none.

    That of a Concat is its own. Else it is that of channels: 1 for four axes and more, the last for
    fewer.
    """
    axis = 1 if len(shape) > 3 else len(shape) - 1
    if tensor.operator and tensor.operator.op == "Concat":
        given = tensor.operator.node.attributes.get("axis", axis)
        axis = given % len(shape) if -len(shape) <= given < len(shape) else axis
    return max(axis, 0)


def feeders(net: Network, layers: Mapping[str, Quantized]) -> dict[str, tuple[str, ...]]:
    """Layer -> the layers nearest upstream, in its operator's input order.

    The input of a Shape does not count, because Shape uses only its size, not its values.
    """
    names = {tensor.key: name for name, tensor in layers.items()}
    maker = {output: node for node in net.graph.nodes for output in node.outputs}
    made: dict[str, str] = {}  # codes -> the layer that they are
    given: dict[Node, dict[str, str]] = {}  # operator -> codes that it takes -> their layer
    for node in net.graph.nodes:
        for tensor in _of_node(net, node):
            name = names.get(tensor.key)
            if name is not None:
                own = tensor.codes in node.outputs
                (made if own else given.setdefault(node, {}))[tensor.codes] = name

    def reads(tensor: str) -> list[tuple[Node, str]]:
        """The inputs of a tensor's operator, the last first."""
        node = maker.get(tensor)
        if node is None or node.op in _SHAPES:
            return []
        return [(node, read) for read in reversed((*node.inputs, *node.inner_inputs)) if read]

    def nearest(tensor: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        seen: set[tuple[Node, str]] = set()
        waiting = reads(tensor)
        while waiting:
            current = node, read = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            layer = given.get(node, {}).get(net.origin.get(read, read), made.get(read))
            if layer is not None:
                found[layer] = None
            else:
                waiting += reads(read)
        return tuple(found)

    return {
        name: () if tensor.is_constant else nearest(tensor.codes) for name, tensor in layers.items()
    }


def _of_node(net: Network, node: Node) -> Iterator[Quantized]:
    """The quantized tensors that one node defines."""
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        if len(node.inputs) < 2 or not node.outputs:
            return
        quantizes = node.op == "QuantizeLinear"
        codes = node.outputs[0] if quantizes else _given(net, node.inputs[0])
        if codes:
            yield _quantized(
                net,
                codes,
                floats=node.inputs[0] if quantizes else "",
                scale=(node.input(1),),
                zero_point=node.input(2),
                axis=node.attributes.get("axis", 1),
                block=node.attributes.get("block_size", 0),
                output_type=node.attributes.get("output_dtype", 0) if quantizes else 0,
            )
        return
    if node.op == "DynamicQuantizeLinear" and node.inputs and node.outputs:
        yield _quantized(net, node.outputs[0], node.inputs[0], ("",), "", 0)
    form = form_of(node)
    if form is None:
        return
    for place, index in enumerate(form.operands):
        if codes := _given(net, node.input(index)):
            scale, zero_point = _operand_scale(net, node, place, index)
            yield _quantized(net, codes, "", scale, zero_point, _operand_axis(node, place))
    if form.result and node.input(form.result[0]) and node.outputs:
        yield _quantized(
            net, node.outputs[0], "", (node.input(form.result[0]),), node.input(form.result[1]), 0
        )


def _given(net: Network, codes: str) -> str:
    """The constant or model input that these codes are; empty for codes made in the graph."""
    graph, origin = net.graph, net.origin.get(codes, codes)
    if graph.is_constant(origin):
        return origin if graph.code_type(origin) in CODE_TYPES else ""
    if origin in graph.inputs:
        return origin if graph.inputs[origin].dtype.kind in "iu" else ""
    return ""


def _quantized(
    net: Network,
    codes: str,
    floats: str,
    scale: tuple[str, ...],
    zero_point: str,
    axis: int,
    block: int = 0,
    output_type: int = 0,
) -> Quantized:
    graph = net.graph
    origin = net.origin.get(codes, codes)
    is_constant = graph.is_constant(origin)
    operator, place = net.producer.get(origin), 0
    if is_constant and net.consumers.get(origin):
        operator, place = net.consumers[origin][0]
    is_known = all(graph.is_constant(name) for name in scale) and (
        not zero_point or graph.is_constant(zero_point)
    )
    return Quantized(
        codes=codes,
        floats=origin if floats and is_constant else floats,
        scale=scale if is_known else (),
        zero_point=zero_point,
        axis=axis,
        block=block,
        code_type=_code_type(graph, codes, zero_point, output_type),
        is_constant=is_constant,
        operator=operator,
        place=place,
    )


def _code_type(graph: Graph, codes: str, zero_point: str, output_type: int) -> int:
    """The code type: of the codes, of their zero point, or of QuantizeLinear (default uint8)."""
    for tensor in (codes, zero_point):
        if tensor and graph.is_constant(tensor):
            return graph.code_type(tensor)
    if codes in graph.inputs:
        name = graph.inputs[codes].dtype.name
        return next((number for number, known in CODE_TYPES.items() if known[0] == name), 0)
    return output_type or 2


def _operand_scale(net: Network, node: Node, place: int, index: int) -> tuple[tuple[str, ...], str]:
    """The constants whose product is an operand's scale, and its zero point."""
    if node.op == "MatMulIntegerToFloat":
        return (node.input(2 + place),), node.input(4 + place)
    if node.op == "DynamicQuantizeMatMul":
        return (node.input(2),), node.input(3)
    if node.op in ("ConvInteger", "MatMulInteger"):
        return _factor(net, node.outputs[0]), node.input(2 + place)
    if place == _BIAS and node.op in ("QLinearConv", "QGemm"):
        return (node.input(1), node.input(4)), ""
    if node.op == PACKED:
        return (), ""
    return (node.input(index + 1),), node.input(index + 2)


def _factor(net: Network, product: str) -> tuple[str, ...]:
    """The constant that an integer product is finally multiplied by: the weights' scale.

    The graph computes product * (input scale * weight scale); the input scale is not constant.
    """
    for node in net.graph.nodes:
        if node.op == "Mul" and product in (net.origin.get(name) for name in node.inputs):
            for name in node.inputs:
                made = net.producer.get(name)
                factors = made.inputs if made and made.op == "Mul" else (name,)
                constant = tuple(f for f in factors if net.graph.is_constant(f))
                if len(constant) == 1:
                    return constant
    return ("",)


def _operand_axis(node: Node, place: int) -> int:
    """The channel axis of a weight: the axis of its output channels."""
    if node.op == "QGemm" and place == 1:
        return 0 if node.attributes.get("transB") else 1
    if "MatMul" in node.op:
        return -2 if place == 0 else -1
    return 0


def scale_and_zero_point(
    graph: Graph, tensor: Quantized
) -> tuple[str, int, NDArray[np.float64], NDArray[Any]]:
    """The codes' type and bits, the scale and the zero point; one number has shape ().

    Raises:
        FieldError: the constants are of the wrong type or cannot be decoded.
    """
    if tensor.code_type not in CODE_TYPES:
        raise FieldError(
            "quantized", found=f"codes of ONNX type {tensor.code_type}", expected="integers"
        )
    dtype, bits = CODE_TYPES[tensor.code_type]
    factors = [
        _squeezed(np.asarray(graph.constant(name, "scale"), np.float64)) for name in tensor.scale
    ]
    if len({factor.shape for factor in factors if factor.ndim}) > 1:
        found = " and ".join(str(factor.shape) for factor in factors)
        raise FieldError("scale", found=f"factors of shape {found}", expected="one shape")
    scale = np.asarray(math.prod(factors))
    zero_point = (
        graph.constant(tensor.zero_point, "zero_point") if tensor.zero_point else np.zeros((), int)
    )
    if zero_point.dtype.kind not in "iu":
        raise FieldError("zero_point", found=str(zero_point.dtype), expected="integers")
    return dtype, bits, scale, _squeezed(zero_point)


def axis_of(tensor: Quantized, shape: Sequence[int]) -> int:
    """The axis of the scales, from 0.

    Raises:
        FieldError: a tensor of this shape has no such axis.
    """
    if not -len(shape) <= tensor.axis < len(shape):
        raise FieldError(
            "axis", found=str(tensor.axis), expected=f"an axis of a tensor of {len(shape)} axes"
        )
    return tensor.axis % len(shape)


def quant_params(graph: Graph, tensor: Quantized, shape: Sequence[int]) -> QuantParams:
    """How codes of this shape are quantized, unless blocks of them have scales of their own.

    Raises:
        FieldError: the constants are not a valid scale and zero point for this shape.
    """
    dtype, bits, scale, zero_point = scale_and_zero_point(graph, tensor)
    if not scale.ndim and not zero_point.ndim:
        return QuantParams.of(scale, zero_point, dtype, bits=bits, rounding=_ROUNDING)
    axis = axis_of(tensor, shape)
    params = QuantParams.of(scale, zero_point, dtype, axis=axis, bits=bits, rounding=_ROUNDING)
    if params.channels not in (1, shape[axis]):
        expected = " or ".join(map(str, sorted({1, shape[axis]})))
        raise FieldError(
            "scale",
            found=f"{params.channels} values",
            expected=f"{expected}: axis {axis} has {shape[axis]}",
        )
    return params


def _squeezed(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(()) if values.size == 1 else values
