"""LiteRT models: what is a layer, what its references are, and what is refused.

Codes and the float model's values are read from the interpreter directly; local references are
computed here in plain NumPy, operator by operator.
"""

import contextlib
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from qdebug.arithmetic.affine import dequantize, quantize
from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.run import engine
from qdebug.sources.tflite.graph import Graph, Tensor
from qdebug.sources.tflite.source import LitertModels
from tests.oracle import figures

schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="needs the extra: pip install 'qdebug[litert]'"
)
import flatbuffers  # noqa: E402 - comes with it
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

DATA = Path(__file__).parent / "data"
SAMPLES = Path(__file__).parent.parent / "sample_models"
FLOAT, INT8 = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
INPUTS = SAMPLES / "digits_inputs.npz"


# --- helpers --------------------------------------------------------------------------------------


def edited(path, target, change):
    """The model at `path` as `change` leaves it, written to `target`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def source(floats, quantized, inputs=None, **options):
    return LitertModels([str(floats), str(quantized)], inputs and str(inputs), **options)


def digits(**options):
    return source(FLOAT, INT8, INPUTS, **options)


def branch_inputs(folder, samples=8):
    rng = np.random.default_rng(1)
    path = folder / "inputs.npz"
    np.savez(path, image=rng.normal(size=(samples, 6, 6, 3)), flags=rng.normal(size=(samples, 4)))
    return path


def branches(folder, quantized, floats="branches_float", **options):
    inputs = branch_inputs(folder)
    return source(DATA / f"{floats}.tflite", DATA / f"{quantized}.tflite", inputs, **options)


def refused(*models, inputs=None, **options):
    with pytest.raises(QdebugError) as caught:
        LitertModels([str(model) for model in models], inputs and str(inputs), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def arrays(models):
    """Layer name -> floats, codes and model floats of all samples, each (samples, elements)."""
    found = {}
    for part in models.parts([layer for layer in models.layers if isinstance(layer, Layer)]):
        for layer, block in part.blocks([]):
            floats, codes, model = found.setdefault(layer.name, ([], [], []))
            floats.append(block.floats.ravel())
            codes.append(block.codes.ravel())
            if block.model_float is not None:
                model.append(block.model_float.ravel())
    return {
        name: tuple(np.concatenate(kind) if kind else None for kind in kinds)
        for name, kinds in found.items()
    }


def layer(models, name):
    (found,) = (layer for layer in models.layers if layer.name == name)
    return found


def names(models, kind):
    return [layer.name for layer in models.layers if layer.kind == kind]


def interpreter(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    opened.allocate_tensors()
    return opened


def read_directly(path, inputs):
    """Tensor index -> its values, (samples, elements), in a run of the model as it is."""
    opened = interpreter(path)
    values = {}
    for sample in inputs:
        opened.set_tensor(opened.get_input_details()[0]["index"], sample[None])
        opened.invoke()
        for detail in opened.get_tensor_details():
            with contextlib.suppress(ValueError):
                value = opened.get_tensor(detail["index"])
                values.setdefault(detail["index"], []).append(value.ravel())
    return {index: np.stack(rows) for index, rows in values.items()}


# --- the three references -------------------------------------------------------------------------


def conv(x, w, b, depthwise=False):
    """A 3x3 or 1x1 convolution of (row, column, channel), zeros around, stride 1, in float64."""
    if depthwise:
        w = np.moveaxis(w, 3, 0)[..., None]  # (1, r, c, channel) -> (channel, 1, r, c, 1)
        return np.concatenate(
            [conv(x[..., i : i + 1], w[i], b[i : i + 1]) for i in range(x.shape[2])], axis=2
        )
    rows, columns, size = *x.shape[:2], w.shape[1]
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    out = np.empty((rows, columns, w.shape[0]))
    for r in range(rows):
        for c in range(columns):
            window = padded[r : r + size, c : c + size]
            out[r, c] = np.tensordot(w, window, axes=([1, 2, 3], [0, 1, 2])) + b
    return out


def relu6(x):
    return np.clip(x, 0, 6)


def pooled(x):
    return x.reshape(4, 2, 4, 2, 8).mean(axis=(1, 3))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def test_the_references_of_every_activation_are_what_an_independent_computation_gives():
    models = digits()
    images = np.load(INPUTS)["image"]
    found = arrays(models)
    details = interpreter(INT8).get_tensor_details()
    index = {detail["name"]: detail["index"] for detail in details}
    params = {layer.name: layer.params for layer in models.layers if layer.kind == "activation"}
    codes = read_directly(INT8, quantize(images, params["serving_default_image:0"]))
    model = read_directly(FLOAT, images)
    constant = interpreter(FLOAT).get_tensor

    image, stem, dw, pw, add, pool, tail, gap, logits, out = names(models, "activation")
    shapes = {image: (8, 8, 1), stem: (8, 8, 8), dw: (8, 8, 8), pw: (8, 8, 8), add: (8, 8, 8)}
    shapes |= {pool: (4, 4, 8), tail: (4, 4, 32), gap: (32,), logits: (10,), out: (10,)}

    def fed(name, sample):
        """The floats that the quantized run's codes of one sample stand for."""
        values = dequantize(codes[index[name]][sample], params[name])
        return values.reshape(shapes[name])

    def local(sample):
        weight = lambda index: constant(index).astype(np.float64)  # noqa: E731
        yield image, images[sample]
        yield stem, relu6(conv(fed(image, sample), weight(10), weight(11)))
        yield dw, relu6(conv(fed(stem, sample), weight(5), weight(2), depthwise=True))
        yield pw, conv(fed(dw, sample), weight(7), weight(4))
        yield add, np.maximum(fed(stem, sample) + fed(pw, sample), 0)
        yield pool, pooled(fed(add, sample))
        yield tail, np.maximum(conv(fed(pool, sample), weight(6), weight(1)), 0)
        yield gap, fed(tail, sample).mean(axis=(0, 1))
        yield logits, weight(8) @ fed(gap, sample) + weight(3)
        yield out, softmax(fed(logits, sample))

    expected = {}
    for sample in range(len(images)):
        for name, values in local(sample):
            expected.setdefault(name, []).append(values.ravel())
    for name, rows in expected.items():
        got_floats, got_codes, got_model = found[name]
        np.testing.assert_array_equal(got_codes, codes[index[name]].ravel())
        step = params[name].scale[0]
        np.testing.assert_allclose(got_floats, np.concatenate(rows), atol=1e-4 * step)
        np.testing.assert_allclose(got_model, model[FLOAT_INDEX[name]].ravel(), atol=1e-4 * step)


# The float model's tensor of each activation, from a look at the model.
FLOAT_INDEX = dict(
    zip(
        names(source(FLOAT, INT8, INPUTS, samples=1), "activation"),
        [0, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        strict=True,
    )
)


def test_the_figures_are_those_of_the_arrays():
    models = digits()
    report = engine.run(models)
    found = arrays(models)
    for row in report.layers:
        floats, codes, model = found[row.name]
        params = layer(models, row.name).params
        shape = layer(models, row.name).shape
        expected = figures(
            floats.reshape(-1, *shape[1:]),
            codes.reshape(-1, *shape[1:]),
            params.scale,
            params.zero_point,
            params.axis,
            params.bits,
            params.narrow_range,
            None if model is None else model.reshape(-1, *shape[1:]),
        )
        assert row.metrics is not None
        for figure in ("num_elements", "rmse_scale", "mean_error", "carried_rmse_scale", "sqnr_db"):
            assert getattr(row.metrics, figure) == pytest.approx(expected[figure], 1e-6, 1e-9)


def test_layers_are_in_the_order_in_which_the_model_runs():
    models = digits(samples=1)
    assert [(layer.op, layer.kind) for layer in models.layers] == [
        (None, "activation"),
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        *[("DEPTHWISE_CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        ("ADD", "activation"),
        ("AVERAGE_POOL_2D", "activation"),
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        ("MEAN", "activation"),
        *[("FULLY_CONNECTED", kind) for kind in ("weight", "bias", "activation")],
        ("SOFTMAX", "activation"),
    ]
    assert models.skipped == []
    assert models.notes == []
    assert models.files == [str(FLOAT), str(INT8), str(INPUTS)]


def test_weights_and_biases_are_what_both_files_hold():
    models = digits(samples=1)
    found = arrays(models)
    opened = {name: interpreter(path) for name, path in (("float", FLOAT), ("int8", INT8))}
    details = opened["int8"].get_tensor_details()
    pairs = {3: 8, 2: 3, 9: 5, 8: 2}  # dense and depthwise: int8 tensor -> float tensor
    for ours, theirs in pairs.items():
        detail = details[ours]
        made = layer(models, detail["name"])
        floats, codes, model = found[detail["name"]]
        quantization = detail["quantization_parameters"]
        np.testing.assert_array_equal(codes, opened["int8"].get_tensor(ours).ravel())
        np.testing.assert_array_equal(floats, opened["float"].get_tensor(theirs).ravel())
        assert model is None
        assert made.params.axis == quantization["quantized_dimension"]
        np.testing.assert_array_equal(made.params.scale, quantization["scales"])
        assert made.params.narrow_range == (made.kind == "weight")


@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_every_kind_of_kernels_gives_sound_figures(kernels):
    report = engine.run(digits(kernels=kernels))
    assert all(row.metrics.rmse_scale < 0.6 for row in report.layers)


def test_samples_are_the_first():
    all_of_them, few = arrays(digits()), arrays(digits(samples=3))
    for name, kinds in few.items():
        for some, every in zip(kinds, all_of_them[name], strict=True):
            if some is not None:
                np.testing.assert_array_equal(some, every[: some.size])


def test_only_what_is_asked_for_is_done():
    models = digits()
    (part,) = models.parts([layer for layer in models.layers if layer.kind == "weight"][:1])
    assert [block.codes.dtype for _, block in part.blocks([])] == [np.int8]
    chosen = [layer for layer in models.layers if layer.op == "SOFTMAX"]
    (part,) = models.parts(chosen)
    assert part.layers == chosen
    assert [layer for layer, _ in part.blocks([])] == chosen * 40


def test_two_passes_at_once_do_not_disturb_each_other():
    models = digits(samples=4)
    chosen = [layer for layer in models.layers if layer.kind == "activation"]
    (part,) = models.parts(chosen)
    alone = [block.codes.copy() for _, block in part.blocks([])]
    together = [
        (first[1].codes.copy(), second[1].codes.copy())
        for first, second in zip(part.blocks([]), part.blocks([]), strict=True)
    ]
    for codes, (first, second) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(codes, first)
        np.testing.assert_array_equal(codes, second)


def test_without_inputs_there_are_the_constants():
    models = source(FLOAT, INT8)
    assert {layer.kind for layer in models.layers} == {"weight", "bias"}
    assert len(models.layers) == 10
    assert models.notes == ["no inputs: weights and biases only"]
    assert models.samples is None


# --- all kinds of quantized model -----------------------------------------------------------------


def test_several_inputs_and_outputs_are_told_apart(tmp_path):
    models = branches(tmp_path, "branches_int8")
    assert models.skipped == []
    assert len(names(models, "activation")) == 15
    report = {row.name: row.metrics for row in engine.run(models).layers}
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


def test_float_inputs_are_fed_to_the_local_reference_as_numericverify_does(tmp_path):
    """With float inputs the first float operators read the samples themselves."""
    inputs = np.load(branch_inputs(tmp_path))
    found = arrays(branches(tmp_path, "branches_mixed"))
    weights = arrays(branches(tmp_path, "branches_int8"))["net_1/gate_1/MatMul"][0].reshape(32, 4)
    expected = inputs["flags"].astype(np.float32) @ weights.T
    np.testing.assert_allclose(found["net_1/gate_1/MatMul1"][0], expected.ravel(), atol=1e-5)

    models = branches(tmp_path, "branches_int8")
    params = layer(models, "serving_default_flags:0").params
    read = dequantize(quantize(inputs["flags"].astype(np.float32), params), params)
    local = arrays(models)["net_1/gate_1/MatMul1"][0]
    np.testing.assert_allclose(local, (read @ weights.T).ravel(), atol=1e-5)


def test_int16_activations_and_int64_biases(tmp_path):
    models = branches(tmp_path, "branches_int16")
    assert {layer.params.dtype for layer in models.layers if layer.kind == "activation"} == {
        "int16"
    }
    biases = [layer for layer in models.layers if layer.kind == "bias"]
    assert [layer.params.dtype for layer in biases] == ["int32"] * len(biases)
    assert biases
    report = {row.name: row.metrics for row in engine.run(models).layers}
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
    (row,) = (row for row in engine.run(models).layers if row.name == made.name)
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
    (row,) = engine.run(models).layers
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
    row = engine.run(models).layers[0]
    assert row.metrics.num_elements == 3 * 9 * 7


@pytest.mark.parametrize("kind", ["branches_float", "branches_int8"])
def test_a_model_without_signatures_is_paired_by_its_tensors(tmp_path, kind):
    def unsign(model):
        model.signatureDefs = []

    path = edited(DATA / f"{kind}.tflite", tmp_path / "unsigned.tflite", unsign)
    inputs, here = branch_inputs(tmp_path), DATA / "branches_float.tflite"
    there = DATA / "branches_int8.tflite"
    models = source(path, there, inputs) if kind.endswith("float") else source(here, path, inputs)
    expected = engine.run(source(here, there, inputs))
    assert engine.run(models).layers == expected.layers


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
            "the runtime lacks the custom operator Mystery\\x1b, and it needs what that computes",
        )
    ]
    assert len(models.layers) == 19
    expected = arrays(digits(samples=2))
    for name, kinds in arrays(models).items():
        np.testing.assert_array_equal(kinds[1], expected[name][1])


# --- TFLite's debug mode --------------------------------------------------------------------------


def test_debug_models_are_read_from_their_verify_pairs(tmp_path):
    inputs = branch_inputs(tmp_path)
    models = LitertModels([str(DATA / "branches_debug.tflite")], str(inputs))
    twin = branches(tmp_path, "branches_mixed")
    assert models.skipped == []
    ours, theirs = engine.run(models).layers, engine.run(twin).layers
    assert [(row.op, row.kind) for row in ours] == [(row.op, row.kind) for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our.metrics.rmse_scale == pytest.approx(their.metrics.rmse_scale, 1e-3, 1e-6)
        assert our.metrics.model_rmse_scale is None


def test_a_debug_model_beside_its_float_model_is_a_quantized_model(tmp_path):
    models = branches(tmp_path, "branches_debug")
    assert len(models.notes) == 1
    assert "NumericVerify operators are left out" in models.notes[0]
    ours, theirs = (
        engine.run(models).layers,
        engine.run(branches(tmp_path, "branches_mixed")).layers,
    )
    for our, their in zip(ours, theirs, strict=True):
        for figure in ("rmse_scale", "model_rmse_scale"):
            expected = getattr(their.metrics, figure)
            assert (getattr(our.metrics, figure) or 0) == pytest.approx(expected or 0, 1e-3, 1e-6)


# --- pairing --------------------------------------------------------------------------------------


def rename(change):
    def apply(model):
        for index, tensor in enumerate(model.subgraphs[0].tensors):
            tensor.name = change(index, tensor.name)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda index, name: b"t%d" % index,
        lambda index, name: b"",
        lambda index, name: b"all the same",
        lambda index, name: name + b"_int8",
        lambda index, name: name + b"7",
        lambda index, name: b"arith.constant%d" % (100 - index),
        lambda index, name: b"\xff\xfe" + name,
    ],
    ids=["numbers", "empty", "one name", "suffix", "digit", "made up", "no utf-8"],
)
@pytest.mark.parametrize("pair", ["digits", "branches"])
def test_names_are_not_needed_to_find_partners(tmp_path, pair, change):
    floats, int8, inputs = FLOAT, INT8, INPUTS
    if pair == "branches":
        floats, int8 = DATA / "branches_float.tflite", DATA / "branches_int8.tflite"
        inputs = branch_inputs(tmp_path)
    renamed = edited(int8, tmp_path / "renamed.tflite", rename(change))
    models = source(floats, renamed, inputs, samples=2)
    expected = source(floats, int8, inputs, samples=2)
    assert models.skipped == []
    assert len({layer.name for layer in models.layers}) == len(expected.layers)
    pairs = zip(arrays(models).values(), arrays(expected).values(), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_names_that_lie_about_constants_do_not_matter(tmp_path):
    """Weights of one shape whose names are swapped are found by their operators."""
    left, right = b"net_1/left_1/convolution", b"net_1/right_1/convolution"
    swap = {left: right, right: left}
    path = edited(
        DATA / "branches_int8.tflite",
        tmp_path / "q.tflite",
        rename(lambda index, name: swap.get(name, name)),
    )
    models = source(DATA / "branches_float.tflite", path)
    expected = arrays(source(DATA / "branches_float.tflite", DATA / "branches_int8.tflite"))
    np.testing.assert_array_equal(arrays(models)[left.decode()][0], expected[right.decode()][0])


def test_what_has_no_partner_is_listed_with_the_reason(tmp_path):
    def another_shape(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.name == b"digits_1/logits_1/BiasAdd":
                tensor.shape = [5, 2]

    path = edited(FLOAT, tmp_path / "f.tflite", another_shape)
    models = source(path, INT8)
    assert [name for name, _ in models.skipped] == ["digits_1/logits_1/BiasAdd"]
    assert models.skipped[0][1] == "its shape is [10], and [5, 2] in the float model"


def test_the_two_in_the_wrong_order_are_put_right_with_a_note():
    models = source(INT8, FLOAT, INPUTS, samples=2)
    assert len(models.notes) == 1
    assert "taken in this order" in models.notes[0]
    assert engine.run(models).layers == engine.run(digits(samples=2)).layers


def test_quantized_weights_of_the_float_model_are_no_reference(tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.ones((2, 16)))
    dynamic = DATA / "dense_dynamic.tflite"

    def coarser(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.INT8:
                tensor.quantization.scale = np.asarray(tensor.quantization.scale) * 1.0001

    other = edited(dynamic, tmp_path / "other.tflite", coarser)
    message = refused(other, dynamic, inputs=inputs)
    assert "in the float model it is quantized too: there is no float reference" in message


# --- what is refused ------------------------------------------------------------------------------


def test_one_model_twice():
    assert "are the same model" in refused(FLOAT, FLOAT)
    assert "are the same model" in refused(INT8, INT8)


def test_one_model_alone():
    message = refused(INT8, inputs=INPUTS)
    assert "found 1 model, expected a float and a quantized one" in message


def test_two_float_or_two_quantized_models():
    floats = DATA / "branches_float.tflite"
    assert "found no quantized tensor in either" in refused(FLOAT, floats)
    assert "both quantized" in refused(INT8, DATA / "branches_int8.tflite")


def test_two_networks():
    assert "are not the same network" in refused(DATA / "anysize_float.tflite", INT8)


def test_two_trainings_of_one_network(tmp_path):
    def retrain(model):
        rng = np.random.default_rng(0)
        for tensor in model.subgraphs[0].tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.type == schema.TensorType.FLOAT32 and data is not None:
                values = rng.permutation(np.asarray(data).view("<f4"))
                model.buffers[tensor.buffer].data = values.view(np.uint8)

    message = refused(edited(FLOAT, tmp_path / "f.tflite", retrain), INT8, inputs=INPUTS)
    assert "are not the same network: 5 of 5 weights do not agree" in message


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"PK\x03\x04TFL3", b"\x1c\0\0\0TFL3" + b"\xff" * 50]
)
def test_other_files(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    message = refused(FLOAT, path)
    assert message.startswith(str(path))
    assert "expected a" in message


def test_missing_files(tmp_path):
    assert "No such file" in refused(FLOAT, tmp_path / "none.tflite")
    assert "No such file" in refused(FLOAT, INT8, inputs=tmp_path / "none.npz")


def test_inputs_that_do_not_fit(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))
    message = refused(FLOAT, INT8, inputs=tmp_path / "x.npy")
    assert "found shape (3, 8, 8), expected (samples, 8, 8, 1) for model input 'image'" in message


def test_operators_that_the_runtime_lacks(tmp_path):
    def future(model):
        for code in model.operatorCodes:
            code.version = 99

    paths = [edited(path, tmp_path / path.name, future) for path in (FLOAT, INT8)]
    message = refused(*paths, inputs=INPUTS)
    assert "cannot be loaded by LiteRT: " in message
    assert "version '99'" in message


def test_a_scale_that_is_none_makes_an_unreadable_layer(tmp_path):
    def spoil(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.name == b"digits_1/logits_1/MatMul":
                tensor.quantization.scale = np.asarray(tensor.quantization.scale) * -1

    path = edited(INT8, tmp_path / "q.tflite", spoil)
    report = engine.run(source(FLOAT, path))
    (row,) = (row for row in report.layers if row.name == "digits_1/logits_1/MatMul")
    assert row.metrics is None
    assert "field 'scale': found -0.0" in row.diagnosis.evidence
    assert str(path) in row.diagnosis.evidence


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_broken_models_are_refused_or_reported_never_worse(tmp_path, kind):
    content = (FLOAT if kind == "float" else INT8).read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(100):
        broken = bytearray(content)
        # In the tables, not the weights; no run, for the runtime itself aborts now and then.
        for place in rng.integers(len(content) - 9000, len(content), rng.integers(1, 5)):
            broken[place] = rng.integers(256)
        path = tmp_path / "broken.tflite"
        path.write_bytes(bytes(broken))
        pair = (path, INT8) if kind == "float" else (FLOAT, path)
        with contextlib.suppress(QdebugError):
            engine.run(source(*pair))


# --- the rest -------------------------------------------------------------------------------------


def fresh(code):
    """Run `code` in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def test_the_runtimes_own_chatter_does_not_reach_the_user():
    ran = fresh(
        f"""
        import sys
        from qdebug.run import engine
        from qdebug.sources.tflite.source import LitertModels
        models = LitertModels([{str(FLOAT)!r}, {str(INT8)!r}], {str(INPUTS)!r}, samples=2)
        engine.run(models)
        print("still heard", file=sys.stderr)
        """
    )
    assert ran.returncode == 0
    assert ran.stderr == "still heard\n"


def test_a_missing_extra_is_said_with_what_to_install():
    ran = fresh(
        f"""
        import sys
        sys.modules["ai_edge_litert"] = None
        import qdebug.sources.tflite.source as litert
        try:
            litert.LitertModels([{str(FLOAT)!r}, {str(INT8)!r}], {str(INPUTS)!r})
        except litert.QdebugError as error:
            print(error)
        """
    )
    assert ran.stdout == "LiteRT models need an extra: pip install 'qdebug[litert]'\n"


def test_the_extra_is_not_imported_before_it_is_used():
    ran = fresh("import sys, qdebug.sources.tflite.source; print('ai_edge_litert' in sys.modules)")
    assert ran.stdout == "False\n"


def test_memory_does_not_grow_with_the_samples(tmp_path):
    import tracemalloc

    images = np.load(INPUTS)["image"]
    peaks = []
    for times in (4, 16):  # in 64 samples, small blocks have been put together
        np.save(tmp_path / "x.npy", np.concatenate([images] * times))
        models = source(FLOAT, INT8, tmp_path / "x.npy")
        tracemalloc.start()
        engine.run(models)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
