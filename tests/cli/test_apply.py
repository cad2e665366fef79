"""``qdebug suggest --apply``: the model itself, and what it gains."""

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug import analyze, load
from qdebug.errors import QdebugError
from tests.paths import SAMPLES
from tests.reports import figures, layer, saved

Run = Callable[..., Result]

TWINS = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
INPUTS = SAMPLES / "digits_inputs.npz"
LIVE = (*TWINS, "--inputs", INPUTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages' own
def test_a_tflite_model_is_written_and_measured(qdebug: Run, tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    pytest.importorskip("ai_edge_quantizer")
    out = tmp_path / "mixed.tflite"
    result = qdebug("suggest", *LIVE, "--top", "1", "--apply", out)
    assert result.exit_code == 0
    *_, named, gain = result.stdout.splitlines()
    assert named == f"{out}: 1 operator in float"
    before, after = map(float, re.findall(r"([\d.]+) dB (?:before|after)", gain))
    assert gain.startswith("output 'output_0': SQNR ")
    assert gain.endswith(" on 40 samples")
    assert after > before
    types = {
        t["name"]: np.dtype(t["dtype"]).name
        for t in interpreter.Interpreter(str(out)).get_tensor_details()
    }
    assert list(types.values()).count("float32") > 1
    assert types["digits_1/pool_1/AvgPool"] == "int8"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_list_stays_alone_on_stdout(qdebug: Run, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    out = tmp_path / "mixed.tflite"
    options = ("--for", "names", "--top", "1", "--calibration", INPUTS, "--apply", out)
    result = qdebug("suggest", *LIVE, *options)
    assert len(result.stdout.splitlines()) == 1
    assert "1 operator in float" in result.stderr
    assert out.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_python_gets_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    out = tmp_path / "mixed.tflite"
    images = np.load(INPUTS)["image"]
    made = analyze(*TWINS, inputs=images[:3]).apply(out, top=1, calibration=images)
    assert out.read_bytes() == made.model
    for (output,) in (made.before, made.after):
        assert (output.name, output.num_samples) == ("output_0", 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_left_of_a_model_that_cannot_be_made(
    qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise ValueError("cannot\ndo")

    monkeypatch.setattr(quantizer.Quantizer, "quantize", fails)
    result = qdebug("suggest", *LIVE, "--apply", tmp_path / "mixed.tflite")
    assert result.exit_code == 2
    assert "digits_float.tflite: ai-edge-quantizer: cannot do" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_missing_converter_is_one_line(
    qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    found = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("ai_edge_quantizer"):
            raise ImportError(name)
        return found(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    result = qdebug("suggest", *LIVE, "--apply", tmp_path / "mixed.tflite")
    assert result.exit_code == 2
    assert "an extra: pip install 'qdebug[quantizer]'" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((SAMPLES / "digits.npz", "--apply", "out"), "expected a float and a quantized model"),
        (("report.json", "--apply", "out"), "--apply: found report.json, expected a float and a"),
        ((*TWINS, "--apply", "out"), "--apply: found no samples, expected calibration samples"),
        ((*LIVE, "--apply", "none/out"), "none/out: cannot be written"),
        ((*LIVE, "--apply", "."), ".: found a directory"),
        ((*LIVE, "--calibration", INPUTS), "--calibration goes with --apply"),
    ],
)
def test_what_cannot_be_applied_is_said_before_anything_is_read(
    args: tuple[Any, ...],
    message: str,
    qdebug: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved(tmp_path, layer("a", **figures(0.9, 0.3)))
    monkeypatch.chdir(tmp_path)
    result = qdebug("suggest", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_python_is_told_that_a_saved_report_has_no_models(tmp_path: Path) -> None:
    report = load(saved(tmp_path, layer("a", **figures(0.9, 0.3))))
    with pytest.raises(QdebugError, match="found a report without its models"):
        report.apply(tmp_path / "out.onnx")
