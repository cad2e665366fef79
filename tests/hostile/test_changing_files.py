"""Files that change while they are read: said so, and never reported as if they had not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.sources.npz.member import MemberReader
from tests.paths import SAMPLES

Run = Callable[..., Result]
SIZE = 1 << 18


def save(path: Path, seed: int, packed: bool) -> Path:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name in ("first", "second"):
        x = rng.normal(size=SIZE).astype(np.float32)
        arrays[f"{name}/float"] = x
        arrays[f"{name}/quantized"] = np.clip(np.rint(x / 0.04), -128, 127).astype(np.int8)
        arrays[f"{name}/scale"] = np.float32(0.04)
    (np.savez_compressed if packed else np.savez)(path, allow_pickle=True, **arrays)
    return path


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    """Half of it, in place; the directory at the end stays."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(bytes(size // 2))


def replace(path: Path) -> None:
    """By another with the same layout, as a job that writes it anew does."""
    other = save(path.with_name("other.npz"), 9, packed=False)
    other.replace(path)


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change a file as soon as the first large piece of it has been read."""

    def arrange(path: Path, change: Callable[[Path], None], large: int = 10_000) -> None:
        real, left = MemberReader.read_into, [change]

        def read_into(self: MemberReader, buffer: Any) -> None:
            real(self, buffer)
            if left and len(buffer) >= large:
                left.pop()(path)

        monkeypatch.setattr(MemberReader, "read_into", read_into)

    return arrange


def lines(result: Result) -> list[str]:
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr.splitlines()


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "packed"])
@pytest.mark.parametrize("change", [shrink, empty, rewrite])
def test_a_pair_file_that_changes_is_named(
    change: Callable[[Path], None], packed: bool, changed: Any, tmp_path: Path, qdebug: Run
) -> None:
    path = save(tmp_path / "pairs.npz", 1, packed)
    changed(path, change)
    said = lines(qdebug("report", path, "--jobs", 1))
    assert said
    for line in said:
        assert line.startswith(f"Error: {path}: ")
        assert any(why in line for why in ("too early", "checksum", "is broken", "directory says"))
    assert any("layer 'second'" in line for line in said)


def test_a_pair_file_that_is_replaced_gives_old_figures_or_none(
    changed: Any, tmp_path: Path, qdebug: Run
) -> None:
    path = save(tmp_path / "pairs.npz", 1, packed=False)
    before = qdebug("report", path, "--jobs", 1, "--format", "csv").stdout.splitlines()
    changed(path, replace)
    after = qdebug("report", path, "--jobs", 1, "--format", "csv")
    if after.exit_code == 0:
        assert after.stdout.splitlines() == before
    else:
        assert after.exit_code == 2
        assert "checksum" in after.stderr


@pytest.mark.parametrize("change", [shrink, rewrite])
def test_a_gate_does_not_pass_a_file_that_changes(
    change: Callable[[Path], None], changed: Any, tmp_path: Path, qdebug: Run
) -> None:
    path = save(tmp_path / "pairs.npz", 1, packed=False)
    changed(path, change)
    lines(qdebug("check", path, "--max-rmse-scale", 100))


def test_inputs_that_shrink_are_named(changed: Any, tmp_path: Path, qdebug: Run) -> None:
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "inputs.npz"
    with np.load(SAMPLES / "digits_inputs.npz") as samples:
        np.savez(path, **{name: np.tile(samples[name], (80, 1, 1, 1)) for name in samples.files})
    changed(path, shrink, large=256)
    models = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
    (line,) = lines(qdebug("report", *models, "--inputs", path))
    assert line.startswith(f"Error: {path}: ")
    assert "too early" in line or "ends" in line


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "packed"])
def test_floats_that_shrink_while_they_are_quantized_are_named(
    packed: bool, tmp_path: Path, qdebug: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "floats.npz", np.load
    x = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    (np.savez_compressed if packed else np.savez)(path, a=x, b=x)

    def load(*args: Any, **options: Any) -> Any:
        loaded = real(*args, **options)
        shrink(path)
        return loaded

    monkeypatch.setattr(np, "load", load)
    said = lines(qdebug("quantize", path, "-o", tmp_path / "out.npz"))
    assert said[-1].startswith(f"Error: {path}: ")
    assert not said[-1].startswith(f"Error: {path}: ;")
    assert [each.name for each in tmp_path.iterdir()] == ["floats.npz"]


def test_a_model_that_is_gone_before_it_is_read_is_named(tmp_path: Path, qdebug: Run) -> None:
    pytest.importorskip("ai_edge_litert")
    shutil.copy(SAMPLES / "digits_int8.tflite", tmp_path / "cut.tflite")
    shrink(tmp_path / "cut.tflite")
    args = (SAMPLES / "digits_float.tflite", tmp_path / "cut.tflite")
    (line,) = lines(qdebug("report", *args, "--inputs", SAMPLES / "digits_inputs.npz"))
    assert line.startswith(f"Error: {tmp_path}/cut.tflite: ")
