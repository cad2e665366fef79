"""However the work is cut and handed out, a report says the same; what is broken costs itself."""

import os
import random
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.report.report import Report
from qdebug.run import engine
from qdebug.run.workers import TASK_ELEMENTS, Threads
from qdebug.sources.npz import transpose
from qdebug.sources.npz.checksum import RangeSum, agree
from qdebug.sources.pair_file import read as npz
from qdebug.sources.pair_file.read import PairFiles
from tests import layers

WritePairs = Callable[..., Path]


def of(*paths: Path, jobs: int = 1) -> Report:
    return engine.run(PairFiles([str(path) for path in paths]), workers=Threads(jobs))


def large(rng: np.random.Generator, elements: int, **more: Any) -> dict[str, Any]:
    """A layer of so many elements, in little memory."""
    x = rng.normal(size=elements).astype(np.float16)
    codes = np.clip(np.rint(x / np.float16(0.03)), -128, 127).astype(np.int8)
    return {"float": x, "quantized": codes, "scale": np.float16(0.03), **more}


# --- threads and parts ---


@pytest.mark.parametrize("jobs", [2, 5])
def test_the_number_of_threads_changes_no_digit(jobs: int, write_pairs: WritePairs) -> None:
    rng = np.random.default_rng(jobs)
    pairs = {f"small{i}": layers.random_layer(rng) for i in range(100)}
    pairs |= {f"large{i}": large(rng, TASK_ELEMENTS + 1000 * i) for i in range(3)}
    path = write_pairs(pairs)
    assert of(path, jobs=jobs) == of(path)


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
    whole = of(path).layers[0]
    monkeypatch.setattr("qdebug.measure.slabs.BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(npz, "TASK_ELEMENTS", 4000)
    source = PairFiles([str(path)])
    assert len(source.parts(source.layers)) > 10  # type: ignore[arg-type]
    cut = of(path, jobs=2).layers[0]
    assert whole.metrics is not None
    for name, value in vars(whole.metrics).items():
        found = getattr(cut.metrics, name)
        assert found == (value and pytest.approx(value, rel=1e-9, abs=1e-12)), name
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


def test_ctrl_c_ends_threads_in_the_middle_of_a_part() -> None:
    """As of a live pair, whose activations are one part however many samples there are."""
    code = """
import os, signal, threading, time
import numpy as np
from qdebug.run import engine
from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.layer import Block, Layer, WholePiece
from qdebug.run.workers import Threads

class Endless(WholePiece):
    num_elements = 1 << 23
    def __init__(self, name):
        self.layers = [Layer(name, QuantParams.of(1.0), (1,))]
    def blocks(self, sums):
        while True:
            time.sleep(0.01)
            yield self.layers[0], Block(np.ones((1, 1, 1)), np.ones((1, 1, 1), np.int8))

class Source:
    files = problems = notes = skipped = ()
    def __init__(self):
        self.own = [Endless(str(i)) for i in range(2)]
        self.layers = [part.layers[0] for part in self.own]
    def parts(self, layers):
        return self.own

threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    engine.run(Source(), workers=Threads(2))
except KeyboardInterrupt:
    print("interrupted")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted\n", "", 0)


# --- checksums ---


@given(data=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 300)))
def test_checksums_of_ranges_make_up_that_of_the_whole(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sums = [
        RangeSum(
            "a", start, stop - start, zlib.crc32(data[start:stop]), len(data), zlib.crc32(data)
        )
        for start, stop in pairwise(ends)
    ]
    random.Random(0).shuffle(sums)
    assert agree(sums)
    assert len(sums) == 1 or not agree(sums[1:])
    wrong = RangeSum("a", ends[0], ends[1], sums[0].crc ^ 1, len(data), zlib.crc32(data))
    assert not agree([wrong, *(part for part in sums if part.start != ends[0])])


@pytest.mark.parametrize("place", [0.0001, 0.3, 0.999])
@pytest.mark.parametrize("field", ["float", "quantized"])
def test_a_changed_byte_is_found_in_whatever_part_it_is(
    field: str, place: float, write_pairs: WritePairs, healthy: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs({"good": healthy, "large": large(rng, 2 * TASK_ELEMENTS + 1)})
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"large/{field}.npy")
    with path.open("r+b") as file:
        file.seek(info.header_offset + 300 + int(place * (info.file_size - 300)))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    for jobs in (1, 2):
        good, broken = of(path, jobs=jobs).layers
        assert good.unreadable is None
        assert broken.unreadable == (
            f"{path}: layer 'large': its checksum (CRC-32) does not agree with its data"
        )


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_while_it_is_read_is_an_error(packed: bool, write_pairs: WritePairs) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs(
        {"first": large(rng, 1000), "second": large(rng, 2 * TASK_ELEMENTS)}, packed=packed
    )
    source = PairFiles([str(path)])
    os.truncate(path, path.stat().st_size // 2)
    first, second = engine.run(source, workers=Threads(2)).layers
    assert first.unreadable is None
    assert second.unreadable is not None
    assert second.unreadable.startswith(f"{path}: layer 'second': ")
    assert "too early" in second.unreadable


# --- shards ---


def broken_shards(write_pairs: WritePairs) -> tuple[list[Path], list[Path]]:
    """Five shards, and those of them that are whole: one has a changed byte, one is cut."""
    rng = np.random.default_rng(0)
    paths = [
        write_pairs({"a": large(rng, 900), "b": large(rng, 500)}, name=f"{i}.npz") for i in range(5)
    ]
    data = bytearray(paths[1].read_bytes())
    data[600] ^= 1  # within the floats of a
    paths[1].write_bytes(data)
    os.truncate(paths[3], paths[3].stat().st_size - 30)
    return paths, [paths[0], paths[2], paths[4]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_shard_costs_its_own_data_only(
    jobs: int, write_pairs: WritePairs, qdebug: Callable[..., Result], tmp_path: Path
) -> None:
    paths, whole = broken_shards(write_pairs)
    found = of(*paths, jobs=jobs)
    a, b = found.layers
    assert a == of(*whole).layers[0]
    assert b.metrics is not None
    assert b.metrics.num_elements == 4 * 500
    cut, wrong = sorted(found.problems, key=lambda line: "checksum" in line)
    assert cut.startswith(f"{paths[3]}: ")
    assert wrong == f"{paths[1]}: layer 'a': its checksum (CRC-32) does not agree with its data"
    ran = qdebug("report", *paths, "--jobs", jobs)
    assert ran.exit_code == 2
    assert [line for line in ran.stderr.splitlines() if line] == [
        f"Error: {line}" for line in found.problems
    ]


def test_a_layer_broken_in_all_shards_is_unreadable_and_each_is_named(
    write_pairs: WritePairs,
) -> None:
    rng = np.random.default_rng(0)
    paths = [write_pairs({"a": large(rng, 900)}, name=f"{i}.npz") for i in range(3)]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[600] ^= 1
        path.write_bytes(data)
    report = of(*paths)
    (layer,) = report.layers
    assert layer.unreadable is not None
    assert [line.split(":")[0] for line in [layer.unreadable, *report.problems]] == [
        str(path) for path in paths
    ]


def test_a_layer_of_broken_shards_is_drawn_and_explained_from_the_others(
    write_pairs: WritePairs, qdebug: Callable[..., Result], tmp_path: Path
) -> None:
    paths, whole = broken_shards(write_pairs)
    source = [word for path in paths for word in ("-m", path)]
    for command in (["plot", "a", "-o", tmp_path / "a.png"], ["explain", "a"]):
        ran = qdebug(*command, *source)
        assert ran.exit_code == 2
        lines = ran.stderr.splitlines()
        assert len(lines) == 2
        assert any(line.startswith(f"Error: {paths[1]}: layer 'a': ") for line in lines)
        assert any(line.startswith(f"Error: {paths[3]}: ") for line in lines)
    assert (tmp_path / "a.png").exists()
    good = qdebug("explain", "a", *(word for path in whole for word in ("-m", path)))
    assert good.exit_code == 0
    assert good.stdout == ran.stdout


def test_layers_chosen_answer_for_themselves_alone(
    write_pairs: WritePairs, qdebug: Callable[..., Result]
) -> None:
    rng = np.random.default_rng(0)
    a, b = large(rng, 900), large(rng, 500)
    paths = [
        write_pairs({"a": a, "b": b}, name="0.npz"),
        write_pairs({"a": {"float": a["float"]}, "b": b}, name="1.npz"),
    ]
    ran = qdebug("report", *paths, "--layer", "b")
    assert (ran.exit_code, ran.stderr) == (0, "")
    ran = qdebug("report", *paths, "--layer", "a")
    assert ran.exit_code == 2
    assert ran.stderr == (
        f"Error: {paths[1]}: layer 'a': field 'quantized': found nothing, expected an array\n"
    )
    assert "1 layer, 900 elements" in ran.stdout


def test_a_task_is_called_by_its_files_and_layers(write_pairs: WritePairs) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs({"a\n": large(rng, 10), "b": large(rng, 10)})
    source = PairFiles([str(path)])
    (task,) = engine._tasks(source.parts(source.layers), Threads(1))  # type: ignore[arg-type]
    assert str(task) == f"{path}: layer 'a\\n' and 1 more"


# --- memory and order ---


@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=5).map(tuple),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    tile=st.sampled_from([1, 3, 8, 17, 64, 1 << 20]),
)
@settings(deadline=None)
def test_fortran_order_is_turned_in_any_tiles(
    shape: tuple[int, ...], itemsize: int, tile: int
) -> None:
    x = np.arange(np.prod(shape, dtype=int), dtype=f"u{itemsize}").reshape(shape)
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - in_c_order closes it
    file.write(x.tobytes("F"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transpose, "_TILE", tile)
        with transpose.in_c_order(file, shape, itemsize) as turned:
            assert turned.read() == x.tobytes()


def peak(*args: Any) -> float:
    """Megabytes that a command takes at its peak, in a process of its own."""
    code = (
        "import sys; from qdebug.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(ran.stderr) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@pytest.mark.parametrize("kind", ["stored", "packed", "fortran", "channels"])
def test_memory_does_not_grow_with_a_layer(kind: str, write_pairs: WritePairs) -> None:
    """240 MB of arrays, in less than 150 MB above the interpreter's own."""
    x = np.zeros((4000, 10_000), np.float32)
    x[::7] = 0.31
    fields: dict[str, Any] = {"float": x, "quantized": np.rint(x / 0.1).astype(np.int16)}
    fields["scale"] = np.full(10_000 if kind == "channels" else 1, 0.1)
    fields["axis"] = 1
    if kind == "fortran":
        fields["float"] = np.asfortranarray(x)
    path = write_pairs({"a": fields}, packed=kind == "packed")
    del x, fields
    assert peak("report", path, "--jobs", 2) - peak("--help") < 150


# --- what is imported ---

HEAVY = {
    *("numpy", "tabulate", "matplotlib", "onnx", "onnxruntime", "ai_edge_litert", "isal"),
    *("dask", "distributed", "fsspec", "concurrent", "json", "tomllib", "asyncio"),
}
MODELS = ["sample_models/digits_float.tflite", "sample_models/digits_int8.tflite"]
PAIRS = "sample_models/digits.npz"
PLAIN = {"numpy", "tabulate", "isal"}


@pytest.mark.parametrize(
    ("allowed", "args"),
    [
        (set(), ["--help"]),
        (set(), ["--version"]),
        (PLAIN, ["report", PAIRS]),
        (PLAIN, ["report", PAIRS, "--format", "csv"]),
        (PLAIN | {"json"}, ["report", PAIRS, "--format", "json"]),
        (PLAIN, ["report", "--help"]),
        (PLAIN | {"json"}, ["explain", "StatefulPartitionedCall_1:0", "-m", PAIRS]),
        (PLAIN | {"tomllib"}, ["check", PAIRS]),
        (PLAIN | {"json"}, ["suggest", PAIRS]),
        (PLAIN | {"ai_edge_litert", "json", "tomllib"}, ["report", *MODELS]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_only_what_it_needs(allowed: set[str], args: list[str]) -> None:
    code = (
        "import sys\nfrom qdebug.cli import main\nmain(sys.argv[1:], standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *args]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = HEAVY & set(ran.stderr.splitlines()[-1].split())
    assert imported <= allowed
