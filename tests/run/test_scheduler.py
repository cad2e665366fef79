"""A scheduler elsewhere: one line for workers that lack something or get lost."""

import json
import operator
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qdebug.errors import QdebugError
from qdebug.run import cluster
from qdebug.run.cluster import connect
from tests.needs import needs_dask
from tests.paths import ROOT
from tests.run.tasks import (
    error_of,
    in_tree_order,
    slowly,
    third,
)
from tests.run.waiting import until

pytestmark = [pytest.mark.slow, needs_dask]

# What comes first in a process where qdebug is not installed.
WITHOUT_QDEBUG = "import sys; sys.modules['qdebug'] = None; "


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Schedulers and workers, in the order of their start; ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def start(processes: list[subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    def run(kind: str, *args: Any, first: str = "") -> subprocess.Popen[str]:
        code = f"{first}from distributed.cli.dask_{kind} import main; main()"
        command = [sys.executable, "-c", code, "--host", "127.0.0.1", *args]
        command += ["--dashboard-address", "127.0.0.1:0"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        return process

    return run


@pytest.fixture
def scheduler(start: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Start a scheduler; its address."""

    def run(**options: str) -> str:
        file = tmp_path / "scheduler.json"
        start("scheduler", "--port", "0", "--scheduler-file", str(file), **options)

        def address() -> str:
            try:
                return str(json.loads(file.read_text())["address"])
            except (OSError, ValueError):
                return ""

        return until(address)

    return run


@pytest.fixture
def worker(start: Callable[..., Any]) -> Callable[..., Any]:
    def run(address: str, **options: str) -> Any:
        return start("worker", address, "--no-nanny", "--nthreads", "1", **options)

    return run


def test_workers_that_cannot_do_the_work_are_named(
    scheduler: Any, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WORKER_TIMEOUT", 1.0)
    address = scheduler()
    assert f"scheduler {address}: no worker in 1 s" in error_of(address)

    monkeypatch.setattr(cluster, "WORKER_TIMEOUT", 20.0)
    without = worker(address, first=WITHOUT_QDEBUG)
    message = error_of(address)
    assert message.startswith("worker tcp://127.0.0.1:")
    assert f"of scheduler {address}: qdebug cannot be imported" in message
    without.kill()
    without.wait()

    (tmp_path / "qdebug").mkdir()
    (tmp_path / "qdebug" / "__init__.py").write_text("__version__ = '0.0.9'\n")
    worker(address, first=f"import sys; sys.path.insert(0, {str(tmp_path)!r}); ")
    assert "qdebug 0.0.9, expected " in error_of(address)


def test_a_scheduler_without_qdebug_is_named(scheduler: Any, worker: Any) -> None:
    address = scheduler(first=WITHOUT_QDEBUG)
    worker(address)
    assert error_of(address).startswith(f"scheduler {address}: qdebug cannot be imported")


def test_lost_workers_of_a_scheduler(
    scheduler: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = scheduler()
    workers = [worker(address) for _ in range(2)]

    def lose(at: int) -> Callable[[int], None]:
        return lambda done: workers.pop().kill() if done == at else None

    with connect(address) as connected:
        until(lambda: len(connected._client.nthreads()) == 2)
        total = connected.reduce(slowly, range(100), operator.add, lose(40))
        assert total == in_tree_order([third(k) for k in range(100)])
        monkeypatch.setattr(cluster, "WORKER_TIMEOUT", 1.0)
        with pytest.raises(QdebugError, match=f"scheduler {address}: no worker in 1 s"):
            connected.reduce(slowly, range(100), operator.add, lose(40))


def test_a_lost_scheduler_is_named(scheduler: Any, worker: Any, processes: Any) -> None:
    address = scheduler()
    worker(address)

    def lose(done: int) -> None:
        if done == 10:
            processes[0].kill()

    message = error_of(address, lambda it: it.reduce(slowly, range(100), operator.add, lose))
    assert message == f"scheduler {address}: the connection was lost"


def test_a_scheduler_that_is_stopped_is_named(
    scheduler: Any, worker: Any, processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 2.0)
    monkeypatch.setattr(cluster, "_POLL", 0.5)
    address = scheduler()
    worker(address)

    def stop(done: int) -> None:
        if done == 10:
            processes[0].send_signal(signal.SIGSTOP)

    began = time.monotonic()
    message = error_of(address, lambda it: it.reduce(slowly, range(100), operator.add, stop))
    assert message == f"scheduler {address}: no answer in 2 s"
    assert time.monotonic() - began < 30


def test_workers_that_are_stopped_are_named(
    scheduler: Any, worker: Any, processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = scheduler()
    worker(address)
    with connect(address):
        pass
    processes[1].send_signal(signal.SIGSTOP)
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 2.0)
    assert error_of(address) == f"scheduler {address}: no answer in 2 s"
