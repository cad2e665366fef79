"""Suggestions in the form of each converter, and for people."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.advise.suggest import suggestions
from qdebug.render.suggestions import FORMS, table, written
from qdebug.report.diagnosis import Diagnosis
from tests.paths import SAMPLES
from tests.reports import figures, layer, report, saved

Run = Callable[..., Result]

DIGITS = SAMPLES / "digits.npz"
HOSTILE = "a'b\"c\\d\n\x1b[2J\u202e;.*+?()[]{}|^$ é\U0001f600\ud800"


# --- what converters read -----------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A saved report of two layers, the first of a name that means something everywhere."""
    return saved(
        tmp_path,
        layer(f"tensor{HOSTILE}", nodes=[HOSTILE], op="Conv", **figures(0.9, 0.3, None, 10.0)),
        layer("=cmd()", nodes=["plain"], op="Conv", **figures(0.9, 0.3, None, 20.0)),
    )


@pytest.mark.parametrize("form", ["table", *FORMS])
def test_a_hostile_name_is_one_entry_and_no_escape(form: str, qdebug: Run, hostile: Path) -> None:
    result = qdebug("suggest", hostile, "--for", form, "--budget", "1")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    if form == "names":
        assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize("form", ["tflite", "onnxruntime"])
def test_lists_are_python_lists(form: str, qdebug: Run, hostile: Path, tmp_path: Path) -> None:
    out = tmp_path / "list.py"
    result = qdebug("suggest", hostile, "--for", form, "--budget", "1", "-o", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert ast.literal_eval(out.read_text()) == [HOSTILE, "plain"]
    assert ast.literal_eval(qdebug("suggest", hostile, "--for", form, "--budget", "0").stdout) == []


def test_the_recipe_leaves_these_operators_and_no_others(qdebug: Run, hostile: Path) -> None:
    result = qdebug("suggest", hostile, "--for", "ai-edge-quantizer", "--budget", "1")
    base, *left, end = json.loads(result.stdout)
    assert (base["regex"], base["operation"]) == (".*", "*")
    assert [entry["algorithm_key"] for entry in left] == ["no_quantize"] * 2
    # The second is the last, so it makes the model's output.
    assert end == {"regex": ".*", "operation": "OUTPUT", "algorithm_key": "no_quantize"}
    # A scope is the names of an operator's outputs, each with a semicolon.
    assert re.search(left[0]["regex"], f"{HOSTILE};")
    assert re.search(left[1]["regex"], "plain;")
    for other in ("plain2;", "a;plain;", "plain;b;", "plain;\n", "plainx", HOSTILE):
        assert not any(re.search(entry["regex"], other) for entry in left)


def test_the_recipe_quantizes_the_rest_as_the_report_has_it() -> None:
    weights = [layer(f"w{i}", "weight", bits=4, axis=0) for i in range(2)]
    made = layer("y", bits=16, **figures(0.9, 0.3))
    (base,) = json.loads(written("ai-edge-quantizer", report(*weights, made), []))
    config = base["op_config"]
    assert config["weight_tensor_config"]["num_bits"] == 4
    assert config["weight_tensor_config"]["granularity"] == "CHANNELWISE"
    assert config["activation_tensor_config"]["num_bits"] == 16
    assert config["activation_tensor_config"]["symmetric"] is True
    (base,) = json.loads(written("ai-edge-quantizer", report(*weights), []))
    assert "activation_tensor_config" not in base["op_config"]


@pytest.fixture(scope="module")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A float ONNX network of three Gemm and a ReLU, its int8 twin, and inputs."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    rng = np.random.default_rng(3)
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    shapes = {"w0": (8, 16), "w1": (16, 16), "w2": (16, 4), "b0": (16,), "b1": (16,), "b2": (4,)}
    constants = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        make("Gemm", ["x", "w0", "b0"], ["h0"], name="first"),
        make("Relu", ["h0"], ["r0"], name="relu"),
        make("Gemm", ["r0", "w1", "b1"], ["h1"], name="second"),
        make("Gemm", ["h1", "w2", "b2"], ["y"], name="third"),
    ]
    float_type = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "g", [tensor("x", float_type, [1, 8])], [tensor("y", float_type, [1, 4])], constants
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(model, folder / "float.onnx")
    np.savez(folder / "x.npz", x=rng.normal(size=(20, 8)).astype(np.float32))
    quantize_onnx(folder / "float.onnx", folder / "int8.onnx", folder / "x.npz", [])
    return folder / "float.onnx", folder / "int8.onnx", folder / "x.npz"


def quantize_onnx(model: Path, out: Path, inputs: Path, nodes_to_exclude: list[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = iter(np.load(inputs)["x"])

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.samples, None)
            return None if sample is None else {"x": sample[np.newaxis]}

    quantize_static(
        model,
        out,
        Reader(),
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=nodes_to_exclude,
    )


@pytest.mark.slow
def test_onnx_runtime_follows_the_list(
    onnx_models: tuple[Path, Path, Path], qdebug: Run, tmp_path: Path
) -> None:
    import onnx

    model, quantized, inputs = onnx_models
    args = (model, quantized, "--inputs", inputs, "--for")
    named = ast.literal_eval(qdebug("suggest", *args, "onnxruntime", "--budget", "1").stdout)
    assert sorted(named) == ["first", "relu", "second", "third"]  # a ReLU goes with its Gemm
    worst = ast.literal_eval(qdebug("suggest", *args, "onnxruntime", "--top", "1").stdout)
    again = tmp_path / "again.onnx"
    quantize_onnx(model, again, inputs, worst)
    makers = {output: n.op_type for n in onnx.load(again).graph.node for output in n.output}
    for node in onnx.load(again).graph.node:
        if node.op_type == "Gemm":
            left = makers.get(node.input[1]) != "DequantizeLinear"
            assert left == (node.name in worst)


@pytest.mark.slow
def test_onnx_runtime_frees_what_only_this_node_has_quantized(
    onnx_models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The input goes with the Gemm that reads it. What is between two Gemms stays quantized."""
    import onnx

    model, _, inputs = onnx_models
    for node, tensor, freed in (("first", "x", True), ("second", "r0", False)):
        again = tmp_path / f"{node}.onnx"
        quantize_onnx(model, again, inputs, [node])
        rounded = [n.input[0] for n in onnx.load(again).graph.node if n.op_type == "QuantizeLinear"]
        assert (tensor not in rounded) == freed


@pytest.mark.slow
def test_a_pair_file_and_a_saved_report_keep_the_nodes(
    onnx_models: tuple[Path, Path, Path], qdebug: Run, tmp_path: Path
) -> None:
    model, quantized, inputs = onnx_models
    live = (model, quantized, "--inputs", inputs)
    form = ("--for", "onnxruntime", "--budget", "1")
    fresh = qdebug("suggest", *live, *form).stdout
    pairs, path = tmp_path / "pairs.npz", tmp_path / "report.json"
    qdebug("capture", *live, "-o", pairs)
    qdebug("report", *live, "-o", path)
    assert qdebug("suggest", pairs, *form).stdout == fresh
    assert qdebug("suggest", path, *form).stdout == fresh


@pytest.mark.slow
def test_tflites_names_are_the_float_models(qdebug: Run) -> None:
    """TFLite compares with the float model's output tensors, as NumericVerify's CSV has them."""
    result = qdebug("suggest", DIGITS, "--for", "tflite", "--budget", "1")
    with np.load(DIGITS) as pairs:
        nodes = {str(v) for key in pairs.files if key.endswith("/nodes") for v in pairs[key]}
    assert set(ast.literal_eval(result.stdout)) < nodes


# --- for people, and what goes wrong ------------------------------------------------------------


def test_the_table_fits_a_narrow_terminal() -> None:
    name = "long/" * 40
    found = suggestions(
        report(
            layer(name, diagnosis=Diagnosis("bad", "carried", "why " * 50, ""), **figures(1, 0.3))
        )
    )
    for width in (60, 80, 100):
        assert max(map(len, table(found, found.candidates, width).splitlines())) <= width
    assert name in table(found, found.candidates)
