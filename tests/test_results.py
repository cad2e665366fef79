"""Reports and layers in Python: a collection, its texts, its pictures, its advice."""

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import qdebug
from qdebug.errors import UnknownLayerError
from qdebug.render.columns import COLUMNS
from qdebug.render.forms import FORMS
from tests.paths import SAMPLES

Run = Callable[..., Result]
Write = Callable[..., Path]

FAULTY = SAMPLES / "digits_faulty.npz"
MODELS = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
INPUTS = SAMPLES / "digits_inputs.npz"
ADD = "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"

HEALTHY = qdebug.quantize(np.random.default_rng(7).normal(size=(4, 500)))
NOTHING = qdebug.Pair(np.zeros((0, 3)), np.zeros((0, 3), np.int8), 0.1)
ALL_NAN = qdebug.Pair([np.nan, np.nan], np.zeros(2, np.int8), 0.1)


@pytest.fixture(scope="module")
def faulty() -> qdebug.Report:
    return qdebug.analyze(FAULTY)


@pytest.fixture
def partly(write_pairs: Write, healthy: dict[str, Any]) -> qdebug.Report:
    """A report in which one layer is unreadable."""
    return qdebug.analyze(write_pairs({"good": healthy, "bad": healthy | {"scale": -1.0}}))


@pytest.fixture
def command_line(qdebug: Run) -> Run:
    return qdebug


def refused(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of what is refused: one line."""
    with pytest.raises(qdebug.QdebugError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_a_report_is_a_collection_of_its_layers(faulty: qdebug.Report) -> None:
    assert len(faulty) == len(faulty.layers) == 20
    assert list(faulty) == faulty.layers
    assert all(isinstance(layer, qdebug.Layer) for layer in faulty)
    assert ADD in faulty
    assert "block_add" not in faulty
    assert 0 not in faulty
    assert faulty[ADD] is faulty["block_add"] is faulty["*/Add"]
    assert faulty[ADD].name == ADD


def test_a_name_that_means_no_layer_or_several_is_an_error_of_both_kinds(
    faulty: qdebug.Report,
) -> None:
    for name, said in (
        ("nope", "no layer 'nope'; there are 'serving_default_image:0'"),
        ("block_dw", "'block_dw' is a part of 3 layers' names"),
        ("*", "'*' is a glob for several layers"),
        (0, "found 0, expected a layer's name"),
    ):
        assert said in refused(faulty.__getitem__, name)
        with pytest.raises(KeyError):
            faulty[name]  # type: ignore[index]
    assert str(UnknownLayerError("no layer")) == "no layer"


def test_the_worst_layers_are_those_farthest_above_rounding(faulty: qdebug.Report) -> None:
    worst = faulty.worst(3)
    assert worst[0].name == ADD
    assert [layer.badness for layer in worst] == sorted(
        (layer.badness for layer in faulty), reverse=True
    )[:3]
    assert len(faulty.worst(100)) == 20
    assert "n: found 0, expected a whole number of 1 or more" in refused(faulty.worst, 0)
    assert "nothing" not in [
        layer.name for layer in qdebug.analyze({"nothing": NOTHING, "a": HEALTHY}).worst()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_texts_are_those_of_the_command_line(
    form: str, faulty: qdebug.Report, command_line: Run
) -> None:
    quiet = ("-q", "report", FAULTY)  # without the command to run next
    shown = command_line(*quiet, "--format", form, "--sort", "rmse", "--top", 4).stdout
    assert faulty.to_text(form, sort="rmse", top=4) == shown
    if form == "table":
        assert str(faulty) == command_line(*quiet).stdout


def test_columns_and_channels_are_chosen_as_on_the_command_line(
    faulty: qdebug.Report, command_line: Run
) -> None:
    options = ["--columns", "layer,channel,scale", "--per-channel", "--format", "csv"]
    text = faulty.to_text("csv", columns=["layer", "channel", "scale"], per_channel=True)
    assert text == command_line("report", FAULTY, *options).stdout
    assert faulty.to_text(columns="op").splitlines()[2] == "op"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "html"}, "form: found 'html'; there are 'table', 'markdown', 'csv'"),
        ({"columns": ["rmsescale"]}, "no column 'rmsescale'; did you mean 'rmse_scale'"),
        ({"columns": 3}, "columns: found a value of type int, expected text or a list of texts"),
        ({"sort": "nope"}, "no column 'nope'"),
        ({"top": -1}, "top: found -1, expected a whole number of 1 or more"),
        ({"form": "json", "per_channel": True}, "cannot be chosen for json: it has all of them"),
    ],
    ids=str,
)
def test_views_that_cannot_be_are_refused(
    options: dict[str, Any], said: str, faulty: qdebug.Report
) -> None:
    assert said in refused(faulty.to_text, **options)


def test_what_python_shows_of_it_is_a_line(faulty: qdebug.Report, partly: qdebug.Report) -> None:
    assert repr(faulty) == f"<Report {FAULTY}: 20 layers, 115,058 elements: 14 ok, 4 warn, 2 bad>"
    assert repr(faulty[ADD]) == f"<Layer '{ADD}': bad, clipping, rmse_scale 18.4>"
    assert repr(partly).endswith("1 ok, 1 unreadable>")
    assert repr(partly["bad"]) == "<Layer 'bad': unreadable>"
    x = np.ones((1, 5_000))
    wide = qdebug.Pair(x, x.astype(np.int8), np.ones(5_000), axis=1)
    hostile = qdebug.analyze({"\x1b[2J" + "a" * 50_000: wide})
    for thing in (hostile, hostile.layers[0], wide, HEALTHY):
        assert len(repr(thing)) < 400
        assert repr(thing).isprintable()


def test_a_report_of_nothing_has_all_forms() -> None:
    report = qdebug.analyze({})
    assert len(report) == 0
    assert repr(report) == "<Report 0 layers, 0 elements>"
    for form in FORMS:
        assert report.to_text(form)
    assert report.worst() == []
    assert not report.check()
    assert "no layer has a finite element to draw" in refused(report.plot)
    assert "found no operator among the layers" in refused(report.suggest)


def test_a_saved_report_comes_back_as_it_was(faulty: qdebug.Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    faulty.save(path)
    loaded = qdebug.load(path)
    assert loaded == faulty
    assert [layer.channels for layer in loaded] == [layer.channels for layer in faulty]
    assert loaded.check(max_clipped="1%") == faulty.check(max_clipped="1%")
    for name in ("report.md", "report", "json"):
        assert "expected a name that ends in .json" in refused(faulty.save, tmp_path / name)
    assert "cannot be written" in refused(faulty.save, tmp_path / "missing" / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("live", [False, True])
def test_a_pickled_report_leaves_its_tensors_behind(live: bool, faulty: qdebug.Report) -> None:
    report = faulty
    if live:
        pytest.importorskip("ai_edge_litert")
        report = qdebug.analyze(*MODELS, inputs=np.load(INPUTS)["image"], samples=2)
    copy = pickle.loads(pickle.dumps(report))
    assert copy == report
    assert pickle.loads(pickle.dumps(report.layers[0])) == report.layers[0]
    assert "its tensors are not at hand" in refused(copy.layers[0].plot)
    assert report.layers[0].plot().axes  # the original keeps them


def test_a_saved_report_says_that_it_lacks_the_tensors(
    faulty: qdebug.Report, tmp_path: Path
) -> None:
    faulty.save(tmp_path / "report.json")
    saved = qdebug.load(tmp_path / "report.json")
    said = "found a report that was saved, expected one fresh from qdebug.analyze"
    for call in (saved[ADD].plot, saved[ADD].what_if, saved[ADD].recommend, saved.what_if):
        assert said in refused(call)
    assert said in refused(saved.plot_layers, tmp_path)
    assert saved[ADD]._repr_png_() is None
    assert ADD in saved[ADD].explain()
    assert saved.plot().axes


def test_a_file_that_has_gone_is_an_error_where_its_tensors_are_needed(
    write_pairs: Write, healthy: dict[str, Any], tmp_path: Path
) -> None:
    path = write_pairs({"a": healthy})
    report = qdebug.analyze(path)
    path.unlink()
    for call in (report["a"].plot, report["a"].what_if, report["a"].explain, report.what_if):
        assert refused(call) == f"{path}: No such file or directory"
    assert report["a"]._repr_png_() is None
    assert report.plot_layers(tmp_path / "pictures") == []


@pytest.mark.slow
def test_layers_without_elements_have_no_picture(tmp_path: Path) -> None:
    report = qdebug.analyze({"nothing": NOTHING, "nan": ALL_NAN, "a": HEALTHY})
    for name in ("nothing", "nan"):
        assert refused(report[name].plot) == f"layer '{name}': no finite element to draw"
        assert report[name]._repr_png_() is None
        assert report[name].explain()
        assert report[name].what_if().alternatives
    assert [path.name for path in report.plot_layers(tmp_path)] == ["a.png"]
    assert report.what_if().keys() == {"nothing", "nan", "a"}


@pytest.mark.slow
def test_an_unreadable_layer_says_why_whatever_is_asked_of_it(
    partly: qdebug.Report, tmp_path: Path
) -> None:
    (why,) = partly.complaints
    assert "layer 'bad': field 'scale': found -1.0" in why
    layer = partly["bad"]
    assert layer.unreadable == why
    for call in (layer.plot, layer.what_if, layer.recommend, layer.explain):
        assert refused(call) == why
    assert layer._repr_png_() is None
    assert [path.name for path in partly.plot_layers(tmp_path)] == ["good.png"]
    assert partly.what_if().keys() == {"good"}
    assert [layer.name for layer in partly.worst()] == ["good"]


def test_a_check_is_true_where_all_is_within_limits(
    faulty: qdebug.Report, partly: qdebug.Report, tmp_path: Path
) -> None:
    assert faulty.check(max_rmse_scale=20)
    assert faulty.check(max_rmse_scale=np.float32(20), max_abs_error=1e9)
    result = faulty.check(max_clipped="1%")
    assert not result
    assert {failure.figure for failure in result.failures} == {"clipped"}
    assert {f.found for f in faulty.check(fail_on="bias").failures} == {"bias"}
    config = tmp_path / "qdebug.toml"
    config.write_text('max_clipped = 0.01\nignore = ["*"]')
    assert not faulty.check(config=config)  # nothing is checked
    assert not partly.check(max_rmse_scale=20)
    assert partly.check().unreadable == partly.complaints


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_rmse": 1}, "no limit 'max_rmse'; did you mean 'max_rmse_scale'"),
        ({"max_rmse_scale": None}, "max_rmse_scale: found 'None', expected a number of 0 or more"),
        ({"max_clipped": "150%"}, "max_clipped: found '150%', expected a share from 0 to 1"),
        ({"fail_on": "clippping"}, "fail_on: no cause 'clippping'; did you mean 'clipping'?"),
        ({"fail_on": 3}, "fail_on: found a value of type int"),
        ({"config": "nope.toml"}, "nope.toml: No such file or directory"),
    ],
    ids=str,
)
def test_limits_that_are_none_are_refused(
    options: dict[str, Any], said: str, faulty: qdebug.Report
) -> None:
    assert said in refused(faulty.check, **options)


@pytest.mark.slow
def test_pictures_are_returned_and_written(faulty: qdebug.Report, tmp_path: Path) -> None:
    figures = faulty[ADD].plot(tmp_path / "add.PNG"), faulty.plot(str(tmp_path / "all.png"))
    assert (tmp_path / "add.PNG").read_bytes() == faulty[ADD]._repr_png_()
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures)
    for call in (faulty.plot, faulty[ADD].plot):
        assert "expected a name that ends in .png" in refused(call, tmp_path / "add.gif")


@pytest.mark.slow
def test_pictures_of_layers_are_those_of_the_command_line(
    faulty: qdebug.Report, command_line: Run, tmp_path: Path
) -> None:
    paths = faulty.plot_layers(tmp_path / "new" / "folder", ["*Mean", "block_add"])
    command_line("plot", "block_add", "*Mean", "-m", FAULTY, "-o", tmp_path / "other")
    assert len(paths) == 2
    for path in paths:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    (tmp_path / "file").touch()
    assert "File exists" in refused(faulty.plot_layers, tmp_path / "file")
    assert "no layer 'nope'" in refused(faulty.plot_layers, tmp_path, "nope")


@pytest.mark.slow
def test_explanations_are_those_of_the_command_line(
    faulty: qdebug.Report, command_line: Run
) -> None:
    layer = faulty[ADD]
    assert layer.explain() == command_line("explain", "block_add", "-m", FAULTY).stdout
    assert max(map(len, layer.explain(width=60).splitlines())) <= 60
    told = command_line("explain", "block_add", "-m", FAULTY, "--format", "json").stdout
    (expected,) = json.loads(told)["layers"]
    what_if = faulty.what_if("block_add")[ADD]
    assert [way.name for way in (what_if.recorded, *what_if.alternatives)] == [
        way["name"] for way in expected["what_if"]["alternatives"]
    ]
    assert layer.recommend().text == expected["what_if"]["recommendation"]["text"]
    assert [way.metrics for way in layer.what_if().alternatives] == [
        way.metrics for way in what_if.alternatives
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"top": 2}, {"budget": "50%"}, {"budget": 1, "top": 3}])
def test_suggestions_are_those_of_the_command_line(
    options: dict[str, Any], faulty: qdebug.Report, command_line: Run
) -> None:
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    names = command_line("suggest", FAULTY, "--for", "names", *flags).stdout.splitlines()
    assert [operator.layer for operator in faulty.suggest(**options).candidates] == names
    assert faulty.suggest_for("names", **options) == names
    written = command_line("suggest", FAULTY, "--for", "tflite", *flags).stdout
    assert faulty.suggest_for("tflite", **options) == ast.literal_eval(written)
    written = command_line("suggest", FAULTY, "--for", "ai-edge-quantizer", *flags).stdout
    assert faulty.suggest_for("ai-edge-quantizer", **options) == json.loads(written)


def test_suggestions_that_cannot_be_made_are_refused(faulty: qdebug.Report) -> None:
    assert "expected ONNX's" in refused(faulty.suggest_for, "onnxruntime")
    assert "form: found 'tensorrt'; there are 'names'" in refused(faulty.suggest_for, "tensorrt")
    assert "top: found 0" in refused(faulty.suggest, top=0)
    assert "budget: found '150%'" in refused(faulty.suggest, budget="150%")


def test_a_data_frame_has_every_figure(faulty: qdebug.Report) -> None:
    pytest.importorskip("pandas")
    frame = faulty.to_pandas()
    assert list(frame.index) == [layer.name for layer in faulty]
    assert [frame.index.name, *frame.columns] == [name for name in COLUMNS if name != "channel"]
    assert frame.loc[ADD, "cause"] == "clipping"
    assert frame.rmse_scale.max() == faulty[ADD].metrics.rmse_scale  # type: ignore[union-attr]
    channels = faulty.to_pandas(per_channel=True)
    assert list(channels.columns) == list(COLUMNS)[1:]
    assert len(channels) == sum(len(layer.channels or [0]) for layer in faulty)
    assert qdebug.analyze({}).to_pandas().empty
