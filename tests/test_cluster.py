"""The cluster: results that depend on no worker, one line for whatever is wrong with it."""

import json
import math
import operator
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qdebug.errors import FieldError, QdebugError
from qdebug.run import cluster
from qdebug.run.cluster import Cluster, connect

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs qdebug[dask]")
slow = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# What comes first in a process where qdebug is not installed.
WITHOUT_QDEBUG = "import sys; sys.modules['qdebug'] = None; "


def third(task: int) -> float:
    return task / 3


def slowly(task: int) -> float:
    time.sleep(0.02)
    return task / 3


def dies_once(task: int) -> float:
    """A third; the first time that task 5 comes, it takes its worker along."""
    marker = Path(os.environ["QDEBUG_TEST_MARKER"])
    if task == 5 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slowly(task)


def dies(task: str) -> str:
    if task == "poison\x1b[2J":
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def lasting(task: int) -> int:
    time.sleep(60)
    return task


def bad_field(task: int) -> int:
    raise FieldError("scale", found="-1", expected="more")


def faulty(task: int) -> float:
    return 1 / (task - 3)


def timing_out(task: int) -> int:
    raise TimeoutError("no byte in 30 s")


def nothing(task: int) -> None:
    pass


def lacking(task: int) -> int:
    raise ModuleNotFoundError("No module named 's3fs'")


def in_tree_order(values: list[float]) -> float:
    """The sum, added up as the cluster does: 32 neighbours, 32 of these sums, the rest."""
    for width in (32, 32, len(values)):
        groups = [values[k : k + width] for k in range(0, len(values), width)]
        values = [sum(group[1:], group[0]) for group in groups]
    return values[0]


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    with connect("local") as started:
        yield started


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
        while True:
            try:
                return str(json.loads(file.read_text())["address"])
            except (OSError, ValueError):
                time.sleep(0.05)

    return run


@pytest.fixture
def worker(start: Callable[..., Any]) -> Callable[..., Any]:
    def run(address: str, **options: str) -> Any:
        return start("worker", address, "--no-nanny", "--nthreads", "1", **options)

    return run


def error_of(address: str, use: Callable[[Cluster], Any] = lambda it: None) -> str:
    """The one line that connecting to `address`, and `use`, ends with."""
    with pytest.raises(QdebugError) as info, connect(address) as connected:
        use(connected)
    assert "\n" not in str(info.value)
    return str(info.value)


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
    monkeypatch.setattr(cluster, "_IN_FLIGHT", cluster._BLOCK)
    most = 0

    def watch(done: int) -> None:
        nonlocal most
        most = max(most, len(local._client.futures))

    local.reduce(third, range(2 * cluster._BLOCK), operator.add, watch)
    assert most <= 1.1 * cluster._BLOCK
    while local._client.futures:  # let go of in threads, soon
        time.sleep(0.01)


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


@needs_dask
@slow
def test_a_task_that_kills_its_workers_is_named(local: Cluster) -> None:
    with pytest.raises(QdebugError) as info:
        local.map(dies, ["sound", "poison\x1b[2J"])
    assert str(info.value).startswith("task poison\\x1b[2J: 4 workers ended while they had it")
    assert local.map(dies, ["sound"]) == ["sound"]


SCRIPT = """
    import operator, sys
    from qdebug.run.cluster import connect
    from tests import test_cluster
    with connect("local") as cluster:
        workers = cluster._client.run(__import__("os").getpid)
        print(*workers.values(), flush=True)
        print(cluster.reduce(getattr(test_cluster, sys.argv[1]), range(64), operator.add))
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
    for pid in map(int, pids.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_dask
@slow
@pytest.mark.parametrize("function", ["third", "dies_once"])
def test_a_local_cluster_is_silent_and_leaves_nothing(tmp_path: Path, function: str) -> None:
    """A worker that is killed on the way changes no digit, and nobody hears of it."""
    with run_script(tmp_path, function) as process:
        out, err = process.communicate(timeout=40)
    pids, result = out.splitlines()
    assert (result, err) == (str(in_tree_order([third(k) for k in range(64)])), "")
    assert (tmp_path / "died").exists() == (function == "dies_once")
    assert_gone(pids)


@needs_dask
@slow
def test_a_local_cluster_ends_with_an_exception(tmp_path: Path) -> None:
    with run_script(tmp_path, "faulty") as process:
        out, err = process.communicate(timeout=40)
    assert_gone(out)
    assert err.count("Traceback") == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")


@needs_dask
@slow
def test_ctrl_c_ends_a_local_cluster_at_once(tmp_path: Path) -> None:
    with run_script(tmp_path, "lasting") as process:
        assert process.stdout is not None
        pids = process.stdout.readline()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=40)  # the task would take 60
    assert_gone(pids)
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")


# A scheduler elsewhere


@needs_dask
@slow
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


@needs_dask
@slow
def test_a_scheduler_without_qdebug_is_named(scheduler: Any, worker: Any) -> None:
    address = scheduler(first=WITHOUT_QDEBUG)
    worker(address)
    assert error_of(address).startswith(f"scheduler {address}: qdebug cannot be imported")


@needs_dask
@slow
def test_lost_workers_of_a_scheduler(
    scheduler: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = scheduler()
    workers = [worker(address) for _ in range(2)]

    def lose(at: int) -> Callable[[int], None]:
        return lambda done: workers.pop().kill() if done == at else None

    with connect(address) as connected:
        while len(connected._client.nthreads()) < 2:
            time.sleep(0.05)
        total = connected.reduce(slowly, range(100), operator.add, lose(40))
        assert total == in_tree_order([third(k) for k in range(100)])
        monkeypatch.setattr(cluster, "WORKER_TIMEOUT", 1.0)
        with pytest.raises(QdebugError, match=f"scheduler {address}: no worker in 1 s"):
            connected.reduce(slowly, range(100), operator.add, lose(40))


@needs_dask
@slow
def test_a_lost_scheduler_is_named(scheduler: Any, worker: Any, processes: Any) -> None:
    address = scheduler()
    worker(address)

    def lose(done: int) -> None:
        if done == 10:
            processes[0].kill()

    message = error_of(address, lambda it: it.reduce(slowly, range(100), operator.add, lose))
    assert message == f"scheduler {address}: the connection was lost"
