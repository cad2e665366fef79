"""``qdebug diff`` and ``qdebug check --baseline``: forms, statuses, and wrong use."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.paths import SAMPLES

Run = Callable[..., Result]
SOUND, FAULTY = SAMPLES / "digits.npz", SAMPLES / "digits_faulty.npz"
ADD = "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"


@pytest.fixture
def base(qdebug: Run, tmp_path: Path) -> Path:
    path = tmp_path / "base.json"
    qdebug("report", SOUND, "-o", path)
    return path


def test_the_table_shows_what_changed_the_worst_first(base: Path, qdebug: Run) -> None:
    result = qdebug("diff", base, FAULTY)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "layers: 5 worse, 15 same" in result.stdout
    assert "ok -> bad (clipping)" in lines[5]
    assert "block_add_1/Add" in lines[5]
    assert "block_pw_1/conv" not in qdebug("diff", base, SOUND).stdout
    assert qdebug("diff", base, FAULTY, "--all").stdout.count(" same  ") == 15


def test_a_regression_fails_only_if_asked(base: Path, qdebug: Run) -> None:
    fail = "--fail-on-regression"
    assert qdebug("diff", base, FAULTY, fail).exit_code == 1
    assert qdebug("diff", base, SOUND, fail).exit_code == 0
    assert qdebug("diff", FAULTY, base, fail, "--max-regression", "1e9").exit_code == 0


@pytest.mark.parametrize("form", ["markdown", "json", "html"])
def test_other_forms(form: str, base: Path, qdebug: Run, tmp_path: Path) -> None:
    if form == "html":
        pytest.importorskip("jinja2")
    path = tmp_path / f"diff.{ {'markdown': 'md'}.get(form, form) }"
    assert qdebug("diff", base, FAULTY, "-o", path).exit_code == 0
    text = path.read_text()
    if form == "json":
        values = json.loads(text)
        assert values["changes"][0]["name"] == ADD
        assert values["changes"][0]["old"]["verdict"] == "ok"
    elif form == "markdown":
        assert text.startswith("**layers: 5 worse, 15 same")
        assert f"| `{ADD}`" in text
    else:
        assert text.startswith("<!doctype html>")
        assert "default-src &#39;none&#39;" in text
        assert text.count("<tr>") == 21
        assert ADD in text


@pytest.mark.slow
def test_versions_and_kernels_that_differ_are_said(qdebug: Run, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    models = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]
    inputs = ("--inputs", SAMPLES / "digits_inputs.npz", "--samples", 4)
    for kernels in ("default", "reference"):
        args = ("--kernels", kernels, "-o", tmp_path / f"{kernels}.json")
        qdebug("report", *models, *inputs, *args)
    recorded = json.loads((tmp_path / "reference.json").read_text())["runtime"]
    assert recorded["kernels"] == "reference"
    assert recorded["ai-edge-litert"]
    result = qdebug("diff", tmp_path / "default.json", tmp_path / "reference.json")
    assert "note: kernels differs: default and reference" in result.stdout
    live = qdebug("diff", tmp_path / "default.json", ",".join(map(str, models)), *inputs)
    assert live.exit_code == 0
    assert "note" not in live.stdout
    assert "20 same" in live.stdout


def test_check_fails_on_layers_worse_than_the_baseline(base: Path, qdebug: Run) -> None:
    loose = ("--min-sqnr", "1", "--baseline", base)
    assert qdebug("check", SOUND, *loose).exit_code == 0
    result = qdebug("check", FAULTY, *loose, "--max-regression", "20%")
    assert result.exit_code == 1
    assert "20 layers checked, 5 over a limit" in result.stderr
    assert "18.42 (+8.08e+03 %)" in result.stdout
    assert "at most 20 % worse" in result.stdout


def test_new_and_vanished_layers_fail_unless_allowed(
    base: Path, qdebug: Run, tmp_path: Path
) -> None:
    some = tmp_path / "some.json"
    qdebug("report", SOUND, "--layer", "*conv*", "-o", some)
    loose = ("--min-sqnr", "1", "--baseline")
    assert qdebug("check", some, *loose, base).exit_code == 1
    assert qdebug("check", some, *loose, base, "--allow", "vanished").exit_code == 0
    assert qdebug("check", base, *loose, some).exit_code == 1
    assert qdebug("check", base, *loose, some, "--allow", "new").exit_code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("diff", "{base}", "missing.json"), "missing.json: No such file"),
        (("diff", "{base}", "{cut}"), "cut.json: not JSON"),
        (("diff", "{base}", "{other}"), "field 'schema': found 'qdebug.diff/1'"),
        (("diff", "{base}", "{empty}"), "empty.json: found no layer, expected a report"),
        (("diff", "{base}", "{base}", "-o", "missing/d.html"), "missing"),
        (("diff", "{base}", "{base}", "--max-regression", "much"), "found 'much', expected"),
        (("check", SOUND, "--baseline", "{cut}"), "cut.json: not JSON"),
        (("check", SOUND, "--max-regression", "5%"), "go with --baseline"),
        (("check", SOUND, "--baseline", "{base}", "--max-regression", "-1"), "--max-regression"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_status_2(
    args: tuple[object, ...], message: str, base: Path, qdebug: Run, tmp_path: Path
) -> None:
    whole = json.loads(base.read_text())
    files = {name: tmp_path / f"{name}.json" for name in ("cut", "other", "empty")}
    files["cut"].write_text(base.read_text()[:1000])
    files["other"].write_text(json.dumps({"schema": "qdebug.diff/1"}))
    files["empty"].write_text(json.dumps({**whole, "layers": []}))
    result = qdebug(*(str(arg).format(base=base, **files) for arg in args))
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
