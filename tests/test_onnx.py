"""A live pair of ONNX models: quantized by onnxruntime, measured against a plain run of it."""

import os
import random
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.report.json import dumps, loads
from qdebug.run import engine
from qdebug.sources.onnx.source import OnnxModels
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
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", weight_type=QuantType.QUInt8)
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
    codes = codes.astype("uint8" if "uint4" in str(codes.dtype) else "int8") if bits else codes
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
    activations = {layer.name for layer in found.values() if layer.kind == "activation"}
    assert activations - {"f"} == {"x", "r1", "r6", "c2", "a", "g", "l", "p"}


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


# Pairing


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


def plain_numbers(start):
    """A renaming as old exporters do it, with numbers that mean something else in each model."""
    numbers = {}
    return lambda name: numbers.setdefault(name, str(start + len(numbers)))


@pytest.mark.parametrize("name", ["qdq-per-channel", "qdq-float-weights", "qop-per-channel"])
def test_pairing_needs_no_names(models, opened, tmp_path, name):
    known = report_of(opened(name))
    nameless = renamed(
        models / f"{name}.onnx", lambda n: f"t{zlib.crc32(n.encode())}", tmp_path / "q.onnx"
    )
    source = opened(nameless)
    assert not source.notes
    assert not source.skipped
    assert report_of(source) == known


@pytest.mark.parametrize("name", ["qdq-int8", "qop-int8"])
@pytest.mark.parametrize("shift", [0, 3, 17])
def test_numbers_for_names_mislead_nobody(models, opened, tmp_path, name, shift):
    floating = renamed(models / "float.onnx", plain_numbers(100), tmp_path / "f.onnx")
    quantized = renamed(models / f"{name}.onnx", plain_numbers(100 + shift), tmp_path / "q.onnx")
    found = list(report_of(opened(quantized, floating)).values())
    known = list(report_of(opened(name)).values())
    assert [layer.metrics for layer in found] == [layer.metrics for layer in known]


def test_equal_operators_side_by_side_are_told_apart(opened, tmp_path):
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(6, 6)).astype(np.float32), f"w{i}")
        for i in range(4)
    ]
    nodes = [
        *(NODE("MatMul", ["x", f"w{i}"], [f"y{i}"], f"n{i}") for i in range(4)),
        NODE("Concat", [f"y{i}" for i in range(4)], ["y"], "join", axis=1),
        NODE("Relu", ["y"], ["z"], "relu"),
    ]
    onnx.save(made(nodes, {"x": [1, 6]}, {"z": [1, 24]}, weights), tmp_path / "f.onnx")
    np.save(tmp_path / "x.npy", rng.normal(size=(3, 6)).astype(np.float32))
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        path = tmp_path / f"{form}.onnx"
        quantize_static(tmp_path / "f.onnx", path, Calibration((1, 6)), quant_format=form)
        for quantized in (path, renamed(path, lambda n: f"_{n}_", tmp_path / "renamed.onnx")):
            source = opened(quantized, tmp_path / "f.onnx", tmp_path / "x.npy")
            found = report_of(source)
            assert set(found) >= {"x", "w0", "w1", "w2", "w3", "y0", "y1", "y2", "y3", "z"}
            assert not source.skipped
            for i in range(4):
                assert found[f"w{i}"].metrics.rmse_scale < 0.4
                assert found[f"y{i}"].metrics.model_sqnr_db > 10


def test_a_tensor_quantized_twice_is_two_layers(opened, tmp_path):
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("s2", TensorProto.FLOAT, [], [0.25]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
    ]
    nodes = [
        NODE("Relu", ["x"], ["r"]),
        NODE("QuantizeLinear", ["r", "s", "z"], ["q"]),
        NODE("DequantizeLinear", ["q", "s", "z"], ["d"]),
        NODE("QuantizeLinear", ["d", "s2", "z"], ["q2"]),
        NODE("DequantizeLinear", ["q2", "s2", "z"], ["d2"]),
        NODE("Sigmoid", ["d2"], ["y"]),
    ]
    onnx.save(made(nodes, {"x": [1, 40]}, {"y": [1, 40]}, constants), tmp_path / "q.onnx")
    nodes = [NODE("Relu", ["x"], ["r"]), NODE("Sigmoid", ["r"], ["y"])]
    onnx.save(made(nodes, {"x": [1, 40]}, {"y": [1, 40]}, []), tmp_path / "f.onnx")
    np.save(tmp_path / "x.npy", np.linspace(-1, 5, 40, dtype=np.float32)[None])
    found = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", tmp_path / "x.npy"))
    assert [(layer.name, layer.scale) for layer in found.values()] == [
        ("r", pytest.approx(0.1)),
        ("r:2", 0.25),
    ]
    assert found["r:2"].metrics.inherited_rmse_scale > 0


def test_what_has_no_twin_is_said(models, opened, tmp_path):
    model = onnx.load(models / "qdq-int8.onnx")
    model.graph.node.extend(
        [
            NODE("Tanh", ["x"], ["more"]),
            NODE("QuantizeLinear", ["more", "x_scale", "x_zero_point"], ["more_codes"]),
            NODE("DequantizeLinear", ["more_codes", "x_scale", "x_zero_point"], ["more_back"]),
        ]
    )
    model.graph.output.append(onnx.ValueInfoProto(name="more_back"))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx")
    assert any("is the twin of 'more'" in note for note in source.notes)
    layer = report_of(source)["more"]
    assert layer.metrics.model_rmse_scale is None
    assert layer.metrics.rmse_scale is not None


def test_a_folded_batch_normalization_is_followed(opened, tmp_path):
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in {"w": weight, "g": one, "o": zero, "mean": zero, "var": one}.items()
    ]
    conv = NODE("Conv", ["x", "w"], ["c"], "conv")
    normalize = NODE("BatchNormalization", ["c", "g", "o", "mean", "var"], ["n"], "bn", epsilon=0.0)
    relu = NODE("Relu", ["n"], ["y"], "relu")
    shapes = {"x": [1, 3, 8, 8]}, {"y": None}
    onnx.save(made([conv, normalize, relu], *shapes, constants), tmp_path / "f.onnx")
    folded = [NODE("Conv", ["x", "w"], ["n"], "conv"), relu]
    onnx.save(made(folded, *shapes, constants[:1]), tmp_path / "folded.onnx")
    quantize_static(tmp_path / "folded.onnx", tmp_path / "q.onnx", Calibration())
    np.save(tmp_path / "x.npy", rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    source = opened(tmp_path / "q.onnx", tmp_path / "f.onnx", tmp_path / "x.npy")
    found = report_of(source)
    assert set(found) == {"x", "w", "y"}
    assert found["y"].metrics.model_sqnr_db > 25


def test_what_is_quantized_within_control_flow_is_said(models, opened, tmp_path):
    info = helper.make_tensor_value_info
    branch = helper.make_graph(
        [
            NODE("QuantizeLinear", ["x", "x_scale", "x_zero_point"], ["inner_codes"]),
            NODE("DequantizeLinear", ["inner_codes", "x_scale", "x_zero_point"], ["inner"]),
        ],
        "branch",
        [],
        [info("inner", TensorProto.FLOAT, None)],
    )
    model = onnx.load(models / "qdq-int8.onnx")
    true = numpy_helper.from_array(np.array(True), "true")
    model.graph.initializer.append(true)
    model.graph.node.append(
        NODE("If", ["true"], ["chosen"], "choice", then_branch=branch, else_branch=branch)
    )
    model.graph.output.append(info("chosen", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx")
    assert set(source.skipped) == {("x", "it is within the If 'choice'")}
    assert report_of(source) == report_of(opened())


def test_an_axis_of_length_minus_one_is_one_of_any(models, opened, tmp_path):
    for name in ("float", "qdq-int8"):
        model = onnx.load(models / f"{name}.onnx")
        for axis in (0, 2):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = -1
        onnx.save(model, tmp_path / f"{name}.onnx")
    source = opened(tmp_path / "qdq-int8.onnx", tmp_path / "float.onnx")
    assert report_of(source) == report_of(opened())


# What is asked for, and no more


def test_samples_are_merged_one_by_one(models, opened):
    assert opened(samples=2).samples.count == 2
    for name in ("qdq-int8", "qop-int8"):
        layer = report_of(opened(name, samples=3), "r1")["r1"]
        assert layer.metrics.num_elements == 3 * 8 * 8 * 8
        assert layer.shape == [1, 8, 8, 8]


def test_parts_hold_what_is_asked_for(opened):
    source = opened()
    by_name = {layer.name: layer for layer in source.layers}
    (part,) = source.parts([by_name["r1"], by_name["p"]])
    blocks = list(part.blocks([]))
    assert [layer.name for layer, _ in blocks] == ["r1", "p"] * SAMPLES
    assert all(block.floats.ndim == 3 for _, block in blocks)
    parts = source.parts([by_name["w1"], by_name["bf"]])
    assert [[layer.name for layer in part.layers] for part in parts] == [["w1"], ["bf"]]
    assert source.parts([]) == []


def test_one_layer_has_the_figures_that_it_has_among_all(opened):
    whole = report_of(opened("qop-per-channel"))
    for name in ("r1", "wf", "l"):
        alone = report_of(opened("qop-per-channel"), name)[name]
        assert (alone.metrics, alone.channels) == (whole[name].metrics, whole[name].channels)


def test_without_inputs_there_are_weights_and_biases(opened):
    for name in ("qdq-int8", "qdq-float-weights", "qop-int8", "dynamic"):
        source = opened(name, inputs=None)
        assert "no inputs: weights and biases only" in source.notes
        assert source.samples is None
        whole = report_of(opened(name))
        found = report_of(source)
        assert found == {n: r for n, r in whole.items() if r.kind != "activation"}


def test_the_report_goes_to_json_and_back(opened):
    report = engine.run(opened("qdq-int4-weights"))
    assert loads(dumps(report), "r.json") == report
    assert not report.complaints


# Forms of storage


def test_data_in_other_files_is_found_from_any_folder(models, opened, tmp_path, monkeypatch):
    for name in ("float", "qdq-int8"):
        (tmp_path / name).mkdir()
        model = onnx.load(models / f"{name}.onnx")
        onnx.save(
            model, tmp_path / name / "model.onnx", save_as_external_data=True,
            location="weights.bin", size_threshold=0,
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = opened(Path("qdq-int8/model.onnx"), Path("float/model.onnx"))
    assert report_of(source) == report_of(opened())
    (tmp_path / "float" / "weights.bin").unlink()
    with pytest.raises(QdebugError, match=r"float/model\.onnx.*weights\.bin"):
        opened(Path("qdq-int8/model.onnx"), Path("float/model.onnx"))


def test_inputs_may_be_codes_in_the_quantized_model(models, opened, tmp_path):
    for name in ("qdq-int8", "qop-uint8"):
        model = onnx.load(models / f"{name}.onnx")
        (quantizer,) = (n for n in model.graph.node if n.op_type == "QuantizeLinear" and
                        n.input[0] == "x")  # fmt: skip
        codes = quantizer.output[0]
        model.graph.node.remove(quantizer)
        model.graph.input[0].name = codes
        integer = TensorProto.INT8 if name == "qdq-int8" else TensorProto.UINT8
        model.graph.input[0].type.tensor_type.elem_type = integer
        onnx.save(model, tmp_path / "q.onnx")
        source = opened(tmp_path / "q.onnx")
        assert report_of(source) == report_of(opened(name))


def test_constants_may_be_operators(models, opened, tmp_path):
    model = onnx.load(models / "qdq-per-channel.onnx")
    held = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in held:
        model.graph.node.insert(0, NODE("Constant", [], [tensor.name], value=tensor))
    onnx.save(model, tmp_path / "q.onnx")
    assert report_of(opened(tmp_path / "q.onnx")) == report_of(opened("qdq-per-channel"))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scale_a_block_gives_rows_of_blocks(opened, tmp_path, axis):
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(8, 12)).astype(np.float32)
    rows = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    scale = np.abs(rows).max(axis=1) / 7
    codes = np.rint(rows / scale[:, None]).astype(np.int8)
    blocks = [8, 12]
    blocks[axis] //= 4

    def back(values, shape):
        kept = [n for i, n in enumerate(shape) if i != axis]
        return np.moveaxis(values.reshape([*kept, shape[axis]]), -1, axis)

    nodes = [
        NODE("DequantizeLinear", ["q", "s"], ["d"], axis=axis, block_size=4),
        NODE("MatMul", ["x", "d"], ["y"]),
    ]
    stored = [
        helper.make_tensor("q", TensorProto.INT4, [8, 12], back(codes, [8, 12]).reshape(-1)),
        numpy_helper.from_array(back(scale, blocks), "s"),
    ]
    shapes = {"x": [1, 8]}, {"y": [1, 12]}
    onnx.save(made(nodes, *shapes, stored), tmp_path / "q.onnx")
    float_nodes = [NODE("MatMul", ["x", "w"], ["y"])]
    floats = [numpy_helper.from_array(weight, "w")]
    onnx.save(made(float_nodes, *shapes, floats), tmp_path / "f.onnx")
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert (layer.name, layer.shape, layer.bits, layer.axis) == ("w", [24, 4], 4, 0)
    assert_figures(layer, oracle.figures(rows, codes, scale, 0, axis=0, bits=4))


def test_weights_packed_for_one_operator_are_said_to_be(opened, tmp_path):
    rng = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(rng.integers(0, 256, (8, 2, 8), np.uint8), "packed"),
        numpy_helper.from_array(np.ones(16, np.float32), "scales"),
    ]
    shapes = {"x": [1, 32]}, {"y": [1, 8]}
    node = NODE(
        "MatMulNBits", ["x", "packed", "scales"], ["y"], domain="com.microsoft",
        K=32, N=8, bits=4, block_size=16,
    )  # fmt: skip
    onnx.save(made([node], *shapes, stored), tmp_path / "q.onnx")
    weight = numpy_helper.from_array(rng.normal(size=(32, 8)).astype(np.float32), "w")
    floating = made([NODE("MatMul", ["x", "w"], ["y"])], *shapes, [weight])
    onnx.save(floating, tmp_path / "f.onnx")
    said = message(opened, tmp_path / "q.onnx", tmp_path / "f.onnx", None)
    assert "'packed': weights packed for MatMulNBits are not read" in said


# Bad input


def message(call, *args, **kwargs):
    with pytest.raises(QdebugError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    return text


def test_models_in_the_wrong_order_are_taken_the_right_way_round(opened):
    source = opened("float", "qdq-int8")
    assert "is the quantized model" in source.notes[0]
    assert report_of(source) == report_of(opened())


@pytest.mark.parametrize(
    ("floating", "quantized", "said"),
    [
        ("float", "float", "float.onnx: found the same file twice, with no quantized tensor"),
        ("qdq-int8", "qdq-int8", "qdq-int8.onnx: found the same file twice, with quantized"),
        ("qdq-int8", "qop-int8", "qop-int8.onnx: found quantized tensors in both; expected a"),
    ],
)
def test_two_models_of_one_kind_are_no_pair(opened, floating, quantized, said):
    assert said in message(opened, quantized, floating)


def test_one_model_or_three_are_no_pair(models):
    paths = [str(models / "float.onnx")] * 3
    assert "found 3 ONNX models" in message(OnnxModels, paths)
    assert "found 1 ONNX models" in message(OnnxModels, paths[:1])


@pytest.mark.parametrize("name", ["qdq-int8", "qdq-float-weights", "qop-int8", "qdq-int4-weights"])
def test_other_weights_are_another_network(opened, tmp_path, name):
    onnx.save(network(seed=1), tmp_path / "other.onnx")
    said = message(opened, name, tmp_path / "other.onnx")
    assert f"{name}.onnx: not the network of " in said
    assert "of 4 weights differ, 'w1' by" in said


def test_another_structure_is_another_network(opened, tmp_path):
    nodes = [NODE("Sigmoid", ["x"], ["h"]), NODE("Tanh", ["h"], ["out"])]
    onnx.save(made(nodes, {"x": ["N", 3, 8, 8]}, {"out": None}, []), tmp_path / "other.onnx")
    for name in ("qdq-int8", "qop-int8"):
        assert "not the network of" in message(opened, name, tmp_path / "other.onnx")


def test_one_wrong_weight_is_for_the_report_to_show(models, opened, tmp_path):
    model = onnx.load(models / "qdq-int8.onnx")
    (codes,) = (t for t in model.graph.initializer if t.name == "w2_quantized")
    values = numpy_helper.to_array(codes)
    codes.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=1), codes.name))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx")
    assert report_of(source)["w2"].metrics.rmse_scale > 5
    assert any("'w2': far from the weights in" in note for note in source.notes)


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\x00" * 100, b"PK\x03\x04", b"TFL3" * 50, b"\n\x1b[2J"]
)
def test_what_is_no_onnx_model_is_one_line(opened, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "model.onnx: no ONNX model" in message(opened, path)
    assert "model.onnx: no ONNX model" in message(opened, "qdq-int8", path)


def test_files_that_are_not_there_are_one_line(opened, tmp_path):
    assert "No such file" in message(opened, tmp_path / "none.onnx")
    assert "No such file" in message(opened, inputs="none.npy")
    assert "directory" in message(opened, tmp_path).lower()


def test_an_operator_that_the_runtime_lacks_is_one_line(models, opened, tmp_path):
    model = onnx.load(models / "qdq-int8.onnx")
    model.graph.node.append(NODE("Unheard\x1b[2J", ["x"], ["new"], domain="of"))
    model.opset_import.append(helper.make_opsetid("of", 1))
    onnx.save(model, tmp_path / "q.onnx")
    said = message(opened, tmp_path / "q.onnx")
    assert "q.onnx: onnxruntime: " in said
    assert "Unheard" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((2, 3, 8, 7), np.float32), "found shape (2, 3, 8, 7), expected (samples, 3, 8"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "found nan, expected finite float32"),
        (np.zeros((0, 3, 8, 8), np.float32), "found 0 samples"),
        (np.array(["text"]), "expected float32"),
    ],
)
def test_wrong_inputs_are_one_line(opened, tmp_path, values, said):
    np.save(tmp_path / "x.npy", values)
    assert said in message(opened, inputs=tmp_path / "x.npy")


def test_a_sample_that_is_wrong_later_on_is_one_line(opened, tmp_path):
    values = np.zeros((3, 3, 8, 8), np.float32)
    values[2, 0, 0, 0] = np.inf
    np.save(tmp_path / "x.npy", values)
    source = opened(inputs=tmp_path / "x.npy")
    assert "sample 2" in message(engine.run, source)


@pytest.mark.parametrize(
    ("scale", "zero_point", "said"),
    [
        (np.float32(0), np.int8(0), "field 'scale': found 0.0, expected finite numbers above 0"),
        (np.float32(np.nan), np.int8(0), "field 'scale': found nan"),
        (np.full(3, 0.1, np.float32), np.zeros(3, np.int8), "found 3 values, expected 1 or 8"),
    ],
)
def test_a_broken_scale_leaves_the_other_layers(models, opened, tmp_path, scale, zero_point, said):
    model = onnx.load(models / "qdq-int8.onnx")
    for tensor in model.graph.initializer:
        value = {"w2_scale": scale, "w2_zero_point": zero_point}.get(tensor.name)
        if value is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx", inputs=None)
    (broken,) = (layer for layer in source.layers if isinstance(layer, UnreadableLayer))
    assert broken.name == "w2"
    assert said in broken.reason
    assert "q.onnx: layer 'w2': " in broken.reason
    assert sum(isinstance(layer, Layer) for layer in source.layers) == len(CONSTANTS) - 1


def test_names_are_data(models, opened, tmp_path):
    evil = "\x1b[2J\n../../r"
    quantized = renamed(
        models / "qdq-int8.onnx", lambda n: n.replace("r1", evil), tmp_path / "q.onnx"
    )
    floating = renamed(models / "float.onnx", lambda n: n.replace("r1", evil), tmp_path / "f.onnx")
    source = opened(quantized, floating)
    assert evil in [layer.name for layer in source.layers]
    other = opened(quantized)
    assert not any("\n" in text or "\x1b" in text for text in other.notes)


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 28),
    reason="older runtimes abort on some broken models",
)
def test_models_changed_at_random_give_a_report_or_one_line(models, opened, tmp_path):
    stored = {name: onnx.load(models / f"{name}.onnx") for name in ("qdq-per-channel", "qop-int8")}
    for seed in range(80):
        rng = random.Random(seed)
        model = onnx.ModelProto()
        model.CopyFrom(stored[rng.choice(list(stored))])
        graph = model.graph
        names = [name for node in graph.node for name in (*node.input, *node.output)] + [""]
        for _ in range(rng.choice([1, 2, 4])):
            node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
            change = rng.randrange(7)
            if change == 0 and node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            elif change == 1 and node.input:
                del node.input[-1]
            elif change == 2:
                tensor.data_type = rng.choice([0, 1, 2, 3, 6, 10, 16, 17, 21, 22, 25, 99])
            elif change == 3:
                tensor.dims.append(rng.choice([0, 1, -1, 2**40]))
            elif change == 4:
                graph.node.remove(node)
            elif change == 5:
                node.op_type = rng.choice([other.op_type for other in graph.node])
            else:
                tensor.raw_data = tensor.raw_data[:-1]
        onnx.save(model, tmp_path / "q.onnx")
        try:
            report = engine.run(opened(tmp_path / "q.onnx", samples=1))
        except QdebugError as error:
            lines = [str(error)]
        else:
            lines = report.complaints
            dumps(report)
        assert not any("\n" in line for line in lines)


# The extra


def test_the_source_is_imported_without_the_packages():
    code = (
        "import sys, qdebug.sources.onnx.source as s;"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": ""})


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line_that_says_what_to_install(opened, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert message(opened) == "ONNX models need an extra: pip install 'qdebug[onnx]'"
