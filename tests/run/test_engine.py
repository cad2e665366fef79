"""However the work is cut and handed out, a report says the same."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qdebug.run import engine
from qdebug.run.workers import Threads
from qdebug.sources.pair_file import read as npz
from qdebug.sources.pair_file.read import PairFiles
from tests import layers
from tests.layers import large_layer
from tests.pairs import read

WritePairs = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [2, 5])
def test_the_number_of_threads_changes_no_digit(
    jobs: int, write_pairs: WritePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(jobs)
    task = 1 << 18
    pairs = {f"small{i}": layers.random_layer(rng) for i in range(100)}
    pairs |= {f"large{i}": large_layer(rng, task + 1000 * i) for i in range(3)}
    path = write_pairs(pairs)
    monkeypatch.setattr(npz, "TASK_ELEMENTS", task)
    monkeypatch.setattr(Threads, "task_elements", task)
    source = PairFiles([str(path)])
    assert len(list(engine.tasks_of(source.parts(source.layers), Threads(jobs)))) > 3
    assert read(path, jobs=jobs) == read(path)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_layers_in_parts_have_the_figures_of_whole_ones(
    axis: int | None, write_pairs: WritePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 40, 50)).astype(np.float32)
    channels = 1 if axis is None else x.shape[axis]
    scale = rng.uniform(0.02, 0.04, channels)
    along = [1, 1, 1]
    along[axis or 0] = channels
    codes = np.clip(np.rint(x / scale.reshape(along)), -128, 127).astype(np.int8)
    fields = {"float": x, "quantized": codes, "scale": scale}
    path = write_pairs({"a": fields | ({} if axis is None else {"axis": axis})})
    whole = read(path).layers[0]
    monkeypatch.setattr("qdebug.measure.slabs.BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(npz, "TASK_ELEMENTS", 4000)
    source = PairFiles([str(path)])
    assert len(source.parts(source.layers)) > 10  # type: ignore[arg-type]
    cut = read(path, jobs=2).layers[0]
    assert whole.metrics is not None
    for name, value in vars(whole.metrics).items():
        found = getattr(cut.metrics, name)
        assert found == (value and pytest.approx(value, rel=1e-9, abs=1e-12)), name
    assert (cut.channels is None) == (axis is None)
    for ours, theirs in zip(cut.channels or [], whole.channels or [], strict=True):
        assert ours.metrics.rmse_scale == pytest.approx(theirs.metrics.rmse_scale, rel=1e-9)


def test_a_failing_task_ends_the_others() -> None:
    begun: list[int] = []

    def fail(task: int) -> int:
        begun.append(task)
        raise ValueError(task)

    threads = Threads(2)
    with pytest.raises(ValueError, match="0"):
        threads.reduce(fail, range(1000), max)
    assert len(begun) < 20
    assert threads.stopped
    assert threads.reduce(lambda task: (task, threads.stopped), range(9), max) == (8, False)


@pytest.mark.slow
def test_ctrl_c_ends_threads_in_the_middle_of_a_part() -> None:
    """As of a live pair, whose activations are one part however many samples there are."""
    code = """
import os, signal, threading, time
import numpy as np
from qdebug.run import session
from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.layer import Block, Layer
from qdebug.run.workers import Threads

class Endless:
    whole, waits, num_elements = None, False, 1 << 23
    def __init__(self, name):
        self.layers = [Layer(name, QuantParams.of(1.0), (1,))]
    def read(self, visitor):
        while True:
            time.sleep(0.01)
            visitor.take(self.layers[0], Block(np.ones((1, 1, 1)), np.ones((1, 1, 1), np.int8)))

class Source:
    files = problems = notes = skipped = ()
    def __init__(self):
        self.own = [Endless(str(i)) for i in range(2)]
        self.layers = [part.layers[0] for part in self.own]
    def parts(self, layers):
        return self.own

# A job in the background inherits SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    session.run(Source(), workers=Threads(2))
except KeyboardInterrupt:
    print("interrupted")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted\n", "", 0)


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_a_thread_that_hangs() -> None:
    code = """
import os, signal, threading, time
from qdebug.run.workers import Threads
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    Threads(2).map(time.sleep, [60, 60, 60])
except KeyboardInterrupt:
    print("interrupted")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted\n", "", 0)


def test_a_task_is_called_by_its_files_and_layers(write_pairs: WritePairs) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs({"a\n": large_layer(rng, 10), "b": large_layer(rng, 10)})
    source = PairFiles([str(path)])
    (task,) = engine.tasks_of(source.parts(source.layers), Threads(1))  # type: ignore[arg-type]
    assert str(task) == f"{path}: layer 'a\\n' and 1 more"
