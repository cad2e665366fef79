"""The rounding of codes in pair files, on the command line, in reports and of ONNX models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.report.json import dumps, loads
from qdebug.report.report import LayerReport
from qdebug.run.session import run
from qdebug.sources.pair_file.read import PairFiles

Run = Callable[..., Result]
Write = Callable[..., Path]

TIES = (np.arange(-50, 50) + 0.5).astype(np.float32)


def layer(path: Path, *more: Path) -> LayerReport:
    (found,) = run(PairFiles([str(each) for each in (path, *more)])).layers
    return found


def half_even(**more: Any) -> dict[str, Any]:
    codes = np.rint(TIES).astype(np.int8)
    return {"float": TIES, "quantized": codes, "scale": 1.0, "rounding": "half_even"} | more


@pytest.mark.parametrize(
    ("rounding", "carried"), [("half_even", 0.0), ("half_away", 0.5**0.5), (None, 0.5**0.5)]
)
def test_a_pair_file_says_how_its_codes_are_rounded(
    rounding: str | None, carried: float, write_pairs: Write
) -> None:
    fields = half_even(rounding=rounding)
    found = layer(write_pairs({"a": {k: v for k, v in fields.items() if v is not None}}))
    assert found.rounding == (rounding or "half_away")
    assert found.metrics is not None
    assert found.metrics.carried_rmse_scale == pytest.approx(carried)
    assert found.metrics.rmse_scale == 0.5


@pytest.mark.parametrize(
    ("rounding", "message"),
    [
        ("half-even", "found 'half-even', expected half_away or half_even"),
        ("", "found '', expected half_away or half_even"),
        (np.array(["half_even"] * 2), "found <U9 of shape (2,), expected text"),
        (b"half_even", "found |S9 of shape (), expected text"),
        (1, "found int64 of shape (), expected text"),
    ],
)
def test_another_rounding_makes_the_layer_unreadable(
    rounding: Any, message: str, write_pairs: Write
) -> None:
    found = layer(write_pairs({"a": half_even(rounding=rounding)}))
    assert str(found.unreadable).endswith(f"layer 'a': field 'rounding': {message}")


def test_files_that_round_otherwise_disagree(write_pairs: Write) -> None:
    first = write_pairs({"a": half_even()}, "a.npz")
    other = write_pairs({"a": half_even(rounding="half_away")}, "b.npz")
    silent = {k: v for k, v in half_even().items() if k != "rounding"}
    for second in (other, write_pairs({"a": silent}, "c.npz")):
        expected = f"field 'rounding': found half_away, expected half_even, as in {first}"
        assert expected in str(layer(first, second).unreadable)
    assert layer(other, write_pairs({"a": silent}, "c.npz")).unreadable is None


@pytest.mark.parametrize("rounding", ["half_away", "half_even"])
def test_quantize_records_its_rounding_where_it_is_not_the_default(
    rounding: str, tmp_path: Path, qdebug: Run
) -> None:
    np.savez(tmp_path / "weights.npz", a=TIES)
    pairs = tmp_path / "pairs.npz"
    options = ["--range", "-127.5", "127.5", "--rounding", rounding.replace("_", "-")]
    assert qdebug("quantize", tmp_path / "weights.npz", "-o", pairs, *options).exit_code == 0
    with np.load(pairs) as written:
        assert ("a/rounding" in written) == (rounding == "half_even")
    found = layer(pairs)
    assert found.rounding == rounding
    assert found.metrics is not None
    assert found.metrics.max_abs_error_scale == 0.5
    assert found.metrics.carried_rmse_scale == 0


def test_a_report_holds_the_rounding(write_pairs: Write, qdebug: Run) -> None:
    path = write_pairs({"a": half_even()})
    data = json.loads(qdebug("report", path, "--format", "json").stdout)
    assert data["layers"][0]["rounding"] == "half_even"
    report = run(PairFiles([str(path)]))
    assert loads(dumps(report), "r.json") == report
    del data["layers"][0]["rounding"]  # an older report
    assert loads(json.dumps(data), "r.json").layers[0].rounding is None


def test_a_live_onnx_model_on_a_half_step_grid_carries_nothing(tmp_path: Path, qdebug: Run) -> None:
    """All values lie exactly between codes; QuantizeLinear rounds them to even."""
    onnx = pytest.importorskip("onnx", reason="needs qdebug[onnx]")
    pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")
    from qdebug.sources.onnx.source import OnnxModels

    node, number = onnx.helper.make_node, onnx.numpy_helper.from_array
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", TIES.size])
        for name in "xy"
    ]
    qdq = []
    for name in "xy":
        ends = (name, f"{name}_codes", f"{name}_back")
        qdq.append(node("QuantizeLinear", [ends[0], "scale", "zero"], [ends[1]]))
        qdq.append(node("DequantizeLinear", [ends[1], "scale", "zero"], [ends[2]]))
    constants = [number(np.float32(0.25), "scale"), number(np.int8(3), "zero")]
    half_step = number(np.float32(0.125), "half_step")
    info_back = onnx.helper.make_tensor_value_info("y_back", 1, ["N", TIES.size])
    for file, nodes, output, held in (
        ("float", [node("Add", ["x", "half_step"], ["y"])], info[1], [half_step]),
        (
            "int8",
            [*qdq[:2], node("Add", ["x_back", "half_step"], ["y"]), *qdq[2:]],
            info_back,
            [half_step, *constants],
        ),
    ):
        graph = onnx.helper.make_graph(nodes, file, info[:1], [output], held)
        opsets = [onnx.helper.make_opsetid("", 21)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, tmp_path / f"{file}.onnx")
    np.save(tmp_path / "x.npy", (0.25 * TIES).reshape(1, -1))
    paths = [str(tmp_path / f"{file}.onnx") for file in ("float", "int8")]
    inputs = str(tmp_path / "x.npy")
    layers = run(OnnxModels(paths, inputs)).layers
    assert [each.name for each in layers] == ["x", "y"]
    for each in layers:
        assert each.rounding == "half_even"
        assert each.metrics is not None
        assert each.metrics.max_abs_error_scale == 0.5
        assert each.metrics.carried_rmse_scale == 0

    pairs = tmp_path / "pairs.npz"
    assert qdebug("capture", *paths, "--inputs", inputs, "-o", pairs).exit_code == 0
    captured = run(PairFiles([str(pairs)])).layers
    assert [(each.rounding, each.metrics) for each in captured] == [
        (each.rounding, each.metrics) for each in layers
    ]
