"""The front door: what the command line says of a source, Python says in one call."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import qdebug
from tests import oracle
from tests.layers import random_layer
from tests.needs import needs_dask
from tests.paths import SAMPLES

Run = Callable[..., Result]
Write = Callable[..., Path]

DIGITS = SAMPLES / "digits.npz"
FAULTY = SAMPLES / "digits_faulty.npz"
MODELS = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
INPUTS = SAMPLES / "digits_inputs.npz"


def refused(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of what is refused: one line."""
    with pytest.raises(qdebug.QdebugError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def values(report: qdebug.Report) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(report.to_text("json"))
    return loaded


def told(run: Run, *arguments: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(run("report", *arguments, "--format", "json").stdout)
    return loaded


@pytest.fixture
def command_line(qdebug: Run) -> Run:
    return qdebug


@pytest.fixture
def onnx_pair(tmp_path: Path) -> tuple[Path, Path]:
    models = pytest.importorskip("tests.sources.onnx.models")
    paths = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    models.onnx.save(models.network(), paths[0])
    models.quantize_static(*paths, models.Calibration(), quant_format=models.QuantFormat.QDQ)
    return paths


def test_the_import_alone_imports_nothing() -> None:
    code = "import sys; before = {*sys.modules}; import qdebug; print(*{*sys.modules} - before)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["qdebug"]


def test_every_public_name_is_there_and_no_other() -> None:
    assert {*qdebug.__all__} <= {*dir(qdebug)}
    for name in qdebug.__all__:
        assert getattr(qdebug, name).__doc__
    with pytest.raises(AttributeError, match="'analyse'"):
        qdebug.analyse  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("source", [DIGITS, FAULTY], ids=lambda path: path.stem)
def test_pair_files_give_the_reports_of_the_command_line(source: Path, command_line: Run) -> None:
    assert values(qdebug.analyze(source)) == told(command_line, source)
    chosen = qdebug.analyze(str(source), layers=["*Mean", "*AvgPool"], jobs=1)
    assert values(chosen) == told(command_line, source, "--layer", "*Mean", "--layer", "*AvgPool")


@pytest.mark.slow
def test_a_saved_report_is_a_source(tmp_path: Path, command_line: Run) -> None:
    path = tmp_path / "report.json"
    report = qdebug.analyze(FAULTY)
    report.save(path)
    assert qdebug.load(path) == qdebug.analyze(path) == report
    assert values(qdebug.load(path)) == json.loads(path.read_text()) == told(command_line, path)
    assert [layer.name for layer in qdebug.analyze(path, layers="*Mean")] == ["digits_1/gap_1/Mean"]


@pytest.mark.slow
def test_litert_models_with_a_file_or_arrays_give_the_reports_of_the_command_line(
    command_line: Run,
) -> None:
    pytest.importorskip("ai_edge_litert")
    expected = told(command_line, *MODELS, "--inputs", INPUTS, "--samples", 3)
    assert values(qdebug.analyze(*MODELS, inputs=INPUTS, samples=3)) == expected
    expected["sources"].remove(str(INPUTS))  # arrays have no name
    images = np.load(INPUTS)["image"]
    for inputs in (images[:3], {"image": images[:3]}, images[:3].tolist()):
        assert values(qdebug.analyze(*MODELS, inputs=inputs)) == expected
    assert values(qdebug.analyze(*MODELS)) == told(command_line, *MODELS)


def test_onnx_models_give_the_reports_of_the_command_line(
    onnx_pair: tuple[Path, Path], tmp_path: Path, command_line: Run
) -> None:
    x = np.random.default_rng(11).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = told(command_line, *onnx_pair, "--inputs", tmp_path / "x.npy")
    assert len(expected["layers"]) > 10
    assert values(qdebug.analyze(*onnx_pair, inputs=tmp_path / "x.npy")) == expected
    expected["sources"].remove(str(tmp_path / "x.npy"))
    assert values(qdebug.analyze(*onnx_pair, inputs=x)) == expected


@pytest.mark.slow
@needs_dask
def test_what_a_cluster_read_can_be_drawn_when_it_is_gone() -> None:
    (layer,) = qdebug.analyze(FAULTY, layers="*_1/Add", scheduler="local", jobs=1)
    (here,) = qdebug.analyze(FAULTY, layers="*_1/Add")
    assert vars(layer.metrics) == pytest.approx(vars(here.metrics))
    assert layer.plot().axes


def test_pairs_in_memory_have_the_figures_of_their_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pairs = {}
    for number in range(20):
        fields = random_layer(rng)
        floats, codes, scale = (fields.pop(name) for name in ("float", "quantized", "scale"))
        about = (
            {"op": "CONV_2D", "kind": "weight", "nodes": ("a", "b"), "inputs": "layer/0"}
            if number % 2
            else {}
        )
        pairs[f"layer/{number}"] = qdebug.Pair(floats, codes, scale, **fields, **about)
    in_memory = qdebug.analyze(pairs)
    assert in_memory.sources == []
    for compress in (False, True):
        qdebug.save_pairs(tmp_path / "pairs.npz", pairs, compress=compress)
        assert qdebug.analyze(tmp_path / "pairs.npz").layers == in_memory.layers


@pytest.mark.parametrize("seed", range(40))
def test_the_figures_of_one_tensor_are_those_of_the_oracle(seed: int) -> None:
    fields = random_layer(np.random.default_rng(seed))
    x, q = fields.pop("float"), fields.pop("quantized")
    layer = qdebug.compare(x, q, **fields)
    assert layer.name == "tensor"
    assert layer.metrics is not None
    expected = oracle.figures(x, q, **fields)
    step = float(np.max(fields["scale"]))
    assert oracle.disagreements(vars(layer.metrics), expected, step) == []


def test_what_makes_no_pair_is_named() -> None:
    x, q = [0.1, 0.2], np.array([1, 2], np.int8)
    where = "layer 'conv1': field "
    assert refused(qdebug.compare, x, q, 0, name="conv1").startswith(where + "'scale': found 0.0")
    assert refused(qdebug.compare, x, q[:1], 0.1).startswith(
        "layer 'tensor': field 'quantized': found shape (1,), expected (2,)"
    )
    assert "found float64, expected int8" in refused(qdebug.compare, x, x, 0.1)
    assert "found a name that is not text" in refused(qdebug.compare, x, q, 0.1, name=3)


@pytest.mark.parametrize(
    ("options", "least", "largest", "zero_point"),
    [
        ({}, -128, 127, -26),
        ({"dtype": "uint8"}, 0, 255, 102),
        ({"dtype": np.int16}, -32768, 32767, -6554),
        ({"bits": 4}, -8, 7, -2),
        ({"symmetric": True}, -85, 127, 0),
        ({"narrow_range": True}, -127, 127, -25),
        ({"value_range": (-2.0, 3.0)}, -128, 127, -26),
        ({"value_range": (0, 1.5)}, -128, 127, -128),
        ({"range_from": 50.0}, -128, 127, -51),
        ({"range_from": "mse"}, -128, 127, None),
        ({"axis": -1}, -128, 127, None),
        ({"rounding": "half_even"}, -128, 127, -26),
    ],
    ids=str,
)
def test_floats_are_quantized_by_any_scheme(
    options: dict[str, Any], least: int, largest: int, zero_point: int | None
) -> None:
    x = np.linspace(-2, 3, 1000).reshape(100, 10)
    pair = qdebug.quantize(x, **options)
    assert (pair.codes.min(), pair.codes.max()) == (least, largest)
    assert zero_point is None or pair.zero_point == [zero_point]
    assert pair.axis == (1 if "axis" in options else None)
    floats = (pair.codes - pair.zero_point.astype(float)) * pair.scale
    inside = np.abs(x - floats) <= pair.scale / 2 + 1e-12
    clips = "value_range" in options or options.get("range_from") in (50.0, "mse")
    assert inside.all() or clips


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int4"}, "found int4, expected codes of int8"),
        ({"dtype": 3.5}, "expected codes of int8"),
        ({"bits": 9}, "field 'bits': found 9, expected 2 to 8 for int8"),
        ({"bits": 4.5}, "bits: found 4.5, expected a whole number"),
        ({"axis": 2}, "field 'axis': found 2, expected an axis of a tensor of 2 axes"),
        ({"axis": "0"}, "axis: found '0', expected a whole number"),
        ({"rounding": "half-even"}, "rounding: found 'half-even'; did you mean 'half_even'"),
        ({"range_from": "minmx"}, "found 'minmx', expected minmax, mse or a percentage"),
        ({"range_from": 101}, "found 101, expected above 0, at most 100"),
        ({"value_range": (1, 0)}, "found 1.0 to 0.0, expected finite numbers, the lower one first"),
        ({"value_range": 3}, "field 'value_range': found an array of shape (), expected two"),
        ({"value_range": ("a", "b")}, "field 'value_range': found <U1, expected two numbers"),
        ({"value_range": (0, 1), "axis": 0}, "found axis or range_from beside it"),
        ({"value_range": (0, 1), "range_from": "mse"}, "found axis or range_from beside it"),
        ({"x": ["a"]}, "field 'float': found <U1, expected float16, float32, float64"),
        ({"x": [[1], [1, 2]]}, "field 'float': found a value of type list (setting an array"),
    ],
    ids=str,
)
def test_schemes_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    assert said in refused(qdebug.quantize, **{"x": np.ones((3, 4)), **options})


PAIR = qdebug.quantize([0.0, 1.0])


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        ([], {}, "found no source, expected pair files, two models or a report"),
        ([["a.npz"]], {}, "found a value of type list, expected a path or URL"),
        ([PAIR], {}, "found a value of type Pair, expected a path or URL"),
        ([{"a": PAIR}, "a.npz"], {}, "found a value of type dict, expected a path or URL, or"),
        ([{"a": [1.0]}], {}, "layer 'a': found a value of type list, expected a qdebug.Pair"),
        ([{1: PAIR}], {}, "layer 1: found a name that is not text"),
        ([{"a": PAIR}], {"inputs": [1.0]}, "'inputs' goes with a float and a quantized model"),
        ([{"a": PAIR}], {"keys": {"float": "{}_f"}}, "'keys' goes with pair files"),
        ([{"a": PAIR}], {"scheduler": "local"}, "'scheduler' goes with pair files"),
        ([{"a": PAIR}], {"layers": "b"}, "no layer 'b'; there are 'a'"),
        ([DIGITS], {"kernels": "default"}, "'kernels' goes with LiteRT models"),
        ([DIGITS], {"layers": 3}, "layers: found a value of type int, expected text or a list"),
        ([DIGITS], {"jobs": 0}, "jobs: found 0, expected a whole number of 1 or more"),
        (["nope\0.npz"], {}, r"nope\x00.npz: found a NUL character"),
        (["nope[1].npz"], {}, "nope[1].npz: no file matches"),
        (["report.json", DIGITS], {}, "found a report (.json, .csv) among others"),
        (["a.tflite", "b.onnx"], {}, "expected two models of one kind"),
        (MODELS, {"inputs": [1.0], "kernels": "refernce"}, "kernels: found 'refernce'; did you"),
        (MODELS, {"inputs": [1.0], "samples": 0}, "samples: found 0, expected a whole number"),
        (MODELS, {"inputs": 3.0}, "inputs: found a single value, expected samples"),
        (MODELS, {"inputs": [[1], [2, 3]]}, "inputs: found a value of type list (setting an"),
        (MODELS, {"inputs": {"image": [[1], [2, 3]]}}, "inputs: array 'image': found a value"),
        (MODELS, {"inputs": {1: [1.0], 2: [1.0]}}, "inputs: found 2 arrays ('1', '2')"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_one_line(
    sources: list[Any], options: dict[str, Any], said: str
) -> None:
    assert said in refused(qdebug.analyze, *sources, **options)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "we[i]rd *?\n\x1b[2J.npz"
    qdebug.save_pairs(path, {"a": PAIR})
    for source in (path, str(path)):
        assert qdebug.analyze(source).sources == [str(path)]


def test_other_names_of_arrays_are_given_by_field(tmp_path: Path) -> None:
    path = tmp_path / "dump.npz"
    np.savez(path, conv_fp32=[0.1, 0.2], conv_int8=np.array([1, 2], np.int8), conv_s=0.1)
    keys = {"float": "{}_fp32", "quantized": "{}_int8", "scale": "{}_s"}
    assert "conv" in qdebug.analyze(path, keys=keys)
    for wrong, said in (
        ({"flaot": "{}_fp32"}, "keys: no field 'flaot'; did you mean 'float'"),
        ({"float": "fp32"}, "keys: found 'float=fp32', expected FIELD=TEMPLATE with one {}"),
        ({"float": None}, "keys: found 'float=None', expected FIELD=TEMPLATE with one {}"),
        (keys | {"axis": "{}_s"}, "keys: found '{}_s' for two fields, expected one"),
        (["float={}_fp32"], "keys: found a value of type list, expected fields and"),
    ):
        assert said in refused(qdebug.analyze, path, keys=wrong)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 65_530])
def test_a_name_that_no_zip_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    said = refused(qdebug.save_pairs, tmp_path / "pairs.npz", {name: PAIR})
    assert "found a name that no zip can hold" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../../x", "a/float", "=1+1", "\x1b[2J", "ü\n", "a" * 65_000])
def test_a_name_that_a_zip_holds_comes_back(name: str, tmp_path: Path) -> None:
    qdebug.save_pairs(tmp_path / "pairs.npz", {name: PAIR})
    assert [layer.name for layer in qdebug.analyze(tmp_path / "pairs.npz")] == [name]


def test_what_is_no_pairs_is_not_saved(tmp_path: Path) -> None:
    assert "found no pair" in refused(qdebug.save_pairs, tmp_path / "x.npz", {})
    assert "type list, expected a mapping" in refused(qdebug.save_pairs, tmp_path / "x.npz", [PAIR])
    assert "found a directory" in refused(qdebug.save_pairs, tmp_path, {"a": PAIR})
    assert list(tmp_path.iterdir()) == []


def test_a_live_pair_is_captured(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    images, path = np.load(INPUTS)["image"], tmp_path / "pairs.npz"
    options: dict[str, Any] = {"inputs": images, "samples": 3, "layers": "*Mean"}
    assert qdebug.capture(*MODELS, path=path, **options) == []
    (captured,) = qdebug.analyze(path)
    (live,) = qdebug.analyze(*MODELS, **options)
    assert vars(captured.metrics) == pytest.approx(vars(live.metrics))
    assert "expected two models of one kind" in refused(qdebug.capture, DIGITS, path=path)
    assert "no layer 'nope'" in refused(qdebug.capture, *MODELS, path=path, layers="nope")


def test_what_is_no_report_is_not_loaded(tmp_path: Path) -> None:
    assert "found no text, expected JSON" in refused(qdebug.load, DIGITS)
    assert "No such file" in refused(qdebug.load, tmp_path / "nope.json")
    assert "found a value of type int, expected a path" in refused(qdebug.load, 3)
