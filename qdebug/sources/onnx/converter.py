"""Converter: which tensors ONNX Runtime's quantizer quantizes when it leaves nodes out.

Follows onnxruntime.quantization's QDQQuantizer (qdq_quantizer.py and operators/): node by node, in
the order of the float model, each quantized node marks the tensors that it touches, and a marked
tensor gets one QuantizeLinear for all its readers.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from qdebug.sources.onnx.network import Network, Operator

# Operators that pass values on: their output is quantized if their input is.
_FOLLOWERS = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "AveragePool", "Slice", "TopK",
    "Resize", "MaxPool",
)  # fmt: skip
_REMOVABLE = ("Relu", "Clip")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
_NORMS = ("InstanceNormalization", "LayerNormalization", "BatchNormalization")
_GATHERS = ("Gather", "GatherElements")
# Quantized like any other: all inputs, all outputs.
_PLAIN = (
    "MatMul", "Pad", "CumSum", "EmbedLayerNormalization", "Attention", "LSTM", "ArgMax", "Add",
    "Mul", "LeakyRelu", "Sigmoid", "GlobalAveragePool", "Concat", "Softmax",
)  # fmt: skip
# Of those, operators whose other inputs may be whole numbers, and those whose outputs are.
_FLOATS_FIRST = ("Pad", "CumSum", "EmbedLayerNormalization", "Attention", "LSTM")
_WHOLE_NUMBERS = ("ArgMax",)
_KNOWN = {
    *_FOLLOWERS, *_REMOVABLE, *_WEIGHTED, *_NORMS, *_GATHERS, *_PLAIN, "Split", "Where",
}  # fmt: skip

# Older versions of these are left alone.
_SINCE = {"MaxPool": 12, "Resize": 11}

_BIAS = 2
_FLOATS = (1, 10)  # TensorProto.FLOAT and FLOAT16


class Converter:
    """The quantizer's rule for one float model, with settings read off a quantized model.

    An option of the quantizer says which operators it quantizes at all. This is read off the
    quantized model: an operator counts if all tensors that it would mark are quantized there, and
    if the same holds for at least half of the operators of its kind.

    Attributes:
        operators: those that are quantized, in order.
    """

    def __init__(
        self,
        net: Network,
        quantized: Collection[str],
        merged: Mapping[str, str],
        absorbed: Collection[Operator],
    ) -> None:
        """Find out which operators are quantized.

        Args:
            net: the float model.
            quantized: origins of the tensors and constants that the quantized model quantizes.
            merged: origins before an absorbed operator -> the origin after it.
            absorbed: operators that the quantized model does not have.
        """
        self._net = net
        self._quantized = quantized
        self._merged = merged
        self._stored = {tensor.name for tensor in net.graph.model.graph.initializer}
        self._version = max(
            (o.version for o in net.graph.model.opset_import if o.domain in ("", "ai.onnx")),
            default=0,
        )
        known = [
            operator
            for operator in net.operators
            if operator not in absorbed
            and operator.op in _KNOWN
            and self._version >= _SINCE.get(operator.op, 0)
        ]
        everywhere = quantized.__contains__
        whole, partly = Counter[str](), Counter[str]()
        complete = set()
        for operator in known:
            marks = [self._name(t) for t in self._marks(operator, everywhere)]
            found = [tensor in quantized for tensor in marks]
            if found and all(found):
                whole[operator.op] += 1
                complete.add(operator)
            elif any(found):
                partly[operator.op] += 1
        self.operators = [o for o in known if o in complete and whole[o.op] >= partly[o.op]]

    def marked(self, left: Collection[Operator] = ()) -> set[str]:
        """Origins of the tensors that are quantized if these operators are left in float."""
        marked: set[str] = set()
        for operator in self.operators:
            if operator not in left:
                tensors = (self._name(t) for t in self._marks(operator, marked.__contains__))
                marked.update(t for t in tensors if t in self._quantized)
        return marked | {t for operator in left for t in self._at_load(operator, marked)}

    def _at_load(self, operator: Operator, marked: Collection[str]) -> Iterator[str]:
        """The constants of an operator in float that onnxruntime quantizes when it loads a model.

        Its default optimizations (weight_bias_quantization.cc) quantize the weights and the bias of
        a Conv, ConvTranspose or Gemm in float whose input and output are quantized tensors.
        """
        if operator.op in _WEIGHTED and operator.outputs:
            ends = operator.inputs[0], operator.outputs[0]
            if all(self._name(tensor) in marked for tensor in ends):
                yield from (t for t in operator.inputs[1:] if t in self._quantized)

    def _name(self, tensor: str) -> str:
        return self._merged.get(tensor, tensor)

    def _marks(self, operator: Operator, is_marked: Callable[[str], bool]) -> Iterator[str]:
        """The tensors that an operator marks, given those that earlier ones marked."""
        inputs, outputs = operator.inputs, [t for t in operator.outputs if t]
        first = inputs[0] if inputs else ""
        follows = is_marked(self._name(first))
        if operator.op in _FOLLOWERS:
            if follows:
                yield from outputs[:1]
        elif operator.op in _REMOVABLE:
            if follows:
                yield from (first, *outputs)
        elif operator.op in _GATHERS:
            if self._is_float_constant(first):
                yield first
            if self._is_float_constant(first) or follows:
                yield from outputs
        elif operator.op == "Where":
            if all(is_marked(self._name(t)) for t in inputs[1:3]):
                yield from outputs
        elif operator.op in (*_WEIGHTED, *_NORMS):
            yield from (*inputs[:_BIAS], *outputs)  # a bias is quantized if its operator is
        elif operator.op == "Split":
            yield from (first, *outputs)
        elif operator.op in _FLOATS_FIRST:
            yield first
            yield from (tensor for tensor in inputs[1:] if self._is_float_constant(tensor))
            yield from outputs
        else:
            for tensor in inputs:
                if tensor and (
                    not self._net.graph.is_constant(tensor) or self._is_float_constant(tensor)
                ):
                    yield tensor
            if operator.op not in _WHOLE_NUMBERS:
                yield from outputs

    def _is_float_constant(self, tensor: str) -> bool:
        """Whether it is stored with the model; the quantizer sees no other constants."""
        return tensor in self._stored and self._net.graph.code_type(tensor) in _FLOATS
