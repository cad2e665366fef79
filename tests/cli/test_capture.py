"""``qdebug capture``: what live models compute, saved as a pair file that says the same."""

import csv
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES

Run = Callable[..., Result]

pytest.importorskip("ai_edge_litert", reason="qdebug[litert] is not installed")

MODELS = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
INPUTS = ("--inputs", SAMPLES / "digits_inputs.npz")


def figures(result: Result) -> list[dict[str, Any]]:
    """The rows of a CSV report, numbers to compare to 1e-9: blocks merge in another order."""
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(result.stdout)))
    for row in rows:
        del row["shape"]  # of one run in a live report, of all samples in a file
        for name, text in row.items():
            with suppress(ValueError):
                row[name] = pytest.approx(float(text), rel=1e-9, abs=1e-12)
    assert len(rows) == 21  # the model's output comes first
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--compress",)])
def test_a_captured_pair_file_gives_the_live_report(
    options: tuple[str, ...], qdebug: Run, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.npz"
    captured = qdebug("capture", *MODELS, *INPUTS, "-o", out, *options)
    assert captured.exit_code == 0
    live = qdebug("report", *MODELS, *INPUTS, "--format", "csv")
    saved = qdebug("report", out, "--format", "csv")
    assert figures(saved) == figures(live)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.npz"]


def test_the_sample_pair_file_is_what_capture_writes(qdebug: Run, tmp_path: Path) -> None:
    out = tmp_path / "digits.npz"
    qdebug("capture", *MODELS, *INPUTS, "-o", out, "--compress")
    with np.load(out) as ours, np.load(SAMPLES / "digits.npz") as theirs:
        assert ours.files == theirs.files
        for key in ours.files:
            layer, _, field = key.rpartition("/")
            # The kernels' last bits differ between processors.
            if field == "quantized":
                assert np.mean(ours[key] != theirs[key]) < 0.01
            elif field in ("float", "model_float", "weights_float") and ours[key].size:
                away = np.abs(ours[key] - theirs[key]).mean()
                assert away < 0.01 * theirs[f"{layer}/scale"].max()
            else:
                np.testing.assert_array_equal(ours[key], theirs[key])


def test_its_size_is_said_before_and_kept(qdebug: Run, tmp_path: Path) -> None:
    out = tmp_path / "pairs.npz"
    result = qdebug("capture", *MODELS, *INPUTS, "-o", out)
    line = result.stderr.splitlines()[0]
    assert line.startswith(f"{out}: 20 layers, at most ")
    promised = float(line.split("at most ")[1].split(" MB")[0]) * 1e6
    assert 0.8 * promised < out.stat().st_size <= promised + 50_000  # said to 0.1 MB


def test_some_layers_and_samples_only(qdebug: Run, tmp_path: Path) -> None:
    out = tmp_path / "pairs.npz"
    args = ("capture", *MODELS, *INPUTS, "-o", out, "--layer", "*Pool", "--samples", "3")
    assert qdebug(*args).exit_code == 0
    with np.load(out) as pairs:
        assert pairs["digits_1/pool_1/AvgPool/float"].shape == (3, 4, 4, 8)
        assert {key.rpartition("/")[0] for key in pairs.files} == {
            "digits_1/pool_1/AvgPool",
            "output_0",
        }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((SAMPLES / "digits.npz",), "expected two models of one kind"),
        ((*MODELS, "--inputs", "none.npz"), "none.npz: No such file"),
        ((*MODELS, *INPUTS, "--layer", "nobody"), "no layer 'nobody'"),
        ((*MODELS, *INPUTS, "--signature", "nobody"), "nobody"),
    ],
)
def test_wrong_input_leaves_nothing_behind(
    args: tuple[Any, ...], message: str, qdebug: Run, tmp_path: Path
) -> None:
    result = qdebug("capture", *args, "-o", tmp_path / "pairs.npz")
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_said_at_once(qdebug: Run, tmp_path: Path) -> None:
    result = qdebug("capture", *MODELS, *INPUTS, "-o", tmp_path / "none" / "pairs.npz")
    assert result.exit_code == 2
    assert "cannot be written: No such file or directory" in result.stderr
