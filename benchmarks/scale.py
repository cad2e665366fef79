"""Measure reports on a cluster of two processes on this machine, and rewrite docs/scale.md.

make bench-scale
python benchmarks/scale.py --quick    # small files, few tasks, for a trial; prints the page
"""

import argparse
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from commands import HERE, PYTHON, output
from pairs import Files, normal, pair, write
from run import ROOT, TODAY, setting
from tables import MB, markdown

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.figures import Figures
from qdebug.measure.layer import Block, Layer, Part
from qdebug.run import engine, session
from qdebug.run.cluster import Cluster, connect
from qdebug.run.engine import Gathered
from qdebug.run.workers import TASK_ELEMENTS, Threads, Workers
from qdebug.sources.pair_file.read import PairFiles

TEMPLATE = HERE / "scale.md"
PAGE = ROOT / "docs/scale.md"
PACKAGES = ("qdebug", "numpy", "dask", "distributed", "fsspec")

WORKERS = 2
CHANNELS = 512

# What the estimate is for, and its assumptions.
TERABYTE = 1e12
MANY_WORKERS = 100
STORAGE = 100 * MB  # bytes per second that each worker gets from the storage
ASSUMED_FILES, ASSUMED_LAYERS = 2000, 100
ELEMENT_BYTES = 5  # float32 and int8


# Each of the functions below runs in its own process, to measure its memory, and prints JSON.


def overhead(tasks: int, folder: str) -> None:
    """What tasks without work cost: they have the size and the result of real ones."""
    some_parts, result = example(Path(folder))
    function = partial(answered, result)
    with connect("local", WORKERS) as cluster:
        cluster.reduce(function, [some_parts] * 100, Gathered.merge)  # import and connect first
        most = memory()

        def watch(done: int) -> None:
            nonlocal most
            if done % 100 == 0:
                most = max(most, memory())

        before = loopback(), most, time.process_time(), time.perf_counter()
        cluster.reduce(function, [some_parts] * tasks, Gathered.merge, watch)
        after = loopback(), most, time.process_time(), time.perf_counter()
    names = ("bytes", "memory", "busy", "seconds")
    print(json.dumps({name: b - a for name, a, b in zip(names, before, after, strict=True)}))


def answered(result: Gathered[Figures], task: object) -> Gathered[Figures]:
    """A result without work; merging changes it, so each is a copy."""
    return pickle.loads(pickle.dumps(result))  # type: ignore[no-any-return]


def gathered(parts: Sequence[Part]) -> Gathered[Figures]:
    """What a worker gathers from some parts."""
    layers = {layer.name: layer for part in parts for layer in part.layers}
    begin = {name: partial(Figures, layer.params) for name, layer in layers.items()}
    return engine.gather(parts, begin, Threads(1))


def example(folder: Path) -> tuple[Any, Gathered[Figures]]:
    """A task of one part, and its result."""
    source = PairFiles([str(folder / "tiny.npz")])
    parts = source.parts(source.layers)
    return parts, gathered(parts)


def loopback() -> int:
    """The bytes that this machine has sent to itself so far."""
    counters = psutil.net_io_counters(pernic=True)
    return sum(counters[name].bytes_sent for name in ("lo", "lo0") if name in counters)


def memory() -> int:
    """The memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def throughput(workers: int, pattern: str) -> None:
    """Seconds for all tasks of real files; with 0 workers, on one thread of this process."""
    source = PairFiles([pattern])

    def timed(who: Workers) -> None:
        start = time.perf_counter()
        session.run(source, workers=who)
        seconds = time.perf_counter() - start
        tasks = len(list(engine.tasks_of(source.parts(source.layers), who)))
        print(json.dumps({"seconds": seconds, "tasks": tasks}))

    if not workers:
        timed(Threads(1))
        return
    with connect("local", workers) as cluster:
        cluster.map(len, ["imports numpy and the like"] * 100)
        cluster.map(partial(warmed, pattern), list(range(4 * workers)))
        timed(cluster)


def warmed(pattern: str, number: int) -> None:
    """Make a worker import everything that its first task needs."""
    source = PairFiles([str(Path(pattern).parent / "tiny.npz")])
    gathered(source.parts(source.layers))


def directories(pattern: str) -> None:
    """Read the directories of many files, one task each, and make tasks from their contents."""
    with connect("local", WORKERS) as cluster:
        cluster.map(partial(warmed, pattern), list(range(4 * WORKERS)))
        before, busy, start = memory(), time.process_time(), time.perf_counter()
        source = PairFiles([pattern], workers=cluster)
        seconds = time.perf_counter() - start
        pieces = sum(map(len, source._pieces.values()))
        tasks = list(engine.tasks_of(source.parts(source.layers), cluster))
        found = {
            "files": len(source.files),
            "pieces": pieces,
            "seconds": seconds,
            "busy": time.process_time() - busy,
            "memory": memory() - before,
            "tasks": len(tasks),
        }
    print(json.dumps(found))


def least(rounds: int, function: Callable[..., None], *arguments: object) -> dict[str, float]:
    """The least of each figure over several rounds, because others use this machine too."""
    found = [alone(function, *arguments) for _ in range(rounds)]
    return {name: min(it[name] for it in found) for name in found[0]}


def alone(function: Callable[..., None], *arguments: object) -> dict[str, float]:
    """The figures that one of these functions prints in its own process."""
    code = (
        "import qdebug.cli, sys;"  # makes NumPy leave threads to qdebug
        f"sys.path.insert(0, {str(HERE)!r}); import scale;"
        f"scale.{function.__name__}(*{arguments!r})"
    )
    found: dict[str, float] = json.loads(output(PYTHON, "-c", code).splitlines()[-1])
    return found


# What is measured


@dataclass(frozen=True)
class Sizes:
    """Sizes in bytes, as sent."""

    task: int  # of one part
    part: float  # each further part in a task
    result: int  # a layer of one channel
    channel: float  # each further channel


def sizes(folder: Path) -> Sizes:
    """The sizes of a task and its result."""
    task, result = example(folder)
    many = PairFiles([str(folder / "layers.npz")])
    parts = many.parts(many.layers)
    params = QuantParams.of(np.ones(CHANNELS), axis=0)
    wide = {name: Figures(params) for name in result.layers}
    for figures in wide.values():
        x = np.zeros((1, CHANNELS, 1))
        figures.add(Layer("wide", params, (CHANNELS,)), Block(x, x.astype(np.int8)))
    sent = len(pickle.dumps(result))
    return Sizes(
        task=len(pickle.dumps(task)),
        part=len(pickle.dumps(parts)) / len(parts),
        result=sent,
        channel=(len(pickle.dumps(Gathered[Figures](wide))) - sent) / (CHANNELS - 1),
    )


def overheads(
    counts: Sequence[int], folder: Path, rounds: int
) -> tuple[str, list[dict[str, float]]]:
    """A table of tasks without work, and the measurements behind it."""
    found = [least(rounds, overhead, count, str(folder)) for count in counts]
    rows = [
        (
            f"{count:,}",
            f"{count / it['seconds']:.0f}",
            f"{1e3 * it['seconds'] / count:.2f}",
            f"{1e3 * it['busy'] / count:.2f}",
            f"{it['bytes'] / count:.0f}",
            f"{it['memory'] / MB:.0f}",
        )
        for count, it in zip(counts, found, strict=True)
    ]
    headers = (
        *("tasks", "tasks/s", "ms per task", "of which client and scheduler are busy, ms"),
        *("bytes per task", "added memory in client and scheduler, MB"),
    )
    return markdown(headers, rows), found


def rates(patterns: dict[str, str], rounds: int) -> tuple[str, float, float]:
    """A table of MB/s; MB/s of one worker of two on stored files; seconds that a task takes."""
    rows, rate, each = [], 0.0, 0.0
    for name, pattern in patterns.items():
        folder, names = os.path.split(pattern)
        size = sum(path.stat().st_size for path in Path(folder).glob(names))
        for workers in (0, 1, WORKERS):
            best = least(rounds, throughput, workers, pattern)
            speed = size / MB / best["seconds"]
            who = f"{workers} worker{'s' * (workers > 1)}" if workers else "one thread, no cluster"
            per = speed / max(workers, 1)
            rows.append((f"{name}: {who}", f"{best['tasks']:.0f}", f"{speed:.0f}", f"{per:.0f}"))
            if name == "stored" and workers == WORKERS:
                rate, each = per, best["seconds"] * workers / best["tasks"]
    return markdown(("", "tasks", "MB/s", "MB/s per worker"), rows), rate, each


def estimate(sizes: Sizes, each: dict[str, float], listing: dict[str, float], rate: float) -> str:
    """1 TB on 100 workers, step by step."""
    task_bytes = Cluster.task_elements * ELEMENT_BYTES
    tasks = TERABYTE / task_bytes
    pieces = ASSUMED_FILES * ASSUMED_LAYERS
    parts = max(pieces, TERABYTE / ELEMENT_BYTES / TASK_ELEMENTS)
    piece_busy = listing["busy"] / listing["pieces"]
    piece_work = WORKERS * listing["seconds"] / listing["pieces"]
    steps = {
        "list": pieces * max(piece_busy, piece_work / MANY_WORKERS),
        "fetch": TERABYTE / MANY_WORKERS / STORAGE,
        "compute": TERABYTE / MANY_WORKERS / (rate * MB),
        "schedule": tasks * each["busy"],
    }
    work = steps["fetch"] + steps["compute"]
    total = steps["list"] + max(work, steps["schedule"])
    sent = tasks * sizes.task + parts * sizes.part
    rows = [
        (
            f"directories: {ASSUMED_FILES:,} files x {ASSUMED_LAYERS} layers = {pieces:,} pieces "
            f"x {1e3 * max(piece_busy, piece_work / MANY_WORKERS):.3f} ms",
            f"{steps['list']:.0f} s",
        ),
        (
            f"tasks: 1 TB / {task_bytes / MB:.0f} MB",
            f"{tasks:,.0f}",
        ),
        (
            f"reading: 1 TB / {MANY_WORKERS} workers / {STORAGE / MB:.0f} MB/s **(assumed)**",
            f"{steps['fetch']:.0f} s",
        ),
        (
            f"measuring: 1 TB / {MANY_WORKERS} workers / {rate:.0f} MB/s",
            f"{steps['compute']:.0f} s",
        ),
        (
            f"scheduling, meanwhile: {tasks:,.0f} tasks x {1e3 * each['busy']:.2f} ms",
            f"{steps['schedule']:.0f} s",
        ),
        (
            "total: directories, then the longer of reading + measuring and scheduling",
            f"{total:.0f} s",
        ),
        (
            f"sent to the workers: {parts:,.0f} parts x {sizes.part / 1e3:.1f} kB",
            f"{sent / MB:,.0f} MB",
        ),
        (
            f"memory of the client: {pieces:,} pieces x "
            f"{listing['memory'] / listing['pieces'] / 1e3:.1f} kB",
            f"{pieces * listing['memory'] / listing['pieces'] / MB:,.0f} MB",
        ),
    ]
    return markdown(("", ""), rows)


class Shards(Files):
    """Folders of files for a cluster to read."""

    def folder_of(self, name: str, fill: Callable[[Path], None]) -> Path:
        """A folder, filled when it is first requested."""
        folder = self._folder / name
        if not folder.exists():
            unfinished = self._folder / f"unfinished-{name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            write(unfinished / "tiny.npz", {"layer": pair(normal(64))})
            fill(unfinished)
            unfinished.rename(folder)
        return folder

    def large(self, compressed: bool) -> Path:
        """6 shards of one layer of 16 M elements each."""

        def fill(folder: Path) -> None:
            for number in range(6):
                layer = pair(normal(16, self.elements(1 << 20), seed=number))
                write(folder / f"shard-{number}.npz", {"layer": layer}, compressed)

        return self.folder_of("compressed-shards" if compressed else "shards", fill)

    def small(self) -> Path:
        """200 shards of 50 layers of 100 elements."""

        def fill(folder: Path) -> None:
            layers = {f"model/block_{i}/conv/Relu": pair(normal(100)) for i in range(50)}
            write(folder / "layers.npz", layers)
            for number in range(self.elements(200)):
                shutil.copy(folder / "layers.npz", folder / f"shard-{number:05}.npz")

        return self.folder_of("small-shards", fill)


def page(quick: bool) -> str:
    """Measure, and fill in the template."""
    shards = Shards(
        ROOT / "build/bench" / ("scale-quick" if quick else "scale"), 0.05 if quick else 1
    )
    small = shards.small()
    counts = (200, 500) if quick else (1000, 4000, 16_000)
    size = sizes(small)
    overhead_table, found = overheads(counts, small, 1 if quick else 2)
    each = {name: found[-1][name] / counts[-1] for name in ("busy", "seconds")}
    patterns = {"stored": shards.large(False), "compressed": shards.large(True)}
    rate_table, rate, task_seconds = rates(
        {name: str(folder / "shard-*.npz") for name, folder in patterns.items()},
        1 if quick else 5,
    )
    listing = least(1 if quick else 3, directories, str(small / "shard-*.npz"))
    task_bytes = Cluster.task_elements * ELEMENT_BYTES
    busiest = task_bytes / STORAGE + task_bytes / (rate * MB)  # seconds per task, assumed storage
    return TEMPLATE.read_text().format(
        date=TODAY,
        setting=setting(PACKAGES),
        workers=WORKERS,
        figures=Figures(QuantParams.of(1.0)).statistics.table.shape[0],
        size=size,
        task_mb=task_bytes / MB,
        task_elements=Cluster.task_elements / 1e6,
        part_elements=TASK_ELEMENTS / 1e6,
        part_mb=TASK_ELEMENTS * ELEMENT_BYTES / MB,
        channel_kb=size.channel * 1000 / 1e3,
        overheads=overhead_table,
        busy_ms=1e3 * each["busy"],
        most_rate=1 / each["busy"],
        rates=rate_table,
        rate=rate,
        task_seconds=task_seconds,
        share=100 * each["busy"] / task_seconds,
        listing=listing,
        files_rate=listing["files"] / listing["seconds"],
        piece_ms=1e3 * listing["busy"] / listing["pieces"],
        piece_kb=listing["memory"] / listing["pieces"] / 1e3,
        estimate=estimate(size, each, listing, rate),
        busiest=busiest,
        most_workers=busiest / each["busy"],
        storage=STORAGE / MB,
        files=f"{ASSUMED_FILES:,}",
        layers=ASSUMED_LAYERS,
        million_gb=1e7 * listing["memory"] / listing["pieces"] / 1e9,
        wide_mb=1024 * 1000 * size.channel / MB,
        cores=os.cpu_count(),
    )


def main() -> None:
    """Write the page, or show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small files; figures mean little")
    quick = parser.parse_args().quick
    text = page(quick)
    if quick:
        print(text)
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
