"""Reports on a cluster: the figures of one machine."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.run import engine, session
from qdebug.run.cluster import Cluster, connect
from qdebug.sources.pair_file import read
from qdebug.sources.pair_file.read import PairFiles
from tests.needs import needs_dask
from tests.run.shards import SHARDS, TASK, assert_same, command, quantized, save

pytestmark = [pytest.mark.slow, needs_dask]

Run = Callable[..., Result]


# The figures of one machine


def test_two_processes_give_the_figures_of_one_thread(
    shards: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "task_elements", TASK)
    source = PairFiles([str(shards / "*.npz")])
    assert len(list(engine.tasks_of(source.parts(source.layers), Cluster))) >= 4
    done = command(str(shards / "*.npz"), "--scheduler", "local", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert_same(report["layers"], expected)
    assert len(report["sources"]) == SHARDS + SHARDS // 4


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


def test_progress_and_dashboard(
    shards: Path, address: str, qdebug: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "task_elements", 1)
    seen: list[tuple[int, int]] = []
    with connect(address) as connected:
        source = PairFiles([str(shards / "0*.npz")], workers=connected)
        session.run(source, ["per*"], lambda done, total: seen.append((done, total)), connected)
    # Of ten shards, two layers and the one before, which their diagnosis depends on.
    assert seen == [(done, 30) for done in range(1, 31)]
    result = qdebug("report", shards / "00.npz", "--scheduler", address)
    assert re.fullmatch(r"Dashboard: http://127\.0\.0\.1:\d+/status\n", result.stderr)
    assert "Dashboard" not in result.stdout


# A layer larger than a task


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with a layer of 4 parts, which come to 2 tasks, and a small one."""
    floats = np.random.default_rng(3).normal(size=13 << 16)
    layers = {
        "large": quantized(floats.astype(np.float16), 0.03),
        "small": quantized(floats[:1000], 0.03),
    }
    path = save(tmp_path_factory.mktemp("large") / "large.npz", layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "TASK_ELEMENTS", 1 << 18)
        patch.setattr(Cluster, "task_elements", 3 << 18)
        source = PairFiles([str(path)])
        tasks = list(engine.tasks_of(source.parts(source.layers), Cluster))
        assert [len(task) for task in tasks] == [3, 2]
        yield path


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
