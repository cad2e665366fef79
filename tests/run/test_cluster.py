"""The cluster of this machine: results that depend on no worker, and none that is left behind."""

import math
import operator
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qdebug.errors import FieldError, QdebugError
from qdebug.run import cluster
from qdebug.run.cluster import Cluster, connect
from tests.needs import needs_dask
from tests.paths import ROOT
from tests.run.tasks import (
    bad_field,
    dies,
    error_of,
    faulty,
    in_tree_order,
    lacking,
    nothing,
    third,
    timing_out,
)
from tests.run.waiting import ended, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    with connect("local") as started:
        yield started


# Without a cluster


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert "pip install 'qdebug[dask]'" in error_of("local")


def test_dask_is_imported_only_when_used() -> None:
    code = "import sys, qdebug.run.cluster; print({'dask', 'distributed'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@needs_dask
@pytest.mark.parametrize(
    "address", ["foo", "host:notaport", "tcp://host", "", "s3://bucket/x", "tls://127.0.0.1:9"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    message = error_of(address)
    assert message.startswith(f"no scheduler at '{address}' (")
    assert message.endswith("or the address of a Dask scheduler, such as tcp://host:8786")


@needs_dask
def test_unreachable_schedulers_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.CONNECT_TIMEOUT <= 10
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 1.0)
    with socket.socket() as closed:  # bound, so that nobody else listens there
        closed.bind(("127.0.0.1", 0))
        # The last attempt may be the one that the time was too short for.
        message = error_of(f"tcp://127.0.0.1:{closed.getsockname()[1]}")
        assert "Connection refused" in message or "no answer in 1 s" in message
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer in 1 s" in error_of(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
    assert "tcp://no-such-host.invalid:8786" in error_of("tcp://no-such-host.invalid:8786")


# Worker processes of this machine


@needs_dask
def test_map_keeps_the_order(local: Cluster) -> None:
    seen: list[int] = []
    assert local.map(third, range(100), seen.append) == [k / 3 for k in range(100)]
    assert seen == list(range(1, 101))
    assert local.map(third, []) == []


@needs_dask
@pytest.mark.parametrize("count", [1, 33, 1100])
def test_merging_is_in_a_fixed_order(local: Cluster, count: int) -> None:
    expected = in_tree_order([third(k) for k in range(count)])
    assert local.reduce(third, range(count), operator.add) == expected
    assert math.isclose(expected, count * (count - 1) / 6)


@needs_dask
def test_no_results_stay_with_client_or_scheduler(
    local: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_BLOCK", 128)
    monkeypatch.setattr(cluster, "_IN_FLIGHT", 128)
    most = 0

    def watch(done: int) -> None:
        nonlocal most
        most = max(most, len(local._client.futures))

    local.reduce(third, range(4 * cluster._BLOCK), operator.add, watch)
    assert 0 < most <= 1.1 * cluster._BLOCK
    until(lambda: not local._client.futures)  # let go of in threads, soon


@needs_dask
def test_tasks_errors_are_raised_as_they_are(local: Cluster) -> None:
    with pytest.raises(FieldError, match="field 'scale': found -1, expected more"):
        local.reduce(bad_field, range(40), operator.add)
    with pytest.raises(ZeroDivisionError):
        local.reduce(faulty, range(40), operator.add)
    with pytest.raises(TimeoutError, match="no byte in 30 s"):
        local.map(timing_out, [1])
    with pytest.raises(TypeError, match="NoneType"):
        local.reduce(nothing, range(40), operator.add)
    with pytest.raises(QdebugError, match="a worker lacks a module: No module named 's3fs'"):
        local.map(lacking, [1])
    assert local.map(third, [3]) == [1.0]  # it is still of use


def allow(failures: int, to: Cluster) -> None:
    """Of workers with the same task, until the scheduler gives that up."""

    def change(dask_scheduler: Any) -> None:
        dask_scheduler.allowed_failures = failures

    to._client.run_on_scheduler(change)


@needs_dask
def test_a_task_that_kills_its_workers_is_named(local: Cluster) -> None:
    allow(1, local)
    with pytest.raises(QdebugError) as info:
        local.map(dies, ["sound", "poison\x1b[2J"])
    assert str(info.value).startswith("task poison\\x1b[2J: 2 workers ended while running it")
    assert local.map(dies, ["sound"]) == ["sound"]


SCRIPT = """
    import operator, signal, sys
    from qdebug.run.cluster import connect
    from tests.run import tasks
    # A job in the background inherits SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with connect("local", workers=1) as cluster:
        workers = cluster._client.run(__import__("os").getpid)
        print(*workers.values(), flush=True)
        print(cluster.reduce(getattr(tasks, sys.argv[1]), range(64), operator.add))
"""


def run_script(tmp_path: Path, function: str) -> subprocess.Popen[str]:
    """A program of its own that uses a local cluster, and that its workers must not run again."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), function],
        env=os.environ | {"PYTHONPATH": str(ROOT), "QDEBUG_TEST_MARKER": str(tmp_path / "died")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def assert_gone(pids: str) -> None:
    assert pids.split()
    for pid in map(int, pids.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_dask
@pytest.mark.parametrize("function", ["third", "dies_once"])
def test_a_local_cluster_is_silent_and_leaves_nothing(tmp_path: Path, function: str) -> None:
    """A worker that is killed on the way changes no digit, and nobody hears of it."""
    with ended(run_script(tmp_path, function)) as process:
        out, err = process.communicate(timeout=40)
    pids, result = out.splitlines()
    assert (result, err) == (str(in_tree_order([third(k) for k in range(64)])), "")
    assert (tmp_path / "died").exists() == (function == "dies_once")
    assert_gone(pids)


@needs_dask
def test_a_local_cluster_ends_with_an_exception(tmp_path: Path) -> None:
    with ended(run_script(tmp_path, "faulty")) as process:
        out, err = process.communicate(timeout=40)
    assert_gone(out)
    assert err.count("Traceback") == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")


@needs_dask
def test_ctrl_c_ends_a_local_cluster_at_once(tmp_path: Path) -> None:
    with ended(run_script(tmp_path, "lasting")) as process:
        assert process.stdout is not None
        pids = process.stdout.readline()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=40)  # the task would take 60
    assert_gone(pids)
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")
