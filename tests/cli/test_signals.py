"""Signals: each ends a command with the status that is true, and leaves no temporary."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT, SAMPLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs signals"),
]

# As `python -m qdebug`; sends a signal to its process group, as a terminal does, at the n-th event
# of a kind whose first argument contains a text.
STRUCK = """
import os, runpy, signal, sys
number, count, kind, text = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
del sys.argv[1:5]
def strike(event, args):
    global count
    if event == kind and text in str(args[0]):
        count -= 1
        if count == 0:
            os.killpg(0, number)
# A job in the background inherits SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(strike)
runpy.run_module("qdebug", run_name="__main__", alter_sys=True)
"""
PAIRS, INPUTS = SAMPLES / "digits_faulty.npz", SAMPLES / "digits_inputs.npz"
MODELS = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")


def struck(
    folder: Path,
    number: int,
    count: int,
    kind: str,
    text: str,
    *args: object,
    ignored: bool = False,
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", STRUCK, str(int(number)), str(count), kind, text]
    return subprocess.run(
        [*words, *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        # The tests themselves may run under nohup.
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize(
    ("count", "kind", "text"),
    [(1, "os.rename", ".qdebug-"), (3, "open", ".qdebug-")],
    ids=["written, not renamed", "spooling"],
)
def test_a_command_that_is_ended_leaves_nothing(
    number: int, status: int, count: int, kind: str, text: str, tmp_path: Path
) -> None:
    args = ("capture", *MODELS, "--inputs", INPUTS, "-o", tmp_path / "pairs.npz")
    pytest.importorskip("ai_edge_litert")
    done = struck(tmp_path, number, count, kind, text, *args)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hangup_under_nohup_is_ignored(tmp_path: Path) -> None:
    args = ("report", PAIRS, "-o", tmp_path / "r.json")
    done = struck(tmp_path, signal.SIGHUP, 1, "os.rename", ".qdebug-", *args, ignored=True)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("text", "args"),
    [
        (PAIRS.name, ("report", PAIRS)),
        (PAIRS.name, ("check", PAIRS)),
        (PAIRS.name, ("suggest", PAIRS)),
        (PAIRS.name, ("diff", PAIRS, PAIRS)),
        (PAIRS.name, ("plot", "--overview", "-m", PAIRS)),
        (PAIRS.name, ("explain", "layer", "-m", PAIRS)),
        (PAIRS.name, ("quantize", PAIRS, "-o", "out.npz")),
        (INPUTS.name, ("capture", *MODELS, "--inputs", INPUTS, "-o", "out.npz")),
        (INPUTS.name, ("replay", MODELS[1], "--inputs", INPUTS)),
        ("multiplier", ("multiplier", "0.5")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_ctrl_c_ends_every_command(text: str, args: tuple[object, ...], tmp_path: Path) -> None:
    if args[0] in ("capture", "replay"):
        pytest.importorskip("ai_edge_litert")
    done = struck(tmp_path, signal.SIGINT, 1, "open", text, *args)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
    assert list(tmp_path.iterdir()) == []
