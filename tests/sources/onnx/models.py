"""ONNX models of the tests: a network, its quantized forms, and plain runs of them."""

from dataclasses import asdict

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.run.session import run
from tests import oracle

onnx = pytest.importorskip("onnx", reason="needs qdebug[onnx]")
ort = pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxruntime.quantization import (  # noqa: E402
    CalibrationDataReader,
    QuantFormat,
    QuantType,
)
from onnxruntime.quantization import quantize_static as quantize_static  # noqa: E402

NODE = helper.make_node
SAMPLES = 5
ACTIVATIONS = ["x", "r1", "r6", "c2", "a", "m", "g", "f", "l", "p"]
CONSTANTS = ["w1", "b1", "wd", "bd", "w2", "b2", "wf", "bf"]


STATIC = {
    "qdq-int8": {},
    "qdq-uint8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
    "qdq-per-channel": {"per_channel": True},
    "qdq-int16": {"activation_type": QuantType.QInt16},
    "qdq-uint16": {"activation_type": QuantType.QUInt16},
    "qdq-int4-weights": {"weight_type": QuantType.QInt4, "per_channel": True},
    "qdq-uint4-weights": {"weight_type": QuantType.QUInt4},
    "qdq-float-weights": {"extra_options": {"AddQDQPairToWeight": True}, "per_channel": True},
    "qdq-dedicated": {"extra_options": {"DedicatedQDQPair": True}},
    "qdq-keeps-relu": {"extra_options": {"QDQKeepRemovableActivations": True}},
    "qop-int8": {"quant_format": QuantFormat.QOperator},
    "qop-uint8": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
    "qop-per-channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


def forms(kind):
    """Quantized forms of one kind; that with scales by channel is quick, the others are slow."""
    return [
        pytest.param(name, marks=[] if name.endswith("per-channel") else pytest.mark.slow)
        for name in STATIC
        if name.startswith(kind)
    ]


QDQ = forms("qdq")
QOPERATOR = forms("qop")


def network(seed=0, opset=21):
    """Conv, depthwise, a branch, pools, dense and softmax; ReLU and Clip where quantizers fuse."""
    rng = np.random.default_rng(seed)

    def constant(name, *shape, size=0.3):
        return numpy_helper.from_array(rng.normal(0, size, shape).astype(np.float32), name)

    nodes = [
        NODE("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1"], "relu1"),
        NODE("Conv", ["r1", "wd", "bd"], ["cd"], "depthwise", pads=[1] * 4, group=8),
        NODE("Clip", ["cd", "zero", "six"], ["r6"], "relu6"),
        NODE("Conv", ["r6", "w2", "b2"], ["c2"], "conv2"),
        NODE("Add", ["r1", "c2"], ["a"], "add"),
        NODE("MaxPool", ["a"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        NODE("GlobalAveragePool", ["m"], ["g"], "average"),
        NODE("Flatten", ["g"], ["f"], "flatten"),
        NODE("Gemm", ["f", "wf", "bf"], ["l"], "dense", transB=1),
        NODE("Softmax", ["l"], ["p"], "softmax", axis=-1),
    ]
    constants = [
        constant("w1", 8, 3, 3, 3),
        constant("b1", 8),
        constant("wd", 8, 1, 3, 3, size=1.5),
        constant("bd", 8),
        constant("w2", 8, 8, 1, 1),
        constant("b2", 8),
        constant("wf", 10, 8),
        constant("bf", 10),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]
    return made(nodes, {"x": ["N", 3, 8, 8]}, {"p": ["N", 10]}, constants, opset)


def made(nodes, inputs, outputs, constants, opset=21):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


class Calibration(CalibrationDataReader):
    """Half of what the tests feed, so that the tests clip a little."""

    def __init__(self, shape=(1, 3, 8, 8), count=4):
        rng = np.random.default_rng(7)
        self.left = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]

    def get_next(self):
        return self.left.pop() if self.left else None


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def every_tensor(path, feeds):
    """All tensors of a model that NumPy can hold, from a plain run of it."""
    model = onnx.load(path)
    for node in model.graph.node:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output)
    known = {output.name: output for output in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(known.values())
    values = dict(zip(known, session(model).run(list(known), feeds), strict=True)) | feeds
    return values | {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def runs(path, inputs):
    """`every_tensor` of all samples, stacked along the batch axis; constants once."""
    model = onnx.load(path)
    constant = {tensor.name for tensor in model.graph.initializer}
    each = [every_tensor(path, {"x": x[None]}) for x in np.load(inputs)]
    return {
        name: value if name in constant else np.concatenate([run[name] for run in each])
        for name, value in each[0].items()
        if name in constant or value.ndim
    }


def assert_figures(layer, expected):
    step = np.min(layer.scale)
    assert not oracle.disagreements(asdict(layer.metrics), expected, step), layer.name


def report_of(source, *patterns):
    return {layer.name: layer for layer in run(source, patterns).layers}


def renamed(path, new_name, target):
    """The model with every tensor and operator named by `new_name`, its inputs too."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.name = new_name(node.name) if node.name else ""
        for names in (node.input, node.output):
            names[:] = [new_name(name) if name else "" for name in names]
    for values in (graph.initializer, graph.input, graph.output, graph.value_info):
        for value in values:
            value.name = new_name(value.name)
    onnx.save(model, target)
    return target


def message(call, *args, **kwargs):
    with pytest.raises(QdebugError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    return text
