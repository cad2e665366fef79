"""Reports on a cluster: the figures of one machine, whatever is lost or broken on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.run import cluster
from tests.needs import needs_dask, needs_http
from tests.paths import SAMPLES
from tests.run.shards import LARGE, assert_same, qdebug_process, quantized, save
from tests.run.waiting import ended
from tests.server import Server

slow = pytest.mark.slow

Run = Callable[..., Result]


# A worker that is killed


def holder(pid: int, port: int) -> int:
    """Which process under `pid` talks from this port."""
    import psutil

    for process in psutil.Process(pid).children(recursive=True):
        ports = [connection.laddr.port for connection in process.net_connections("tcp")]
        if port in ports:
            return int(process.pid)
    raise AssertionError(f"nobody holds {port}")


@needs_dask
@needs_http
@slow
def test_a_worker_killed_in_the_middle_changes_no_figure(
    shards: Path,
    expected: Any,
    server: Server,
) -> None:
    """It is killed while it waits for bytes of its task, which the server holds back until then."""
    server.folder = shards
    held, go = threading.Event(), threading.Event()
    waiting: list[tuple[int, tuple[int, int] | None]] = []

    def hold(method: str, span: tuple[int, int] | None) -> bool:
        # No header or small layer is so large.
        data = span is not None and span[1] - span[0] >= LARGE // 2
        if data and server.serving.name == "30.npz" and not held.is_set():
            waiting.append((server.serving.port, span))
            held.set()
            assert go.wait(40)
        return False

    server.failing = hold
    urls = [f"{server.url}/{path.name}" for path in sorted(shards.iterdir())]
    with ended(qdebug_process(*urls, "--scheduler", "local", "--jobs", "2")) as process:
        try:
            assert held.wait(40)
            ((port, span),) = waiting
            os.kill(holder(process.pid, port), signal.SIGKILL)
        finally:
            go.set()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.sub(r"\ADashboard: http://\S+\n", "", err) == ""
    assert_same(json.loads(out)["layers"], expected)
    assert server.gets("30.npz").count(span) == 2  # another did that task anew


# Broken among good


@needs_dask
@slow
@pytest.mark.parametrize("on", ["threads", "cluster"])
def test_a_broken_shard_is_named_and_the_rest_reported(
    on: str, tmp_path: Path, address: str, qdebug: Run
) -> None:
    x = np.random.default_rng(5).normal(size=500)
    for number in range(8):
        layers = {name: quantized(x + number, 0.1) for name in ("a", "b", "c")}
        if number == 2:
            del layers["c"]["scale"]
        save(tmp_path / f"{number}.npz", layers)
    for number, old, new in ((5, x + 5, -x), (6, x + 6, x)):  # `a` of 5 and all of 6
        path = tmp_path / f"{number}.npz"
        data = path.read_bytes()
        changed = data.replace(old.tobytes(), new.tobytes(), 1)
        assert changed != data
        path.write_bytes(changed if number == 5 else data[:5000])
    args = ("--jobs", 2) if on == "threads" else ("--scheduler", address)
    result = qdebug("report", tmp_path / "*.npz", *args, "--format", "json")
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Dashboard: ")]
    assert lines == [
        f"Error: {tmp_path}/6.npz: File is not a zip file; expected an .npz file as numpy.savez "
        "writes it",
        f"Error: {tmp_path}/5.npz: layer 'a': its checksum (CRC-32) does not agree with its data",
        f"Error: {tmp_path}/2.npz: layer 'c': field 'scale': found nothing, expected an array",
    ]
    counts = {x["name"]: x["metrics"]["num_elements"] for x in json.loads(result.stdout)["layers"]}
    assert counts == {"a": 6 * 500, "b": 7 * 500, "c": 6 * 500}


@needs_dask
@slow
def test_shards_that_disagree_are_named(tmp_path: Path, address: str, qdebug: Run) -> None:
    x = np.random.default_rng(5).normal(size=500)
    for number in range(3):
        layers = {"same": quantized(x, 0.1), "other": quantized(x, 0.2 if number == 2 else 0.1)}
        save(tmp_path / f"{number}.npz", layers)
    result = qdebug("report", tmp_path / "*.npz", "--scheduler", address, "--format", "json")
    assert result.exit_code == 2
    line = (
        f"{tmp_path}/2.npz: layer 'other': field 'scale': found 0.2, expected 0.1, as in "
        f"{tmp_path}/0.npz"
    )
    assert result.stderr.splitlines()[1:] == [f"Error: {line}"]
    same, other = json.loads(result.stdout)["layers"]
    assert same["metrics"]["num_elements"] == 1500
    assert (other["diagnosis"]["verdict"], other["metrics"]) == ("unreadable", None)


@needs_dask
@slow
def test_a_file_that_workers_do_not_see_is_named(address: str, qdebug: Run) -> None:
    """Here: memory of this process, which is not that of the workers."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/here.npz", (SAMPLES / "digits.npz").read_bytes())
    try:
        assert qdebug("report", "memory://here.npz").exit_code == 0
        result = qdebug("report", "memory://here.npz", "--scheduler", address)
    finally:
        memory.rm("/here.npz")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1:] == ["Error: memory://here.npz: No such file or directory"]


# What cannot begin


@pytest.mark.slow
@needs_dask
def test_a_scheduler_that_does_not_answer(qdebug: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 1.0)
    result = qdebug("report", SAMPLES / "digits.npz", "--scheduler", "tcp://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: no scheduler at 'tcp://127.0.0.1:9' (")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("digits_float.tflite", "digits_int8.tflite", "--inputs", "digits_inputs.npz"),
            "--scheduler goes with pair files (.npz) and weight files",
        ),
        (("report.json",), "--scheduler goes with tensors: pair files or models"),
        (("digits.npz", "--jobs", "2"), "--jobs goes with threads and the scheduler 'local'"),
    ],
)
def test_where_a_scheduler_makes_no_sense(
    args: tuple[str, ...],
    message: str,
    qdebug: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in {"digits.npz", *args}:
        if (SAMPLES / name).exists():
            Path(name).symlink_to(SAMPLES / name)
    assert qdebug("report", "digits.npz", "-o", "report.json").exit_code == 0
    result = qdebug("report", *args, "--scheduler", "tcp://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: {message}"


@pytest.mark.slow
def test_without_dask_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['distributed'] = None; sys.argv = ['qdebug', *sys.argv[1:]];"
        "from qdebug.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "report", str(SAMPLES / "digits.npz")]
    assert subprocess.run(words, capture_output=True).returncode == 0
    done = subprocess.run([*words, "--scheduler", "local"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --scheduler needs an extra: pip install 'qdebug[dask]'\n"


@needs_dask
@needs_http
@slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_report_on_local_workers_that_is_ended_leaves_nothing(
    number: int,
    status: int,
    shards: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended while a worker waits for bytes."""
    import psutil

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server.folder = shards
    held, go = threading.Event(), threading.Event()

    def hold(method: str, span: tuple[int, int] | None) -> bool:
        if span is not None and span[1] - span[0] >= LARGE // 2:
            held.set()
            go.wait(40)
        return False

    server.failing = hold
    urls = [f"{server.url}/{path.name}" for path in sorted(shards.iterdir())]
    with ended(qdebug_process(*urls, "--scheduler", "local", "--jobs", "2")) as process:
        try:
            assert held.wait(40)
            workers = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            go.set()
    assert (process.returncode, out) == (status, "")
    assert re.sub(r"\ADashboard: http://\S+\n", "", err) == ""
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert list(tmp_path.iterdir()) == []
