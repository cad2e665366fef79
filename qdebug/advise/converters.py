"""Converters: which tensors a converter stops quantizing when one operator is left in float."""

from collections.abc import Sequence

from qdebug.report.graph import Graph
from qdebug.report.report import LayerReport

# The operators whose tensors ONNX Runtime's quantize_static quantizes unless it is told otherwise
# (the keys of QLinearOpsRegistry and QDQRegistry in onnxruntime.quantization.registry, 1.32).
# A tensor stays quantized while any such node reads or makes it.
_ONNXRUNTIME = frozenset(
    """Add ArgMax AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum
    EmbedLayerNormalization Flatten Gather GatherElements Gemm GlobalAveragePool
    InstanceNormalization LayerNormalization LeakyRelu MatMul MaxPool Mul Pad Relu Reshape Resize
    Sigmoid Slice Softmax Split Squeeze TopK Transpose Unsqueeze Where""".split()  # noqa: SIM905
)


def is_onnx(layers: Sequence[LayerReport]) -> bool:
    """Whether a report is on ONNX models: LiteRT's operators are written in capitals.

    >>> is_onnx([LayerReport("a", op="CONV_2D")]), is_onnx([LayerReport("a", op="Conv")])
    (False, True)
    """
    return any(layer.op and not layer.op.isupper() for layer in layers)


def quantized_operators(layers: Sequence[LayerReport]) -> set[int]:
    """The layers whose operator the converter quantizes, as places in the report.

    LiteRT's all are taken to be. In ONNX an operator that is not, such as a Sqrt, has a layer only
    because a node that reads its output is quantized: to leave it in float changes nothing.
    """
    onnx = is_onnx(layers)
    with_weights = {
        tuple(layer.nodes)
        for layer in layers
        if layer.kind == "weight" and layer.metrics and layer.nodes
    }
    return {
        place
        for place, layer in enumerate(layers)
        if layer.op is not None
        and (not onnx or layer.op in _ONNXRUNTIME or tuple(layer.nodes or ()) in with_weights)
    }


def read_alone(layers: Sequence[LayerReport], graph: Graph) -> dict[int, int]:
    """Layers that are quantized only because one operator reads them -> the layer it makes.

    They are in float if that operator is: in ONNX, a model input or the output of an operator that
    is not quantized, with one reader. LiteRT's converters quantize model inputs by themselves.
    """
    if not is_onnx(layers):
        return {}
    quantized = quantized_operators(layers)
    readers: dict[int, list[int]] = {}
    for reader, feeders in enumerate(graph.feeders):
        for feeder in feeders:
            readers.setdefault(feeder, []).append(reader)
    return {
        place: found[0]
        for place, found in readers.items()
        if len(found) == 1
        and found[0] in quantized
        and place not in quantized
        and layers[place].kind == "activation"
    }
