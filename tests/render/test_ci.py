"""What CI systems read: JUnit XML, GitHub's commands and summary. Names are hostile."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES

Run = Callable[..., Result]
FAULTY = SAMPLES / "digits_faulty.npz"


def test_junit_has_a_case_for_each_layer_and_limit(qdebug: Run, tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    path = tmp_path / "qdebug.xml"
    limits = ("--max-rmse-scale", "0.7", "--min-sqnr", "20")
    assert qdebug("check", FAULTY, *limits, "--format", "junit", "-o", path).exit_code == 1
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    assert (suite.tests, suite.failures, suite.errors) == (40, 4, 0)
    cases = list(suite)
    assert {case.name for case in cases} == {"rmse_scale", "sqnr_db"}
    failed = [case for case in cases if case.result]
    assert len(failed) == 4
    worst = next(case for case in failed if "block_add_1" in case.classname)
    assert worst.result[0].message == "rmse_scale 18.42, expected <= 0.7 (from --max-rmse-scale)"


@pytest.fixture
def hostile(write_pairs: Callable[..., Path]) -> Path:
    x = np.linspace(-1, 1, 100).astype(np.float32)
    layer = {"float": x, "quantized": np.zeros(100, np.int8), "scale": np.float32(0.01)}
    names = ["</testcase>&<b>", "a\x1b[2J\x00b".replace("\x00", "\x01"), "x::error::y,z%\nq", "`|`"]
    return write_pairs(dict.fromkeys(names, layer))


def test_hostile_names_stay_names_in_xml(hostile: Path, qdebug: Run) -> None:
    junitparser = pytest.importorskip("junitparser")
    text = qdebug("check", hostile, "--format", "junit").stdout
    (suite,) = junitparser.JUnitXml.fromstring(text.encode())
    names = [case.classname for case in suite]
    assert "</testcase>&<b>" in names
    assert "a\\x1b[2J\\x01b" in names


def test_hostile_names_stay_names_in_workflow_commands(
    hostile: Path, qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = qdebug("check", hostile, "--format", "github")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        command, title, said = line.split("::", 2)[0], *line.split("::", 2)[1:]
        assert command == ""
        assert title.startswith("error title=qdebug%3A ")
        assert said.startswith("rmse_scale ")
    assert "x%3A%3Aerror%3A%3Ay%2Cz%25\\n" in result.stdout
    text = summary.read_text()
    assert text.startswith("before\n### qdebug check\n\n| layer ")
    assert "`` `\\|` ``" in text
    assert text.endswith("4 layers checked, 4 over a limit\n")


def test_many_failures_are_counted(qdebug: Run) -> None:
    result = qdebug("check", FAULTY, "--max-rmse-scale", "0", "--format", "github")
    lines = result.stdout.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "::error title=qdebug::and 10 more failures"


def test_nothing_is_printed_if_all_is_well(qdebug: Run) -> None:
    result = qdebug("check", SAMPLES / "digits.npz", "--format", "github")
    assert (result.exit_code, result.stdout) == (0, "")
