"""Elements per second of the statistics, by the compiled kernel and by NumPy, in memory.

python benchmarks/kernel.py
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `qdebug.cli` does

import numpy as np
from numpy.typing import DTypeLike
from tabulate import tabulate

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel import plain
from qdebug.measure.kernel.library import description, library
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.slabs import BLOCK_ELEMENTS

ROUNDS = 15
REPETITIONS = 4
ONE_SCALE = (1, 1, BLOCK_ELEMENTS)


@dataclass(frozen=True)
class Rates:
    """Elements per second: NumPy's and the kernel's on one core, the kernel's on two."""

    numpy: float
    kernel: float
    two_threads: float


def normal(
    shape: tuple[int, int, int] = ONE_SCALE,
    floats: DTypeLike = np.float32,
    codes: DTypeLike = np.int8,
    *,
    relu: bool = False,
    carried: float = 0.0,
    model: bool = False,
) -> tuple[Block, QuantParams]:
    """A block of normal numbers as a source hands it over; `carried`: steps of further error."""
    rng = np.random.default_rng(0)
    info, channels = np.iinfo(codes), shape[1]
    x = rng.standard_normal(shape)
    x = (np.maximum(x, 0) if relu else x).astype(floats)
    scale = np.full(channels, 8 / (float(info.max) - float(info.min)))
    zero_point = int(info.min) if relu else 0
    steps = x / scale[:, None] + carried * rng.standard_normal(shape)
    q = (np.rint(steps) + zero_point).clip(info.min, info.max).astype(codes)
    m = (x + 0.1 * rng.standard_normal(shape)).astype(floats) if model else None
    return Block(x, q, m), QuantParams.of(scale, zero_point, np.dtype(codes).name, axis=1)


CASES: dict[str, Callable[[], tuple[Block, QuantParams]]] = {
    "float32, int8, one scale": normal,
    "float16": partial(normal, floats=np.float16),
    "float64": partial(normal, floats=np.float64),
    "int16": partial(normal, codes=np.int16),
    "int32": partial(normal, codes=np.int32),
    "after ReLU": partial(normal, relu=True),
    "codes a step off, as behind other layers": partial(normal, carried=1.0),
    "the same, with the float model's own values": partial(normal, carried=1.0, model=True),
    "256 channels, axis first": partial(normal, shape=(1, 256, BLOCK_ELEMENTS // 256)),
    "256 channels, axis middle": partial(normal, shape=(BLOCK_ELEMENTS // 4096, 256, 16)),
    "256 channels, axis last": partial(normal, shape=(BLOCK_ELEMENTS // 256, 256, 1)),
}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, on average over a few."""
    start = time.perf_counter()
    for _ in range(REPETITIONS):
        work()
    return (time.perf_counter() - start) / REPETITIONS


def at_once(work: Callable[[], object]) -> None:
    """The work in two threads."""
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rates() -> Mapping[str, Rates]:
    """Of each case; the contenders take turns, and the best time of each counts."""
    found = {}
    for name, made in CASES.items():
        block, params = made()
        size = block.codes.size

        def compiled(block: Block = block, params: QuantParams = params) -> None:
            for _ in range(REPETITIONS):
                measure(block, params)

        contenders = (
            (lambda block=block, params=params: plain.measured(block, params), 1),
            (compiled, REPETITIONS),
            (partial(at_once, compiled), 2 * REPETITIONS),
        )
        best = [float("inf")] * len(contenders)
        for _ in range(ROUNDS):
            for place, (work, blocks) in enumerate(contenders):
                best[place] = min(best[place], seconds(work) / blocks)
        found[name] = Rates(*(size / value for value in best))
    return found


def rows(found: Mapping[str, Rates]) -> list[tuple[str, ...]]:
    """As a table: M elements per second, and how many times as fast as NumPy."""
    return [
        (
            name,
            *(f"{rate / 1e6:.0f}" for rate in (each.numpy, each.kernel, each.two_threads)),
            f"{each.kernel / each.numpy:.1f}",
        )
        for name, each in found.items()
    ]


HEADERS = ("", "NumPy", "kernel", "kernel, two threads", "kernel / NumPy")


if __name__ == "__main__":
    print(f"M elements per second; kernel: {description()}")
    if library() is not None:
        print(tabulate(rows(rates()), HEADERS, disable_numparse=True))
