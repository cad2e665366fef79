"""All kinds of quantized LiteRT model."""

import warnings

import numpy as np
import pytest

from qdebug.arithmetic.affine import dequantize, quantize
from qdebug.measure.layer import UnreadableLayer
from qdebug.run import session
from qdebug.sources.tflite.graph import Graph, Tensor
from qdebug.sources.tflite.source import LitertModels
from tests.paths import DATA
from tests.sources.tflite.models import (
    FLOAT,
    INPUTS,
    INT8,
    Interpreter,
    arrays,
    branch_inputs,
    branches,
    digits,
    edited,
    layer,
    names,
    refused,
    schema,
    source,
)


def test_several_inputs_and_outputs_are_told_apart(tmp_path):
    models = branches(tmp_path, "branches_int8")
    assert models.skipped == []
    assert len(names(models, "activation")) == 15
    report = {row.name: row.metrics for row in session.run(models).layers}
    # left and right read the same image by weights of one shape.
    for side in ("left", "right"):
        weights = report[f"net_1/{side}_1/convolution"]
        assert weights.rmse_scale < 0.32
    # Where nothing is computed, the local error is nothing.
    for name in ("net_1/both_1/concat", "net_1/flat_1/Reshape", "net_1/pool_1/MaxPool2d"):
        assert report[name].rmse_scale < 1e-5


def test_a_shape_that_is_computed_does_not_disturb_the_run(tmp_path):
    """A RESHAPE to a computed shape would move XNNPACK's memory in the first run.

    Its float operators would then read something else from the second run on.
    """
    inputs = branch_inputs(tmp_path)
    flags = np.load(inputs)["flags"].astype(np.float32)
    weights = arrays(source(DATA / "branches_float.tflite", DATA / "branches_int8.tflite"))
    expected = flags @ weights["net_1/gate_1/MatMul"][0].reshape(32, 4).T
    debug = arrays(LitertModels([str(DATA / "branches_debug.tflite")], str(inputs)))
    (floats,) = (
        kinds[0] for name, kinds in debug.items() if name.startswith("net_1/gate_1/MatMul1")
    )
    np.testing.assert_allclose(floats, expected.ravel(), atol=1e-5)
    model = arrays(branches(tmp_path, "branches_int8"))["net_1/gate_1/MatMul1"][2]
    np.testing.assert_allclose(model, expected.ravel(), atol=1e-5)


def test_sizes_that_only_a_run_shows_are_run_without_the_delegate(tmp_path, monkeypatch):
    monkeypatch.setattr(Graph, "sizes", frozenset())  # as if none were known beforehand
    models = branches(tmp_path, "branches_int8")
    assert len(models.notes) == 2
    assert "without the XNNPACK delegate" in models.notes[0]
    expected = arrays(branches(tmp_path, "branches_int8", kernels="builtin"))
    for name, kinds in arrays(models).items():
        np.testing.assert_array_equal(kinds[0], expected[name][0])


def test_int16_activations_and_int64_biases(tmp_path):
    models = branches(tmp_path, "branches_int16")
    assert {layer.params.dtype for layer in models.layers if layer.kind == "activation"} == {
        "int16"
    }
    biases = [layer for layer in models.layers if layer.kind == "bias"]
    assert [layer.params.dtype for layer in biases] == ["int32"] * len(biases)
    assert biases
    report = {row.name: row.metrics for row in session.run(models).layers}
    assert report["net_1/add_1/Add"].rmse_scale == pytest.approx(0.2887, abs=0.02)


def test_int64_codes_beyond_32_bits_make_an_unreadable_layer(tmp_path):
    def enlarge(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.INT64:
                codes = np.zeros(int(np.prod(tensor.shape)), np.int64)
                codes[0] = 2**40
                model.buffers[tensor.buffer].data = np.frombuffer(codes.tobytes(), np.uint8)

    path = edited(DATA / "branches_int16.tflite", tmp_path / "q.tflite", enlarge)
    models = source(DATA / "branches_float.tflite", path)
    broken = [layer for layer in models.layers if isinstance(layer, UnreadableLayer)]
    assert broken
    assert "int64 codes beyond 32 bits" in broken[0].reason
    assert str(path) in broken[0].reason


def to_uint8(model):
    """An int8 model with weights per tensor as the uint8 model of the same arithmetic."""
    types = schema.TensorType
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == types.INT8:
            tensor.type = types.UINT8
            tensor.quantization.zeroPoint = np.asarray(tensor.quantization.zeroPoint) + 128
            data = model.buffers[tensor.buffer].data
            if data is not None:
                model.buffers[tensor.buffer].data = np.asarray(data) ^ 0x80


def test_legacy_uint8_models_have_the_figures_of_the_int8_model(tmp_path):
    int8 = DATA / "branches_pertensor.tflite"
    uint8 = edited(int8, tmp_path / "uint8.tflite", to_uint8)
    inputs, floats = branch_inputs(tmp_path), DATA / "branches_float.tflite"
    models = source(floats, uint8, inputs, kernels="reference")
    assert {layer.params.dtype for layer in models.layers} == {"uint8", "int32"}
    theirs = arrays(source(floats, int8, inputs, kernels="reference"))
    for name, (values, codes, _) in arrays(models).items():
        if codes.dtype == np.uint8:
            # uint8 kernels round a multiplication twice: off by one here and there.
            assert np.abs(codes.astype(int) - 128 - theirs[name][1]).max() <= 1
        reach = np.abs(theirs[name][0]).max()
        np.testing.assert_allclose(values, theirs[name][0], atol=0.02 * reach + 1e-6)


def test_quantized_inputs_and_outputs_of_another_type(tmp_path):
    models = branches(tmp_path, "branches_uint8")
    types = [
        (layer.op, layer.params.dtype) for layer in models.layers if layer.kind == "activation"
    ]
    assert types[:4] == [
        (None, "uint8"),
        (None, "uint8"),
        ("QUANTIZE", "int8"),
        ("QUANTIZE", "int8"),
    ]
    assert models.skipped == []


def pack_int4(model):
    """Dense weights of 4 bits, two in a byte."""
    (tensor,) = (t for t in model.subgraphs[0].tensors if t.name == b"digits_1/logits_1/MatMul")
    codes = np.asarray(model.buffers[tensor.buffer].data).view(np.int8)
    codes = np.round(codes / 18).astype(np.int8)  # -7..7
    tensor.quantization.scale = np.asarray(tensor.quantization.scale) * 18
    tensor.type = schema.TensorType.INT4
    low, high = codes[0::2] & 15, codes[1::2] & 15
    model.buffers[tensor.buffer].data = (low | high << 4).astype(np.uint8)
    return codes


def test_int4_weights_are_unpacked(tmp_path):
    kept = []
    path = edited(INT8, tmp_path / "int4.tflite", lambda model: kept.append(pack_int4(model)))
    models = source(FLOAT, path)
    made = layer(models, "digits_1/logits_1/MatMul")
    assert (made.params.dtype, made.params.bits, made.params.narrow_range) == ("int8", 4, True)
    np.testing.assert_array_equal(arrays(models)[made.name][1], kept[0])
    (row,) = (row for row in session.run(models).layers if row.name == made.name)
    assert row.metrics.rmse_scale == pytest.approx(0.289, abs=0.03)


def test_an_odd_number_of_int4_codes():
    packed = np.array([0x21, 0xF8, 0x07], np.uint8)
    tensor = Tensor(0, "w", "INT4", (5,), (5,), None, packed, False)
    np.testing.assert_array_equal(tensor.constant(), [1, 2, -8, -1, 7])
    tensor = Tensor(0, "w", "INT2", (3,), (3,), None, np.array([0b11_10_01], np.uint8), False)
    np.testing.assert_array_equal(tensor.constant(), [1, -2, -1])


def test_narrow_range_only_where_the_lowest_code_is_not_used(tmp_path):
    def use_lowest(model):
        (tensor,) = (t for t in model.subgraphs[0].tensors if t.name == b"digits_1/logits_1/MatMul")
        data = np.array(model.buffers[tensor.buffer].data)
        data[0] = 0x80
        model.buffers[tensor.buffer].data = data

    models = source(FLOAT, edited(INT8, tmp_path / "q.tflite", use_lowest))
    assert not layer(models, "digits_1/logits_1/MatMul").params.narrow_range
    assert layer(models, "digits_1/tail_conv_1/convolution").params.narrow_range


def test_dynamic_range_models_have_weights_only(tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.ones((2, 16)))
    models = source(DATA / "dense_float.tflite", DATA / "dense_dynamic.tflite", inputs)
    assert [layer.kind for layer in models.layers] == ["weight"]
    assert models.skipped == []
    (row,) = session.run(models).layers
    assert row.metrics.rmse_scale == pytest.approx(0.2887, abs=0.02)


def dequantize_weights(model):
    """Weights read through a DEQUANTIZE operator: a weight-only model."""
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    for index, tensor in list(enumerate(graph.tensors)):
        if tensor.type == schema.TensorType.INT8:
            floats = schema.TensorT()
            floats.name, floats.shape = tensor.name + b"_float", tensor.shape
            graph.tensors.append(floats)
            for operator in graph.operators:
                operator.inputs = [
                    len(graph.tensors) - 1 if read == index else int(read)
                    for read in operator.inputs
                ]
            opened = schema.OperatorT()
            opened.opcodeIndex = len(model.operatorCodes) - 1
            opened.inputs, opened.outputs = [index], [len(graph.tensors) - 1]
            graph.operators.insert(0, opened)


def test_weight_only_models_have_weights_only(tmp_path):
    dynamic = DATA / "dense_dynamic.tflite"
    path = edited(dynamic, tmp_path / "weights.tflite", dequantize_weights)
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.ones((2, 16)))
    models = source(DATA / "dense_float.tflite", path, inputs)
    assert [(layer.name, layer.op) for layer in models.layers] == [
        ("dense_1/large_1/MatMul", "FULLY_CONNECTED")
    ]
    expected = arrays(source(DATA / "dense_float.tflite", dynamic))
    for ours, theirs in zip(arrays(models).values(), expected.values(), strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_partly_quantized_models(tmp_path):
    models = branches(tmp_path, "branches_partly")
    assert models.skipped == []
    assert "net_1/down_1/convolution" not in names(models, "weight")  # left in float
    found = arrays(models)
    weight = arrays(branches(tmp_path, "branches_int8"))["net_1/down_1/convolution"][0]
    assert weight.size == 8 * 3 * 3 * 8
    # What is quantized after the float convolution is that convolution of dequantized values.
    quantized = layer(models, "tfl.quantize2")
    assert quantized.op == "QUANTIZE"
    floats, codes, _ = found[quantized.name]
    np.testing.assert_array_equal(codes, quantize(floats, quantized.params))


def test_lengths_that_the_model_leaves_open_are_the_samples(tmp_path):
    inputs = tmp_path / "image.npy"
    np.save(inputs, np.random.default_rng(0).normal(size=(3, 9, 7, 1)))
    models = source(DATA / "anysize_float.tflite", DATA / "anysize_int8.tflite", inputs)
    assert layer(models, "tfl.quantize").shape == (1, 9, 7, 1)
    assert models.notes == []
    row = session.run(models).layers[0]
    assert row.metrics.num_elements == 3 * 9 * 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["branches_float", "branches_int8"])
def test_a_model_without_signatures_is_paired_by_its_tensors(tmp_path, kind):
    def unsign(model):
        model.signatureDefs = []

    path = edited(DATA / f"{kind}.tflite", tmp_path / "unsigned.tflite", unsign)
    inputs, here = branch_inputs(tmp_path), DATA / "branches_float.tflite"
    there = DATA / "branches_int8.tflite"
    models = source(path, there, inputs) if kind.endswith("float") else source(here, path, inputs)
    expected = session.run(source(here, there, inputs))
    assert session.run(models).layers == expected.layers


def test_several_signatures(tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.random.default_rng(0).normal(size=(5, 4)))
    pair = (DATA / "signatures_float.tflite", DATA / "signatures_int8.tflite", inputs)
    first = source(*pair)
    assert len(first.notes) == 2
    assert "found 2 signatures, took 'repeat'" in first.notes[0]
    widen = source(*pair, signature="widen")
    assert widen.notes == []
    assert [layer.op for layer in widen.layers] == ["QUANTIZE", *["FULLY_CONNECTED"] * 2]
    codes = arrays(widen)[widen.layers[-1].name][1].reshape(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Interpreter(model_path=str(pair[1])).get_signature_runner("widen")
    x = np.load(inputs).astype(np.float32)
    direct = [runner(x=row[None])["y"][0] for row in x]
    np.testing.assert_allclose(dequantize(codes, widen.layers[-1].params), direct, atol=1e-6)
    assert "no signature 'wide'; did you mean 'widen'?" in refused(
        *pair[:2], inputs=inputs, signature="wide"
    )


def test_loops_are_run_and_what_is_in_them_is_skipped_with_the_reason(tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.random.default_rng(0).normal(size=(5, 4)))
    pair = (DATA / "signatures_float.tflite", DATA / "signatures_int8.tflite")
    models = source(*pair, inputs, signature="repeat")
    assert (
        "while_body",
        "a graph apart from the one that was run; 4 of its tensors are quantized",
    ) in (models.skipped)
    # The value after the loop is quantized from a float tensor of the quantized model.
    (after,) = (x for x in models.layers if x.op == "QUANTIZE" and x is not models.layers[0])
    floats, codes, model = arrays(models)[after.name]
    np.testing.assert_array_equal(codes, quantize(floats, after.params))
    assert np.abs(floats - model).max() < 0.2


def custom_operator(model):
    """The SOFTMAX as an operator that no runtime has."""
    graph = model.subgraphs[0]
    code = model.operatorCodes[graph.operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "Mystery\x1b"
    graph.operators[-1].builtinOptions = None
    graph.operators[-1].builtinOptionsType = 0


def test_custom_operators_are_skipped_with_the_reason(tmp_path):
    both = [
        edited(path, tmp_path / f"{path.stem}.tflite", custom_operator) for path in (FLOAT, INT8)
    ]
    models = source(*both, INPUTS, samples=2)
    assert models.skipped == [
        (
            "StatefulPartitionedCall_1:0",
            "it needs the custom operator Mystery\\x1b, which LiteRT lacks",
        )
    ]
    assert len(models.layers) == 19
    expected = arrays(digits(samples=2))
    for name, kinds in arrays(models).items():
        np.testing.assert_array_equal(kinds[1], expected[name][1])
