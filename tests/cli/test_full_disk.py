"""A disk that is full: one line, status 2, and no file, whole or half, is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT, SAMPLES

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.slow
PAIRS, INPUTS = SAMPLES / "digits_faulty.npz", SAMPLES / "digits_inputs.npz"
MODELS = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
LIVE = (*MODELS, "--inputs", INPUTS)


def on_a_small_disk(size: int, folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """The command, where no file can have more bytes than this."""
    return subprocess.run(
        [sys.executable, "-m", "qdebug", *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize(
    "args",
    [
        ("report", PAIRS, "-o", "out.json"),
        ("report", PAIRS, "-o", "out.html"),
        ("report", PAIRS, "-o", "out.csv"),
        ("diff", PAIRS, SAMPLES / "digits.npz", "-o", "out.json"),
        ("plot", "--overview", "-m", PAIRS, "-o", "out.png"),
        ("quantize", PAIRS, "-o", "out.npz"),
        ("capture", *LIVE, "-o", "out.npz"),
        ("replay", MODELS[1], "--inputs", INPUTS, "-o", "out.json"),
        ("suggest", *LIVE, "--for", "tflite", "-o", "out.txt"),
        ("report", *LIVE, "-o", "out.json"),
    ],
    ids=lambda args: f"{args[0]} {args[-1]}" if isinstance(args, tuple) else "",
)
def test_a_full_disk_leaves_nothing(args: tuple[object, ...], size: int, tmp_path: Path) -> None:
    if MODELS[1] in args:
        pytest.importorskip("ai_edge_litert")
    done = on_a_small_disk(size, tmp_path, *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "File too large" in last
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_file_of_before(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("before")
    done = on_a_small_disk(1000, tmp_path, "report", PAIRS, "-o", "out.json")
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "before"
