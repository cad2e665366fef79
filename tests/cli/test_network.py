"""Local files need no network: every command runs where a connection is an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT, SAMPLES

pytestmark = pytest.mark.slow

# As `python -m qdebug`, where sockets cannot be made nor names be looked up; not even by libraries
# that hide the error, for this ends the process.
ALONE = """
import os, runpy, sys
def refuse(event, args):
    if event in ("socket.__new__", "socket.connect", "socket.getaddrinfo", "urllib.Request"):
        os.write(2, f"network: {event} {args}".encode())
        os._exit(77)
sys.addaudithook(refuse)
runpy.run_module("qdebug", run_name="__main__", alter_sys=True)
"""
PAIRS, SOUND = SAMPLES / "digits_faulty.npz", SAMPLES / "digits.npz"
INPUTS = SAMPLES / "digits_inputs.npz"
MODELS = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
LIVE = (*MODELS, "--inputs", INPUTS)


def alone(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("report", PAIRS), 0),
        (("report", PAIRS, "-o", "r.html"), 0),
        (("report", PAIRS, "-o", "r.json"), 0),
        (("check", PAIRS), 1),
        (("diff", PAIRS, SOUND, "-o", "d.html"), 0),
        (("plot", "--overview", "-m", PAIRS, "-o", "p.png"), 0),
        (("explain", "*conv_1*", "-m", PAIRS), 0),
        (("suggest", PAIRS), 0),
        (("quantize", SOUND, "-o", "q.npz"), 0),
        (("report", *LIVE), 0),
        (("report", *LIVE, "--measure"), 0),
        (("suggest", *LIVE, "--measure"), 0),
        (("capture", *LIVE, "-o", "c.npz"), 0),
        (("replay", MODELS[1], "--inputs", INPUTS), 0),
        (("multiplier", "0.5"), 0),
        (("--version",), 0),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_a_command_on_local_files_makes_no_connection(
    args: tuple[object, ...], status: int, tmp_path: Path
) -> None:
    if MODELS[1] in args:
        pytest.importorskip("ai_edge_litert")
    done = alone(tmp_path, *args)
    assert done.returncode == status, done.stderr


def test_a_url_does() -> None:
    """The test would notice."""
    pytest.importorskip("aiohttp")
    done = alone(ROOT, "report", "http://127.0.0.1:9/x.npz")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.startswith("network: socket.")
