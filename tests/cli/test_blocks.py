"""The commands on a pair of models whose weights have a scale for each block."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

pytest.importorskip("onnx", reason="needs qdebug[onnx]")
pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")

import qdebug as library
from qdebug.errors import QdebugError
from tests.sources.onnx.blocks import pair, quantized
from tests.sources.onnx.models import TensorProto

Run = Callable[..., Result]


@pytest.fixture
def blocks(tmp_path: Path) -> list[str]:
    """A float model and its twin with int4 weights in blocks of 32; one column is 1.3 times off."""
    weight = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    codes, scale, _ = quantized(weight, 0, 32, -8, 7, symmetric=True)
    scale[:, 5] *= 1.3
    pair(tmp_path, weight, codes, scale, None, TensorProto.INT4, 0, 32)
    return [str(tmp_path / "f.onnx"), str(tmp_path / "q.onnx")]


def test_a_report_shows_times_expected_and_names_the_column(qdebug: Run, blocks: list[str]) -> None:
    result = qdebug("report", *blocks, "--columns", "grid,times_expected,rmse_scale,cause,evidence")
    row = next(line for line in result.stdout.splitlines() if line.startswith("int4, blocks of 32"))
    assert "wrong-scale" in row
    assert "1 of 8 channels; the worst is 5:" in row
    assert re.search(r"the floats are 0\.7[567]\d times the decoded values", row)
    assert "1 of 1 layer above what rounding alone gives" in result.stdout
    assert qdebug("report", *blocks, "--per-channel").stdout.count("MatMul") == 8


def test_a_saved_report_is_as_good_as_a_fresh_one(
    qdebug: Run, blocks: list[str], tmp_path: Path
) -> None:
    saved = tmp_path / "r.json"
    assert qdebug("report", *blocks, "-o", saved).exit_code == 0
    (layer,) = json.loads(saved.read_text())["layers"]
    assert layer["grid"] == "int4, blocks of 32 along axis 0"
    assert [layer[name] for name in ("dtype", "bits", "scale", "zero_point")] == [None] * 4
    assert layer["channels"][0]["scale"] is None
    for command in (["report"], ["report", "--format", "markdown"], ["check"]):
        fresh, again = qdebug(*command, *blocks), qdebug(*command, saved)
        table = [line for line in fresh.stdout.splitlines() if "q.onnx" not in line]
        assert table == [line for line in again.stdout.splitlines() if "r.json" not in line]
    assert qdebug("diff", saved, saved).exit_code == 0


def test_explain_has_the_figures_that_exist(qdebug: Run, blocks: list[str]) -> None:
    result = qdebug("explain", "w", "-m", blocks[0], "-m", blocks[1])
    assert result.exit_code == 0
    assert "MatMul, weight, int4, blocks of 32 along axis 0, shape 256x8" in result.stdout
    assert "times expected" in result.stdout
    assert "rmse/scale" not in result.stdout
    assert "not tried where steps differ" in result.stdout
    assert "The worst of 8 channels" in result.stdout


def test_limits_hold(qdebug: Run, blocks: list[str]) -> None:
    failed = qdebug("check", *blocks, "--max-times-expected", "1.1")
    assert failed.exit_code == 1
    assert "rmse_scale_ratio" in failed.stdout
    assert qdebug("check", *blocks, "--max-times-expected", "3").exit_code == 0
    assert qdebug("check", *blocks, "--max-range-waste", "1%").exit_code == 0


def test_a_pair_file_has_no_place_for_them(qdebug: Run, blocks: list[str], tmp_path: Path) -> None:
    target = tmp_path / "pairs.npz"
    result = qdebug("capture", *blocks, "-o", target)
    assert result.exit_code == 2
    assert "'w' is left out: pair files have no place for int4, blocks of 32" in result.stderr
    assert not target.exists()


@pytest.mark.slow
def test_what_is_drawn(qdebug: Run, blocks: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "overview.png"
    assert (
        qdebug("plot", "--overview", "-m", blocks[0], "-m", blocks[1], "-o", picture).exit_code == 0
    )
    layer = tmp_path / "layer.png"
    drawn = ["plot", "w", "-m", blocks[0], "-m", blocks[1], "-o", layer]
    assert qdebug(*drawn).exit_code == 0
    assert layer.read_bytes().startswith(b"\x89PNG")
    refused = qdebug(*drawn, "--what", "values")
    assert refused.exit_code == 2
    assert "found int4, blocks of 32 along axis 0, expected a scale per tensor" in refused.stderr
    page = tmp_path / "report.html"
    assert qdebug("report", *blocks, "-o", page).exit_code == 0
    assert "int4, blocks of 32 along axis 0" in page.read_text()
    assert "error: 1.39 times expected" in page.read_text()


def test_the_library_says_what_is_not_tried(blocks: list[str]) -> None:
    (layer,) = library.analyze(*blocks).layers
    assert "times_expected 1.39" in repr(layer)
    assert "not tried where steps differ" in layer.explain()
    with pytest.raises(QdebugError, match=r"layer 'w': found int4, blocks .* to try others"):
        layer.what_if()
