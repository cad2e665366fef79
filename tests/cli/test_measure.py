"""``--measure`` on the command line: what is shown, what is written, what is refused."""

import ast
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES

pytest.importorskip("onnx", reason="needs qdebug[onnx]")
pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A float model, its int8 twin, and --inputs."""
    from tests.sources.onnx.models import (
        Calibration,
        QuantFormat,
        QuantType,
        network,
        onnx,
        quantize_static,
    )

    folder = tmp_path_factory.mktemp("measure")
    onnx.save(network(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Calibration(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
    )
    x = np.random.default_rng(12).normal(size=(32, 3, 8, 8)).astype(np.float32)
    np.save(folder / "x.npy", x)
    return [str(folder / name) for name in ("float.onnx", "int8.onnx")] + [
        "--inputs",
        str(folder / "x.npy"),
    ]


def test_the_table_shows_gains_and_that_the_switches_are_true(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("suggest", *pair, "--measure", "--top", "3")
    assert result.exit_code == 0
    head, rule, *lines = result.stdout.splitlines()
    assert head.split() == ["gain", "[dB]", "in", "total", "[dB]", "operator"]
    assert set(rule) == {"-"}
    assert lines[0].split()[1].startswith("+-")
    assert "l (Gemm)" in result.stdout
    said = " ".join(result.stdout.split())
    assert "with 3 of 9 operators in float." in said
    assert "Check: every switch on gives" in said
    assert "every switch off gives exact (120 dB or more)." in said


def test_a_converter_gets_its_list_as_without_measuring(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("suggest", *pair, "--measure", "--top", "3", "--for", "onnxruntime")
    nodes = ast.literal_eval(result.stdout)
    assert "dense" in nodes
    assert ("conv1" in nodes) == ("relu1" in nodes)  # a ReLU goes with its convolution
    assert "SQNR of the output on 32 samples" in result.stderr


def test_a_target_that_is_reached_needs_nothing(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("suggest", *pair, "--measure", "--target", "5dB", "--for", "names")
    assert result.stdout == ""
    assert "already reaches the goal: nothing to suggest" in result.stderr


def test_the_time_limit_is_told(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("suggest", *pair, "--measure", "--time-limit", "0.001")
    assert result.exit_code == 0
    assert "the time limit ended the search" in result.stderr


def test_one_sample_is_too_few_to_tell(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("suggest", *pair, "--measure", "--samples", "1", "--top", "1")
    assert "one sample cannot tell a gain from chance" in result.stderr


def test_predictions_say_that_models_can_be_run_instead(qdebug: Run, pair: list[str]) -> None:
    assert "--measure runs the models instead" in qdebug("suggest", *pair).stderr
    pairs = qdebug("suggest", SAMPLES / "digits.npz")
    assert "--measure" not in pairs.stderr


def test_a_report_has_columns_of_what_was_measured(
    qdebug: Run, pair: list[str], tmp_path: Path
) -> None:
    saved = tmp_path / "report.json"
    assert qdebug("report", *pair, "--measure", "-o", saved).exit_code == 0
    layers = {layer["name"]: layer for layer in json.loads(saved.read_text())["layers"]}
    assert layers["w1"]["measured"] is None
    assert layers["l"]["measured"].keys() == {"gain_db", "gain_stderr_db", "alone_db"}
    assert layers["f"]["measured"]["alone_db"] == 120  # a Flatten at its input's scale
    for source in ([*pair, "--measure"], [saved]):
        table = qdebug("report", *source, "--wide").stdout
        assert "gains [dB]" in table
        found = qdebug("report", *source, "--format", "csv").stdout
        rows = {row["layer"]: row for row in csv.DictReader(io.StringIO(found))}
        assert rows["w1"]["gain_db"] == ""
        assert float(rows["l"]["alone_db"]) == pytest.approx(layers["l"]["measured"]["alone_db"])
    assert "gains [dB]" not in qdebug("report", *pair).stdout
    order = ["--sort", "alone_db", "--format", "csv", "--columns", "alone_db"]
    levels = [
        float(level.strip('"') or "inf")
        for level in qdebug("report", saved, *order).stdout.split()[1:]
    ]
    assert levels == sorted(levels)


def test_only_the_layers_asked_for_are_measured(qdebug: Run, pair: list[str]) -> None:
    columns = ["--format", "csv", "--columns", "layer,alone_db"]
    found = qdebug("report", *pair, "--measure", "--layer", "[lp]", *columns).stdout
    assert [line.split(",")[0] for line in found.splitlines()] == ["layer", "l", "p"]
    assert all(line.split(",")[1] for line in found.splitlines())


def test_a_report_is_measured_as_far_as_the_time_allows(qdebug: Run, pair: list[str]) -> None:
    result = qdebug("report", *pair, "--measure", "--time-limit", "0.0001")
    assert result.exit_code == 0
    assert "the time limit ended measuring after" in result.stderr


@pytest.mark.parametrize("command", ["suggest", "report"])
def test_what_cannot_be_measured_is_one_line(
    qdebug: Run, pair: list[str], tmp_path: Path, command: str
) -> None:
    report = tmp_path / "report.json"
    qdebug("report", SAMPLES / "digits.npz", "-o", report)
    floating, quantized, *inputs = pair
    for arguments, said in [
        ([SAMPLES / "digits.npz"], "expected a float and a quantized model: measuring runs them"),
        ([report], "expected a float and a quantized model: measuring runs them"),
        ([floating, quantized], "found no inputs (--inputs), expected samples"),
        ([floating, floating, *inputs], "found the same file twice"),
        ([floating, *inputs], "expected a float one and its quantized partner"),
    ]:
        result = qdebug(command, *arguments, "--measure")
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert said in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "20"], "--target goes with --measure"),
        (["--time-limit", "3"], "--time-limit goes with --measure"),
        (["--measure", "--target", "loud"], "--target: found 'loud', expected a number of dB"),
        (["--measure", "--target", "nan"], "--target: found 'nan', expected a number of dB"),
        (["--measure", "--time-limit", "0"], "--time-limit"),
        (["--measure", "--budget", "x"], "--budget: found 'x'"),
        (["--measure", "--for", "tflite"], "found a .onnx source, expected .tflite or .csv"),
    ],
)
def test_bad_options_are_told_at_once(
    qdebug: Run, pair: list[str], options: list[str], said: str
) -> None:
    result = qdebug("suggest", *pair, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_float_model_that_gives_nan_is_one_line(
    qdebug: Run, pair: list[str], tmp_path: Path
) -> None:
    from tests.sources.onnx.models import NODE, onnx

    paths = []
    for path in pair[:2]:
        model = onnx.load(path)
        model.graph.node.extend(
            [NODE("Sub", ["p", "p"], ["none"], "none"), NODE("Div", ["none", "none"], ["q"], "div")]
        )
        model.graph.output[0].name = "q"
        paths.append(tmp_path / Path(path).name)
        onnx.save(model, paths[-1])
    result = qdebug("suggest", *paths, *pair[2:], "--measure")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "output 'q': found NaN or Inf in the float model's own run of sample 0" in line
