"""The model's own outputs: reported first, kept in files, and gated by `check`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import qdebug
from qdebug.measure.outputs import SUMS, OutputMetrics
from qdebug.report.json import dumps
from tests.paths import SAMPLES

Run = Callable[..., Result]
Write = Callable[..., Path]
DIGITS = SAMPLES / "digits.npz"

OUTPUT = OutputMetrics("\x1b[31mscores|", 8, 80, 0, 25.0, 0.99, 0.1, 0.5, 20.0, 3, 0.75, 8)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A report with these outputs, and layers whose error is above 0.7."""

    def write(*outputs: OutputMetrics, source: Path = SAMPLES / "digits_faulty.npz") -> Path:
        path = tmp_path / "report.json"
        path.write_text(dumps(replace(qdebug.analyze(source), outputs=list(outputs))))
        return path

    return write


def test_the_table_begins_with_them(qdebug: Run) -> None:
    head, output, blank, *_ = qdebug("report", DIGITS).output.splitlines()
    assert head.startswith(str(DIGITS))
    assert output.startswith(
        "output output_0: SQNR 37.2 dB (least: 20.2, sample 10); cosine 0.9999"
    )
    assert output.endswith("same top-1 in 100 % of 40")
    assert blank == ""


def test_names_are_data(qdebug: Run, saved: Callable[..., Path]) -> None:
    path = saved(OUTPUT)
    for form in ("table", "markdown", "csv", "json"):
        assert "\x1b" not in qdebug("report", path, "--format", form).output
    table = qdebug("report", path, "--format", "markdown").output.splitlines()
    assert table[2].startswith("| `\\x1b[31mscores\\|`")


def test_only_the_worst_of_many_are_shown(qdebug: Run, saved: Callable[..., Path]) -> None:
    outputs = [replace(OUTPUT, name=f"y{n}", sqnr_db=float(n)) for n in range(30)]
    lines = qdebug("report", saved(*outputs)).output.splitlines()
    assert [line for line in lines if line.startswith("output ")] == lines[1:9]
    assert lines[1].startswith("output y0: RUINED; SQNR 0.0 dB")
    assert lines[9] == "and 22 better outputs"


def test_a_saved_report_has_them(tmp_path: Path) -> None:
    report = qdebug.analyze(DIGITS)
    report.save(tmp_path / "r.json")
    assert qdebug.load(tmp_path / "r.json").outputs == report.outputs
    values = json.loads((tmp_path / "r.json").read_text())["outputs"][0]
    assert (values["name"], values["num_samples"]) == ("output_0", 40)


def test_files_of_the_same_model_are_one(qdebug: Run, tmp_path: Path) -> None:
    other = tmp_path / "more.npz"
    other.write_bytes(DIGITS.read_bytes())
    both = json.loads(qdebug("report", DIGITS, other, "--format", "json").stdout)["outputs"][0]
    (one,) = qdebug_outputs(DIGITS)
    assert both["num_samples"] == 80
    assert both["sqnr_db"] == pytest.approx(one.sqnr_db)


def qdebug_outputs(path: Path) -> list[OutputMetrics]:
    return qdebug.analyze(path).outputs


@pytest.mark.parametrize(
    ("sums", "found"),
    [
        (np.zeros((3, len(SUMS)), np.float32), "float32 of shape (3, 9)"),
        (np.zeros((3, 4)), "float64 of shape (3, 4)"),
        (np.zeros((0, len(SUMS))), "shape (0, 9)"),
        (np.full((3, len(SUMS)), np.nan), "values that are no sums"),
        (np.full((3, len(SUMS)), -1.0), "values that are no sums"),
        (np.zeros((len(SUMS), 3)).T, "Fortran order"),
    ],
)
def test_sums_that_are_none_are_one_line(
    sums: Any, found: str, qdebug: Run, write_pairs: Write, healthy: dict[str, Any]
) -> None:
    path = write_pairs({"layer": healthy, "y": {"output_sums": sums}})
    result = qdebug("report", path)
    assert result.exit_code == 2
    assert found in result.stderr
    assert "layer 'y'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("sqnr_db", "status"), [(9.9, 1), (10.1, 1), (19.9, 1), (20.0, 0), (None, 0)]
)
def test_without_limits_the_outputs_judge_the_model(
    sqnr_db: float | None, status: int, qdebug: Run, saved: Callable[..., Path]
) -> None:
    """Below 10 dB it fails; from 20 dB on, a layer's error does not matter."""
    output = replace(OUTPUT, sqnr_db=sqnr_db, rmse=0.1 if sqnr_db else 0.0)
    result = qdebug("check", saved(output))
    assert result.exit_code == status
    assert ("output" in result.stdout) == (sqnr_db == 9.9)
    assert "20 layers and 1 output checked" in result.stderr


def test_a_sound_layer_does_not_save_a_ruined_model(
    qdebug: Run, saved: Callable[..., Path]
) -> None:
    for ruined in (replace(OUTPUT, sqnr_db=2.3), replace(OUTPUT, non_finite=1)):
        result = qdebug("check", saved(ruined, source=DIGITS))
        assert result.exit_code == 1
        assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("option", "bound", "status"),
    [
        ("--min-output-sqnr", "24.9", 0),
        ("--min-output-sqnr", "25.1", 1),
        ("--min-top1", "75%", 0),
        ("--min-top1", "0.76", 1),
        ("--min-top1", "76", 2),
    ],
)
def test_limits_on_outputs(
    option: str, bound: str, status: int, qdebug: Run, saved: Callable[..., Path]
) -> None:
    assert qdebug("check", saved(OUTPUT), option, bound).exit_code == status


def test_limits_on_outputs_of_a_source_without_any_are_an_error(qdebug: Run) -> None:
    result = qdebug("check", SAMPLES / "digits_faulty.npz", "--min-output-sqnr", "20")
    assert result.exit_code == 2
    assert "sqnr_db of the model's outputs is not known" in result.stderr


def test_the_configuration_takes_them(qdebug: Run, saved: Callable[..., Path]) -> None:
    path = saved(OUTPUT)
    config = path.with_name("qdebug.toml")
    config.write_text("[tool.qdebug]\nmin-top1 = '90%'\n")
    result = qdebug("check", path, "--config", config)
    assert result.exit_code == 1
    assert ">= 0.9" in result.stdout
    config.write_text("[[tool.qdebug.layer]]\nname = '*'\nmin-top1 = 0.9\n")
    assert qdebug("check", path, "--config", config).exit_code == 2
