"""``qdebug suggest``: who is suggested, in what order, and in the form of each converter."""

import ast
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from qdebug.advise.suggest import Suggestion, chosen, suggestions
from qdebug.errors import QdebugError
from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.render.suggestions import FORMS, table, written
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.json import dumps, loads
from qdebug.report.report import LayerReport, Report
from tests.conftest import SAMPLES

Run = Callable[..., Result]

DIGITS = SAMPLES / "digits.npz"
HOSTILE = "a'b\"c\\d\n\x1b[2J\u202e;.*+?()[]{}|^$ é\U0001f600\ud800"


def layer(name: str, kind: str | None = "activation", **given: Any) -> LayerReport:
    """A layer of these figures; all others are unknown."""
    about = {"op": "CONV_2D", "nodes": None, "bits": 8, "axis": None, "diagnosis": None}
    about |= {key: given.pop(key) for key in list(given) if key in about}
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    return LayerReport(name=name, kind=kind, metrics=Metrics(**(figures | given)), **about)


def report(*layers: LayerReport, sources: tuple[str, ...] = ()) -> Report:
    return Report(sources=list(sources), layers=list(layers))


def figures(own: float, rounding: float, inherited: float | None = None, sqnr: float | None = 30.0):
    return {
        "rmse_scale": own,
        "quantizer_rmse_scale": rounding,
        "inherited_rmse_scale": inherited,
        "sqnr_db": sqnr,
    }


def by_name(found: Any) -> dict[str, Suggestion]:
    return {suggestion.layer: suggestion for suggestion in found.candidates}


# --- what is suggested, and its shares ----------------------------------------------------------


def test_the_error_at_the_output_is_traced_back_to_where_it_was_made() -> None:
    """By hand: 9 / (9 + 16) of the last layer's error is its own; half of the rest the conv's."""
    found = suggestions(
        report(
            layer("input", op=None, **figures(0.3, 0.3, 0.0)),
            layer("conv", **figures(0.5, 0.3, 0.5)),
            layer("dense", op="FULLY_CONNECTED", **figures(3.0, 1.0, 4.0)),
        )
    )
    assert found.basis == "model"
    dense, conv = by_name(found)["dense"], by_name(found)["conv"]
    assert dense.share == pytest.approx(0.36)
    assert dense.removes == pytest.approx(0.36)  # the output is not rounded any more
    assert conv.share == pytest.approx(0.64 * 0.5)
    assert conv.removes == pytest.approx(0.64 * 0.5 * (0.25 - 0.09) / 0.25)
    assert [s.layer for s in found.candidates] == ["dense", "conv"]


def test_shares_and_the_inputs_own_make_up_the_whole_error() -> None:
    layers = [layer("in", op=None, **figures(0.2, 0.2, 0.0))]
    layers += [layer(f"l{i}", **figures(0.5 + i / 7, 0.3, 0.1 + i / 3)) for i in range(9)]
    shares = [s.share for s in suggestions(report(*layers)).candidates]
    left = math.prod(
        (0.1 + i / 3) ** 2 / ((0.1 + i / 3) ** 2 + (0.5 + i / 7) ** 2) for i in range(9)
    )
    assert math.fsum(shares) + left == pytest.approx(1)


def test_without_a_run_of_the_float_model_local_noise_to_signal_ratios_compare() -> None:
    """By hand: ratios 0.01 and 0.001, whatever the layers' own steps and units are."""
    found = suggestions(
        report(
            layer("worse", **figures(0.4, 0.2, None, 20.0)),
            layer("better", **figures(9.0, 3.0, None, 30.0)),
        )
    )
    assert found.basis == "local"
    worse, better = found.candidates
    assert worse.layer == "worse"
    assert worse.share == pytest.approx(10 / 11)
    assert worse.removes == pytest.approx(10 / 11 * 0.75)
    assert better.removes == pytest.approx(1 / 11 * (81 - 9) / 81)


def test_weights_count_where_the_reference_was_computed_with_them_quantized() -> None:
    """QDQ: the activation's own error is rounding only; its weights' 20 dB are 1 % of power."""
    qdq = report(
        layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=20.0),
        layer("y", nodes=["n"], **figures(0.3, 0.3, None, 40.0)),
        layer("last", **figures(0.3, 0.1, None, 40.0)),
    )
    found = by_name(suggestions(qdq))["y"]
    assert found.share == pytest.approx((1e-4 + 1e-2) / (2e-4 + 1e-2))
    assert found.removes == pytest.approx(1e-2 / (2e-4 + 1e-2))
    assert "weights' SQNR 20.0 dB" in found.reason


def test_inherited_error_is_shared_between_unseen_weights_and_the_layer_before() -> None:
    """By hand: 0.01 of power arrives, the weights add 0.03: three quarters are theirs."""
    before = layer("x", op=None, **figures(0.1, 0.1, 0.0, 20.0))
    weight = layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=10 * math.log10(1 / 0.03))
    made = layer("y", nodes=["n"], **figures(0.3, 0.3, 0.4, 40.0))
    last = layer("z", **figures(0.5, 0.3, 0.5, 40.0))
    found = by_name(suggestions(report(before, weight, made, last)))["y"]
    assert found.share == pytest.approx(0.5 * (0.09 + 0.12) / 0.25)
    assert found.removes == pytest.approx(0.5 * 0.12 / 0.25)


def test_weights_are_not_counted_twice() -> None:
    """LiteRT: the reference has float weights, so their error is in the activation's own."""
    weight = layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=20.0)
    made = layer("y", nodes=["n"], **figures(0.6, 0.3, 0.6))
    assert by_name(suggestions(report(weight, made)))["y"].share == pytest.approx(0.5)


def test_weights_alone_name_their_operators() -> None:
    found = suggestions(
        report(
            layer("w1", "weight", nodes=["n1"], rmse_scale=0.3, sqnr_db=30.0),
            layer("w2", "weight", nodes=["n2"], rmse_scale=0.3, sqnr_db=20.0),
            layer("b2", "bias", nodes=["n2"], rmse_scale=0.3, sqnr_db=20.0),
        )
    )
    assert [s.nodes for s in found.candidates] == [("n2",), ("n1",)]
    assert found.candidates[0].removes == pytest.approx(10 / 11)


def test_inputs_conversions_and_operators_that_only_round_are_no_candidates() -> None:
    found = suggestions(
        report(
            layer("input", op=None, **figures(5, 0.3, 0.0)),
            layer("again", op="QUANTIZE", **figures(5, 0.3, 0.1)),
            layer("pool", op="MAX_POOL_2D", **figures(0.3, 0.3, 0.1)),
            layer("conv", **figures(0.4, 0.3, 0.1)),
        )
    )
    assert [s.layer for s in found.candidates] == ["conv"]


def test_layers_of_a_plain_pair_file_are_candidates() -> None:
    found = suggestions(report(layer("a", None, op=None, **figures(0.6, 0.3))))
    assert [s.layer for s in found.candidates] == ["a"]


def test_several_outputs_of_one_operator_are_one_suggestion() -> None:
    found = suggestions(
        report(
            layer("a", nodes=["a", "b"], **figures(0.4, 0.3, None, 30.0)),
            layer("b", nodes=["a", "b"], **figures(0.9, 0.3, None, 20.0)),
            layer("c", nodes=["c"], **figures(0.9, 0.3, None, 20.0)),
        )
    )
    assert [s.layer for s in found.candidates] == ["b", "c"]
    assert found.candidates[0].share == pytest.approx(11 / 21)


def test_tflites_csv_still_tells_an_order() -> None:
    nothing = {"quantizer_rmse_scale": None, "inherited_rmse_scale": None, "sqnr_db": None}
    found = suggestions(
        report(
            layer("a", None, rmse_scale=0.5, **nothing),
            layer("b", None, rmse_scale=0.8, **nothing),
            layer("round", None, rmse_scale=0.28, **nothing),
            layer("unknown", None, rmse_scale=None, **nothing),
        )
    )
    assert found.basis == "steps"
    assert [s.layer for s in found.candidates] == ["b", "a"]
    total = 0.5**2 + 0.8**2 + 0.28**2
    assert found.candidates[0].removes == pytest.approx((0.64 - 1 / 12) / total)
    assert found.untold == ["unknown"]


def test_the_diagnosis_is_the_reason_where_there_is_one() -> None:
    carried = Diagnosis("bad", "carried", "it arrived so", "look before it")
    fine = Diagnosis("ok", "ok", "rounding alone", "nothing")
    one, two = suggestions(
        report(
            layer("a", diagnosis=carried, **figures(0.9, 0.3, None, 10.0)),
            layer("b", diagnosis=fine, **figures(0.9, 0.3, None, 20.0)),
        )
    ).candidates
    assert one.reason == "carried: it arrived so"
    assert "rmse/scale 0.900, 0.300 by rounding" in two.reason


def test_no_operator_is_an_error_and_no_error_at_all_is_none() -> None:
    with pytest.raises(QdebugError, match="found no operator among the layers"):
        suggestions(report(layer("b", "bias", rmse_scale=0.3)))
    assert suggestions(report(layer("a", **figures(0.0, 0.0, 0.0, None)))).candidates == []


figure = st.none() | st.floats(allow_nan=False, allow_infinity=False)
layers = st.builds(
    lambda kind, op, nodes, values: layer(
        "x", kind, op=op, nodes=nodes, **dict(zip(figures(0, 0), values, strict=True))
    ),
    st.sampled_from([None, "activation", "weight", "bias"]),
    st.sampled_from([None, "CONV_2D", "QUANTIZE"]),
    st.none() | st.lists(st.sampled_from(["", "n", "m"]), max_size=2),
    st.tuples(figure, figure, figure, figure),
)


@given(st.lists(layers, max_size=6))
def test_whatever_a_saved_report_says_shares_are_shares(entries: list[LayerReport]) -> None:
    entries = [replace(entry, name=str(i)) for i, entry in enumerate(entries)]
    try:
        found = suggestions(loads(dumps(report(*entries)), "report.json"))
    except QdebugError:
        return
    for suggestion in found.candidates:
        assert 0 < suggestion.removes <= suggestion.share * (1 + 1e-9)
    assert math.fsum(s.share for s in found.candidates) <= 1 + 1e-9
    removes = [s.removes for s in found.candidates]
    assert removes == sorted(removes, reverse=True)


# --- how many -----------------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-9, 1), min_size=1, max_size=9),
    st.floats(0, 1),
    st.none() | st.integers(1, 9),
)
def test_a_budget_takes_the_fewest_that_reach_it(
    removes: list[float], budget: float, top: int | None
) -> None:
    candidates = [Suggestion("x", (), None, r, r, "") for r in sorted(removes, reverse=True)]
    kept = chosen(candidates, top=top, budget=budget)
    assert kept == candidates[: len(kept)]
    total = math.fsum(removes)
    reached = math.fsum(s.removes for s in kept)
    assert reached >= budget * total * (1 - 1e-9) or len(kept) == top
    # The largest one fewer, the best that so few can do, do not reach it.
    if kept:
        assert math.fsum(s.removes for s in kept[:-1]) < budget * total
    assert len(kept) <= (top or 9)


def test_top_and_budget_on_the_command_line(qdebug: Run) -> None:
    def names(*options: str) -> list[str]:
        result = qdebug("suggest", DIGITS, "--for", "names", *options)
        assert result.exit_code == 0
        return result.stdout.splitlines()

    everyone = names("--budget", "100%")
    assert len(everyone) == 6  # five convolutions and dense layers, and the softmax at the end
    assert names("--top", "2") == everyone[:2]
    assert names() == names("--budget", "0.8") == names("--budget", "80%")
    assert names("--budget", "0") == []
    assert names("--budget", "80%", "--top", "1") == everyone[:1]


# --- what converters read -----------------------------------------------------------------------


def saved(tmp_path: Path, *layers: LayerReport, sources: tuple[str, ...] = ("a.npz",)) -> Path:
    path = tmp_path / "report.json"
    path.write_text(dumps(report(*layers, sources=sources)))
    return path


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
    base, *left = json.loads(result.stdout)
    assert (base["regex"], base["operation"]) == (".*", "*")
    assert [entry["algorithm_key"] for entry in left] == ["no_quantize"] * 2
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


@pytest.mark.filterwarnings("ignore")  # of the packages' own
def test_ai_edge_quantizer_follows_the_recipe(qdebug: Run, tmp_path: Path) -> None:
    """Its own parser reads it, and the model that it makes has this operator in float."""
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    recipe = tmp_path / "recipe.json"
    qdebug("suggest", DIGITS, "--for", "ai-edge-quantizer", "--top", "1", "-o", recipe)
    made = quantizer.Quantizer(str(SAMPLES / "digits_float.tflite"))
    made.load_quantization_recipe(str(recipe))
    images = np.load(SAMPLES / "digits_inputs.npz")["image"]
    ranges = made.calibrate({"serving_default": [{"image": images}]}, num_threads=1)
    model = made.quantize(ranges, enable_progress_report=False).quantized_model
    ran = interpreter.Interpreter(model_content=bytes(model))
    (name,) = qdebug("suggest", DIGITS, "--for", "names", "--top", "1").stdout.splitlines()
    types = {t["name"]: np.dtype(t["dtype"]).name for t in ran.get_tensor_details()}
    assert types[name] == "float32"
    assert types["digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"] == "int8"


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


@pytest.mark.parametrize("nodes", [np.array([1, 2]), np.array([["a"]]), np.array(b"a")])
def test_nodes_of_a_pair_file_are_texts(
    nodes: Any, qdebug: Run, write_pairs: Callable[..., Path], healthy: dict[str, Any]
) -> None:
    result = qdebug("suggest", write_pairs({"a": healthy | {"nodes": nodes}, "b": healthy}))
    assert result.exit_code == 2
    assert "layer 'a': field 'nodes': found" in result.stderr
    assert "expected text: one, or a list" in result.stderr


def test_tflites_names_are_the_float_models(qdebug: Run) -> None:
    """TFLite compares with the float model's output tensors, as NumericVerify's CSV has them."""
    result = qdebug("suggest", DIGITS, "--for", "tflite", "--budget", "1")
    with np.load(DIGITS) as pairs:
        nodes = {str(v) for key in pairs.files if key.endswith("/nodes") for v in pairs[key]}
    assert set(ast.literal_eval(result.stdout)) < nodes


# --- for people, and what goes wrong ------------------------------------------------------------


def test_the_table_says_who_why_and_how_much(qdebug: Run) -> None:
    result = qdebug("suggest", DIGITS, "--top", "1")
    assert "22.1 %" in result.stdout
    assert "digits_1/stem_relu6_1/Relu6" in result.stdout
    assert "(CONV_2D)" in result.stdout
    assert "carried: the quantizer itself leaves 0.198 steps" in result.stdout
    assert "traced back" in result.stdout


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


def test_a_tensorflow_csv_can_be_followed(qdebug: Run, tmp_path: Path) -> None:
    path = tmp_path / "stats.csv"
    path.write_text(
        "op_name,tensor_idx,num_elements,stddev,mean_error,max_abs_error,mean_squared_error,scale,"
        "zero_point,tensor_name\n"
        "CONV_2D,1,100,0.1,0,0.3,0.01,0.1,0,conv\nCONV_2D,2,100,0.1,0,0.3,0.04,0.1,0,worse\n"
    )
    result = qdebug("suggest", path, "--for", "tflite", "--budget", "1")
    assert ast.literal_eval(result.stdout) == ["worse", "conv"]


def test_nothing_to_suggest_is_said_and_no_failure(qdebug: Run, tmp_path: Path) -> None:
    path = saved(tmp_path, layer("a", op="ADD", **figures(0.3, 0.3, None)))
    result = qdebug("suggest", path, "--for", "names")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to suggest" in result.stderr


def test_layers_without_figures_are_named(qdebug: Run, tmp_path: Path) -> None:
    path = saved(tmp_path, layer("a", **figures(0.9, 0.3)), layer("b\x1b"))
    result = qdebug("suggest", path)
    assert result.exit_code == 0
    assert "1 layers lack figures to judge them by: 'b\\x1b'" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "2"), "--budget: found '2', expected a share from 0 to 1"),
        (("--budget", "most"), "--budget: found 'most', expected a share"),
        (("--budget", "-1%"), "--budget: found '-1%', expected a share"),
        (("--budget", "nan"), "--budget: found 'nan', expected a share"),
        (("--top", "0"), "'--top'"),
        (("--for", "torch"), "'--for'"),
        (("--for", "onnxruntime"), "found TFLite's operators (CONV_2D), expected ONNX's"),
        (("-o", "none/list"), "none/list: cannot be written"),
    ],
)
def test_wrong_options_are_explained(
    options: tuple[str, ...], message: str, qdebug: Run, tmp_path: Path
) -> None:
    result = qdebug("suggest", DIGITS, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("form", "source", "node", "message"),
    [
        ("tflite", "m.onnx", ["n"], "m.onnx: found a .onnx source, expected .tflite or .csv"),
        ("ai-edge-quantizer", "m.onnx", ["n"], "m.onnx: found a .onnx source"),
        ("onnxruntime", "m.TFLITE", ["n"], "m.TFLITE: found a .tflite source, expected .onnx"),
        ("onnxruntime", "m.npz", None, "layer 'a': its node's name is unknown"),
        ("onnxruntime", "m.npz", [""], "layer 'a': its node's name is unknown"),
    ],
)
def test_a_report_on_other_models_is_explained(
    form: str, source: str, node: list[str] | None, message: str, qdebug: Run, tmp_path: Path
) -> None:
    entry = layer("a", op="Conv", nodes=node, **figures(0.9, 0.3))
    result = qdebug("suggest", saved(tmp_path, entry, sources=(source,)), "--for", form)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_sources_that_cannot_be_used_are_explained(
    qdebug: Run, tmp_path: Path, write_pairs: Callable[..., Path], healthy: dict[str, Any]
) -> None:
    path = saved(tmp_path, layer("w", "bias", rmse_scale=0.3))
    for args, message in [
        ((path,), "found no operator among the layers"),
        ((tmp_path / "none.json",), "No such file"),
        ((DIGITS, path), "expected it alone"),
        ((DIGITS, "--inputs", DIGITS), "--inputs goes with"),
    ]:
        result = qdebug("suggest", *args)
        assert result.exit_code == 2
        assert message in result.stderr
    broken = write_pairs({"good": healthy, "bad": healthy | {"scale": -1.0}})
    result = qdebug("suggest", broken)
    assert result.exit_code == 2
    assert "layer 'bad'" in result.stderr
