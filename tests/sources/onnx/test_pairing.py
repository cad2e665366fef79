"""Which tensor of the float ONNX model belongs to which of the quantized one."""

import zlib

import numpy as np
import pytest

from tests.sources.onnx.models import (
    NODE,
    Calibration,
    QuantFormat,
    TensorProto,
    helper,
    made,
    numpy_helper,
    onnx,
    quantize_static,
    renamed,
    report_of,
)


def plain_numbers(start):
    """A renaming as old exporters do it, with numbers that mean something else in each model."""
    numbers = {}
    return lambda name: numbers.setdefault(name, str(start + len(numbers)))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qdq-int8", "qop-int8"])
@pytest.mark.parametrize("shift", [0, 3, 17])
def test_numbers_for_names_mislead_nobody(models, opened, tmp_path, name, shift):
    floating = renamed(models / "float.onnx", plain_numbers(100), tmp_path / "f.onnx")
    quantized = renamed(models / f"{name}.onnx", plain_numbers(100 + shift), tmp_path / "q.onnx")
    found = list(report_of(opened(quantized, floating)).values())
    known = list(report_of(opened(name)).values())
    assert [layer.metrics for layer in found] == [layer.metrics for layer in known]


@pytest.mark.slow
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


def test_what_has_no_partner_is_said(models, opened, tmp_path):
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
    assert any("is the partner of 'more'" in note for note in source.notes)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_axis_of_length_minus_one_is_one_of_any(models, opened, tmp_path):
    for name in ("float", "qdq-int8"):
        model = onnx.load(models / f"{name}.onnx")
        for axis in (0, 2):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = -1
        onnx.save(model, tmp_path / f"{name}.onnx")
    source = opened(tmp_path / "qdq-int8.onnx", tmp_path / "float.onnx")
    assert report_of(source) == report_of(opened())
