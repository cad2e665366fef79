"""Reports on a cluster: the figures of one machine, whatever is lost or broken on the way."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.run import cluster, engine
from qdebug.run.cluster import Cluster, connect
from qdebug.sources.pair_file.read import PairFiles
from tests.conftest import SAMPLES
from tests.test_storage import Server, needs_http, server  # noqa: F401  (a fixture)

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs qdebug[dask]")
slow = pytest.mark.slow

Run = Callable[..., Result]
Fields = dict[str, Any]

SHARDS = 40
LARGE = 1 << 20  # elements of each shard's largest layer: 4 tasks of them in all


def quantized(floats: Any, scale: Any, dtype: str = "int8", **fields: Any) -> Fields:
    info = np.iinfo(dtype)
    zero_point = fields.get("zero_point", 0)
    codes = np.clip(np.rint(floats.astype(np.float64) / scale) + zero_point, info.min, info.max)
    return {"float": floats, "quantized": codes.astype(dtype), "scale": scale} | fields


def shard(number: int, large: Any) -> dict[str, Fields]:
    """Layers of every kind; of `large`, each shard has another excerpt."""
    rng = np.random.default_rng(number)
    x = rng.normal(size=(3, 8, 100 + number)).astype(np.float32)
    axis = np.linspace(0.02, 0.2, 8)
    layers = {
        "large": {field: values[number : number + LARGE] for field, values in large.items()}
        | {"scale": np.float32(0.03)},
        "per tensor": quantized(x, np.float32(0.03), zero_point=-3, op="CONV_2D", kind="weight"),
        "per channel": quantized(x, axis[:, None]) | {"scale": axis, "axis": 1},
        "model_float": quantized(x, 0.03)
        | {"model_float": x + rng.normal(0, 0.02, x.shape).astype(np.float32)},
        "half": quantized(np.maximum(x, 0).astype(np.float16), 0.02, "uint8", zero_point=4),
        "double": quantized(x.astype(np.float64), 1e-4, "int16"),
        "fortran": quantized(np.asfortranarray(x.reshape(24, -1)), 0.03),
    }
    if number == 11:
        x = x.copy()
        x[1, 2, 3], x[0, 0, 0] = np.nan, np.inf
    layers["gaps"] = quantized(np.nan_to_num(x, posinf=4), 0.03) | {"float": x}
    if number % 13 == 5:
        layers["in few"] = quantized(x, 0.5)
    return layers


def save(path: Path, layers: dict[str, Fields], packed: bool = False) -> Path:
    arrays = {f"{name}/{key}": v for name, fields in layers.items() for key, v in fields.items()}
    (np.savez_compressed if packed else np.savez)(path, allow_pickle=True, **arrays)
    return path


@pytest.fixture(scope="module")
def shards() -> Iterator[Path]:
    """A folder of 40 shards, 130 MB."""
    floats = np.random.default_rng(1).normal(size=LARGE + SHARDS).astype(np.float16)
    large = {"float": floats, "quantized": quantized(floats, np.float32(0.03))["quantized"]}
    with TemporaryDirectory(prefix="qdebug-test-") as folder:
        for number in range(SHARDS):
            layers = shard(number, large)
            own = layers.pop("large")
            save(Path(folder) / f"{number:02}.npz", layers | {"large": own})
            if number % 4 == 1:
                save(Path(folder) / f"{number:02}.npz", layers, packed=True)
                save(Path(folder) / f"{number:02}-large.npz", {"large": own})
        yield Path(folder)


@pytest.fixture(scope="module")
def expected(shards: Path) -> Any:
    """The shards' layers as one thread reports them."""
    done = command(str(shards / "*.npz"), "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    layers = json.loads(done.stdout)["layers"]
    of = {layer["name"]: layer["metrics"] for layer in layers}
    assert of["large"]["num_elements"] == SHARDS * LARGE
    assert of["gaps"]["non_finite"] == 2
    assert of["model_float"]["inherited_rmse_scale"] > 0.5
    assert len(of) == 9
    return layers


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers, which run in a folder of their own."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="qdebug-test-"))
        with chdir(folder):
            address = stack.enter_context(cluster._local_workers(2))
            client = stack.enter_context(cluster.connect(address))._client
            client.wait_for_workers(2, timeout=60)
        yield address


def qdebug_process(*args: str) -> subprocess.Popen[str]:
    """`qdebug report` of all figures, in a process of its own."""
    words = [sys.executable, "-m", "qdebug", "report", *args, "--format", "json"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    with qdebug_process(*args) as process:
        out, err = process.communicate(timeout=60)
    # Where bokeh is installed, a local cluster has a dashboard, too.
    err = re.sub(r"\ADashboard: http://\S+\n", "", err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_same(found: Any, wanted: Any, where: str = "") -> None:
    """Two JSON values; numbers to 1e-9 relative."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9), f"{where}: {found}, not {wanted}"
    else:
        assert found == wanted, where


# The figures of one machine


@needs_dask
@slow
def test_two_processes_give_the_figures_of_one_thread(shards: Path, expected: Any) -> None:
    source = PairFiles([str(shards / "*.npz")])
    assert len(list(engine._tasks(source.parts(source.layers), Cluster))) >= 4
    done = command(str(shards / "*.npz"), "--scheduler", "local", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert_same(report["layers"], expected)
    assert len(report["sources"]) == SHARDS + SHARDS // 4


@needs_dask
@slow
@pytest.mark.parametrize("elements", [1, 1 << 18])
def test_figures_do_not_depend_on_the_tasks(
    elements: int,
    shards: Path,
    expected: Any,
    address: str,
    qdebug: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task for each of 300 parts, and some in between; from here and elsewhere alike."""
    monkeypatch.setattr(Cluster, "task_elements", elements)
    monkeypatch.chdir(shards)  # the workers are not there
    result = qdebug("report", "*.npz", "--scheduler", address, "--format", "json")
    assert result.exit_code == 0
    assert_same(json.loads(result.stdout)["layers"], expected)


@needs_dask
@slow
def test_progress_and_dashboard(
    shards: Path, address: str, qdebug: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "task_elements", 1)
    seen: list[tuple[int, int]] = []
    with connect(address) as connected:
        source = PairFiles([str(shards / "0*.npz")], workers=connected)
        engine.run(source, ["per*"], lambda done, total: seen.append((done, total)), connected)
    assert seen == [(done, 20) for done in range(1, 21)]
    result = qdebug("report", shards / "00.npz", "--scheduler", address)
    assert re.fullmatch(r"Dashboard: http://127\.0\.0\.1:\d+/status\n", result.stderr)
    assert "Dashboard" not in result.stdout


# A layer larger than a task


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with a layer of 4 parts, which come to 2 tasks, and a small one."""
    floats = np.resize(np.random.default_rng(3).normal(size=1_000_003), 13_000_000)
    layers = {
        "large": quantized(floats.astype(np.float16), 0.03),
        "small": quantized(floats[:1000], 0.03),
    }
    path = save(tmp_path_factory.mktemp("large") / "large.npz", layers)
    source = PairFiles([str(path)])
    tasks = list(engine._tasks(source.parts(source.layers), Cluster))
    assert [len(task) for task in tasks] == [3, 2]
    yield path
    path.unlink()


@needs_dask
@slow
def test_a_large_layers_checksum_is_put_together(large: Path, address: str, qdebug: Run) -> None:
    """One byte that is another, in any of its parts, is found: its layer has no figures."""
    args = ("--format", "json", "--scheduler", address)
    alone = json.loads(qdebug("report", large, "--jobs", 1, "--format", "json").stdout)
    sound = qdebug("report", large, *args)
    assert sound.exit_code == 0
    assert_same(json.loads(sound.stdout)["layers"], alone["layers"])
    size = large.stat().st_size
    for place in (1000, size // 2, size * 5 // 6):  # floats twice, codes of the second task
        with large.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        broken = qdebug("report", large, *args)
        with large.open("r+b") as file:
            file.seek(place)
            file.write(bytes([byte]))
        line = f"{large}: layer 'large': its checksum (CRC-32) does not agree with its data"
        assert broken.exit_code == 2
        assert broken.stderr.splitlines()[1:] == [f"Error: {line}"]
        bad, small = json.loads(broken.stdout)["layers"]
        assert bad["diagnosis"]["verdict"] == "unreadable"
        assert_same(small, alone["layers"][1])
    assert qdebug("report", large, *args).exit_code == 0  # all is as it was


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
    server: Server,  # noqa: F811
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
    with qdebug_process(*urls, "--scheduler", "local", "--jobs", "2") as process:
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


@needs_dask
def test_a_scheduler_that_does_not_answer(qdebug: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 1.0)
    result = qdebug("report", SAMPLES / "digits.npz", "--scheduler", "tcp://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: no scheduler at 'tcp://127.0.0.1:9' (")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("digits_float.tflite", "digits_int8.tflite", "--inputs", "digits_inputs.npz"),
            "--scheduler goes with pair files (.npz)",
        ),
        (("report.json",), "--scheduler goes with tensors: pair files or models"),
        (("digits.npz", "--jobs", "2"), "--jobs goes with threads and --scheduler local"),
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
