"""Saved reports: nothing is lost, and a file that is none is explained."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qdebug.report.report import LayerReport
from tests.paths import SAMPLES

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "field 'schema': found None"),
        ('{"schema": "qdebug.report/2"}', "found 'qdebug.report/2', expected 'qdebug.report/1'"),
        ('{"schema": "qdebug.report/1"}', "field 'sources': found null, expected a list (text)"),
        (
            '{"schema":"qdebug.report/1","qdebug_version":"0","sources":[],"layers":[{"name":3}]}',
            "layers[0]: field 'name': found 3, expected text",
        ),
        (
            '{"schema":"qdebug.report/1","qdebug_version":"0","sources":[],'
            '"layers":[{"name":"a","metrics":{"num_elements":1,"non_finite":0,"rmse":"x"}}]}',
            "layers[0].metrics: field 'rmse': found \"x\", expected a number or null",
        ),
        (
            '{"schema":"qdebug.report/1","qdebug_version":"0","sources":[],'
            '"layers":[{"name":"a","metrics":{"num_elements":1,"non_finite":0,"rmse":1e999}}]}',
            "layers[0].metrics: field 'rmse': found Infinity",
        ),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_saved_report_that_is_none_is_explained(
    text: str, message: str, tmp_path: Path, qdebug: Run
) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    result = qdebug("report", path)
    assert result.exit_code == 2
    assert f"Error: {path}: " in result.stderr
    assert message in result.stderr


@pytest.mark.slow
def test_a_diagnosis_survives_json(qdebug: Run, tmp_path: Path) -> None:
    saved = tmp_path / "r.json"
    qdebug("report", SAMPLES / "digits_faulty.npz", "-o", saved)
    fresh = qdebug(
        "-q", "report", SAMPLES / "digits_faulty.npz", "--columns", "cause,evidence"
    ).output
    assert qdebug("-q", "report", saved, "--columns", "cause,evidence").output == fresh
    assert "clipping" in fresh
    assert "lie above" in fresh
    assert LayerReport("a").unreadable is None
