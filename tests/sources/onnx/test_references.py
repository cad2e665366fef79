"""A live pair of ONNX models: quantized by onnxruntime, measured against a plain run of it."""

import numpy as np
import pytest

from tests import oracle
from tests.sources.onnx.models import (
    ACTIVATIONS,
    CONSTANTS,
    QDQ,
    QOPERATOR,
    assert_figures,
    every_tensor,
    made,
    network,
    numpy_helper,
    onnx,
    report_of,
    runs,
    session,
)


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
        # The reference is computed with the quantized weights already.
        more = {"model_float": floating[layer], "weights_float": None if layer == "x" else x}
        expected = oracle.figures(x, quantized[node.output[0]], scale, zero_point, **more)
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

    def constant(tensor):
        codes = quantized[f"{tensor}_quantized"]
        if codes.dtype == np.int32:  # a bias, in steps of the input's scale times the weights'
            layer = found[tensor]
            return codes * np.float64(layer.scale)
        shape = (-1, *[1] * (codes.ndim - 1))
        scale, zero_point = (quantized[f"{tensor}_{f}"] for f in ("scale", "zero_point"))
        return (codes.astype(float) - zero_point.reshape(shape)) * scale.reshape(shape)

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
        weighted = {n: constant(n) for n in node.input if n in floats}
        x, w = (
            session(
                made(
                    [node],
                    dict.fromkeys(feeds),
                    {output: None},
                    [numpy_helper.from_array(np.float32(values[n]), n) for n in weighted],
                )
            ).run(None, feeds)[0]
            for values in (floats, weighted)
        )
        x, w = ({"c1": np.clip(v, 0, None), "cd": np.clip(v, 0, 6)}.get(output, v) for v in (x, w))
        layer = shown.get(output, output)
        expected = oracle.figures(
            x,
            quantized[f"{output}_quantized"],
            quantized[f"{output}_scale"],
            quantized[f"{output}_zero_point"],
            model_float=floating[layer],
            weights_float=w,
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
    assert all("computed at run time" in reason for _, reason in source.skipped)


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
