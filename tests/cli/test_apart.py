"""Runtimes may die: the command that gave them a model says which, and leaves nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.doomed import DOOMED, ENVIRONMENT, doomed
from tests.paths import SAMPLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork"),
]
FLOAT, QUANTIZED = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
INPUTS = ("--inputs", SAMPLES / "digits_inputs.npz")

LOADING = "ai_edge_litert.interpreter", "Interpreter.allocate_tensors"
RUNNING = "ai_edge_litert.interpreter", "Interpreter.invoke"


@pytest.mark.parametrize(
    ("number", "count", "call", "said"),
    [
        (signal.SIGSEGV, 1, LOADING, f"{QUANTIZED}: LiteRT crashed while loading it: Segmentation"),
        (signal.SIGABRT, 2, LOADING, f"{FLOAT}: LiteRT crashed while loading it: Aborted"),
        (signal.SIGFPE, 1, RUNNING, f"{QUANTIZED}: sample 0: LiteRT crashed: Floating point"),
        (signal.SIGABRT, 8, RUNNING, "sample 1: LiteRT crashed: Aborted (SIGABRT); is the model"),
        (signal.SIGKILL, 3, RUNNING, "LiteRT was ended: Killed (SIGKILL); is there enough memory?"),
    ],
)
def test_a_runtime_that_dies_is_one_line(
    number: int, count: int, call: tuple[str, str], said: str, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    done = doomed(tmp_path, number, count, call, "report", FLOAT, QUANTIZED, *INPUTS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("check", FLOAT, QUANTIZED, *INPUTS),
        ("capture", FLOAT, QUANTIZED, *INPUTS, "-o", "pairs.npz"),
        ("explain", "dense", "-m", FLOAT, "-m", QUANTIZED, *INPUTS),
        ("plot", "--overview", "-m", FLOAT, "-m", QUANTIZED, *INPUTS, "-o", "layers.png"),
        ("suggest", FLOAT, QUANTIZED, *INPUTS, "--measure"),
        ("replay", QUANTIZED, *INPUTS, "-o", "replay.json"),
        ("report", FLOAT, QUANTIZED, *INPUTS, "-o", "report.json"),
    ],
    ids=lambda args: args[0],
)
def test_every_command_on_models_outlives_them(args: tuple[object, ...], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    done = doomed(tmp_path, signal.SIGSEGV, 2, RUNNING, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert ": LiteRT crashed: Segmentation fault (SIGSEGV)" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_status_is_that_of_the_command(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    words = [sys.executable, "-m", "qdebug", "check", FLOAT, QUANTIZED, *INPUTS]
    statuses = [
        subprocess.run(
            [*map(str, words), *limit], env=ENVIRONMENT, capture_output=True, timeout=60
        ).returncode
        for limit in ([], ["--max-rmse-scale", "0.01"], ["--max-rmse-scale", "x"])
    ]
    assert statuses == [0, 1, 2]


def test_a_command_that_is_killed_takes_its_child_along(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    waiting = DOOMED.replace("os.kill(os.getpid(), number)", "import time; time.sleep(50)")
    words = [sys.executable, "-c", waiting, "0", "9", *RUNNING, "capture", FLOAT, QUANTIZED]
    with subprocess.Popen(
        [*map(str, words), *map(str, INPUTS), "-o", "pairs.npz"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    ) as command:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        until = time.monotonic() + 30
        while not list(tmp_path.iterdir()):
            assert time.monotonic() < until
            time.sleep(0.05)
        (child,) = children.read_text().split()
        command.kill()
    while Path(f"/proc/{child}").exists() and "Z (zombie)" not in _state(child):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def _state(process: str) -> str:
    try:
        return Path(f"/proc/{process}/status").read_text()
    except OSError:
        return "Z (zombie)"
