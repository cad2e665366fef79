"""A live pair of ONNX models: quantized by onnxruntime, measured against a plain run of it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from qdebug import engine
from qdebug.sources.onnx import OnnxModels
from tests import oracle

onnx = pytest.importorskip("onnx", reason="needs qdebug[onnx]")
ort = pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxruntime.quantization import (  # noqa: E402
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

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
QDQ = [name for name in STATIC if name.startswith("qdq")]
QOPERATOR = [name for name in STATIC if name.startswith("qop")]


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


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Paths: of the float model, of each quantized one, of the inputs."""
    folder = tmp_path_factory.mktemp("onnx")
    onnx.save(network(), folder / "float.onnx")
    for name, options in STATIC.items():
        options = {"quant_format": QuantFormat.QDQ, **options}
        quantize_static(folder / "float.onnx", folder / f"{name}.onnx", Calibration(), **options)
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    rng = np.random.default_rng(11)
    np.save(folder / "x.npy", rng.normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32))
    return folder


@pytest.fixture
def opened(models):
    def open_pair(quantized="qdq-int8", floating="float", inputs="x.npy", **options):
        paths = [
            str(p) if isinstance(p, Path) else str(models / f"{p}.onnx")
            for p in (floating, quantized)
        ]
        return OnnxModels(paths, inputs and str(models / inputs), **options)

    return open_pair


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
    return {layer.name: layer for layer in engine.run(source, patterns).layers}


def expected_constant(values, node, floats):
    """Figures of a weight or bias behind a DequantizeLinear."""
    codes, scale, zero_point = (values[name] for name in node.input)
    bits = 4 if "int4" in str(codes.dtype) else None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    codes = codes.astype("uint8" if str(codes.dtype) == "uint4" else "int8") if bits else codes
    return oracle.figures(
        floats, codes, scale, zero_point.astype(np.int64), axis=axis % codes.ndim, bits=bits
    )


@pytest.mark.parametrize("name", QDQ)
def test_qdq_activations_are_quantizelinears_input_and_output(models, opened, name):
    path = models / f"{name}.onnx"
    quantized, floating = (runs(p, models / "x.npy") for p in (path, models / "float.onnx"))
    found = report_of(opened(name))
    graph = onnx.load(path).graph
    relus = {node.op_type for node in graph.node} & {"Relu", "Clip"}
    seen = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in CONSTANTS:
            continue
        layer = node.input[0].removesuffix("_QuantizeLinear_Input")
        x, (scale, zero_point) = quantized[node.input[0]], (quantized[n] for n in node.input[1:])
        if not relus:  # dropped for the codes' range, which does their work
            x = {"r1": np.clip(x, 0, None), "r6": np.clip(x, 0, 6)}.get(layer, x)
        expected = oracle.figures(
            x, quantized[node.output[0]], scale, zero_point, model_float=floating[layer]
        )
        assert found[layer].kind == "activation"
        assert_figures(found[layer], expected)
        seen.add(layer)
    assert seen >= set(ACTIVATIONS)
    assert {layer.name for layer in found.values() if layer.kind == "activation"} == seen


@pytest.mark.parametrize("name", QDQ)
def test_qdq_weights_and_biases_are_measured_against_the_float_models(models, opened, name):
    path = models / f"{name}.onnx"
    values = every_tensor(path, {"x": np.load(models / "x.npy")[:1]})
    floats = {t.name: numpy_helper.to_array(t) for t in network().graph.initializer}
    found = report_of(opened(name))
    graph = onnx.load(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    made_of = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    seen = {}
    for node in graph.node:
        codes = node.input[0]
        if node.op_type == "DequantizeLinear" and (codes in stored or made_of[codes] in stored):
            layer = codes.removesuffix("_quantized").removesuffix("_QuantizeLinear_Output")
            assert_figures(found[layer], expected_constant(values, node, floats[layer]))
            seen[layer] = found[layer].kind
    assert seen == {name: "bias" if name[0] == "b" else "weight" for name in CONSTANTS}


@pytest.mark.parametrize("name", QOPERATOR)
def test_qoperator_activations_have_the_float_operator_beside_them_as_reference(
    models, opened, name
):
    quantized, floating = (runs(models / f"{p}.onnx", models / "x.npy") for p in (name, "float"))
    found = report_of(opened(name))
    nodes = {node.name: node for node in network().graph.node}
    floats = {t.name: numpy_helper.to_array(t) for t in network().graph.initializer}

    def dequantized(tensor, like=None):
        like = like or tensor
        codes = quantized[f"{tensor}_quantized"].astype(np.float32)
        zero_point = quantized[f"{like}_zero_point"].astype(np.float32)
        return (codes - zero_point) * quantized[f"{like}_scale"]

    inputs = {
        "conv1": ["x"], "depthwise": ["c1"], "conv2": ["cd"], "add": ["c1", "c2"],
        "average": ["m"], "dense": ["f"], "softmax": ["l"],
    }  # fmt: skip
    parameters = {"m": "a", "f": "g"}  # of operators that hand codes on
    shown = {"c1": "r1", "cd": "r6"}
    for operator, tensors in inputs.items():
        node = nodes[operator]
        output = node.output[0]
        fed = [dequantized(tensor, parameters.get(tensor)) for tensor in tensors]
        feeds = dict(zip(node.input, fed, strict=False))
        constants = [numpy_helper.from_array(floats[n], n) for n in node.input if n in floats]
        alone = made([node], dict.fromkeys(feeds), {output: None}, constants)
        (x,) = session(alone).run(None, feeds)
        x = {"c1": np.clip(x, 0, None), "cd": np.clip(x, 0, 6)}.get(output, x)
        layer = shown.get(output, output)
        expected = oracle.figures(
            x,
            quantized[f"{output}_quantized"],
            quantized[f"{output}_scale"],
            quantized[f"{output}_zero_point"],
            model_float=floating[layer],
        )
        assert_figures(found[layer], expected)
        assert found[layer].op == node.op_type
    assert {layer.name for layer in found.values() if layer.kind == "activation"} == {
        "x", "r1", "r6", "c2", "a", "g", "l", "p",
    }  # fmt: skip


@pytest.mark.parametrize("name", QOPERATOR)
def test_qoperator_weights_have_their_own_scale_and_biases_the_product(models, opened, name):
    values = every_tensor(models / f"{name}.onnx", {"x": np.load(models / "x.npy")[:1]})
    floats = {t.name: numpy_helper.to_array(t) for t in network().graph.initializer}
    found = report_of(opened(name))
    fed = {"1": "x", "d": "c1", "2": "cd", "f": "g"}
    for layer in CONSTANTS:
        weight = f"w{layer[1:]}"
        scale = values[f"{weight}_scale"].astype(np.float64)
        zero_point = 0
        if layer == weight:
            zero_point = values[f"{weight}_zero_point"]
        else:
            scale = scale * np.float64(values[f"{fed[layer[1:]]}_scale"])
        codes = values[f"{layer}_quantized"]
        assert_figures(found[layer], oracle.figures(floats[layer], codes, scale, zero_point, 0))


def test_dynamic_quantization_has_weights_and_says_why_there_is_no_more(opened):
    source = opened("dynamic")
    found = report_of(source)
    assert set(found) == {"w1", "wd", "w2", "wf"}
    assert all(layer.metrics.rmse_scale < 0.35 for layer in found.values())
    assert {name for name, _ in source.skipped} == {"x", "r1", "r6", "f"}
    assert all("made while the model runs" in reason for _, reason in source.skipped)


def test_layers_come_in_the_order_of_execution_with_what_they_are(opened):
    layers = opened("qdq-per-channel").layers
    assert [layer.name for layer in layers] == [
        "x", "w1", "b1", "r1", "wd", "bd", "r6", "w2", "b2", "c2", "a", "m", "g", "f", "wf", "bf",
        "l", "p",
    ]  # fmt: skip
    by_name = {layer.name: layer for layer in layers}
    assert by_name["x"].op is None
    assert [by_name[n].op for n in ("w1", "b1", "r1", "a", "wf", "p")] == [
        "Conv", "Conv", "Conv", "Add", "Gemm", "Softmax",
    ]  # fmt: skip
    assert by_name["r1"].shape == (1, 8, 8, 8)
    assert (by_name["w1"].params.axis, by_name["w1"].params.channels) == (0, 8)
    assert (by_name["wf"].params.axis, by_name["wf"].params.channels) == (0, 10)
