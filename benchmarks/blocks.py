"""Time against block size: the measurement behind `qdebug.measure.slabs.BLOCK_ELEMENTS`.

    python benchmarks/blocks.py

For each size, one thread and then two threads measure blocks in memory. Prints nanoseconds per
element over all threads. If blocks are too small, two threads wait for the interpreter lock.
"""

import os
import threading
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `qdebug.cli` does

import numpy as np
from tabulate import tabulate

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block

ELEMENTS = 1 << 24  # per thread
PARAMS = QuantParams.of(8 / 255)


def block(size: int, seed: int) -> Block:
    """Normally distributed floats, quantized to int8."""
    x = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    codes = np.clip(np.rint(x / PARAMS.scale[0]), -128, 127).astype(np.int8)
    return Block(x.reshape(1, 1, -1), codes.reshape(1, 1, -1))


def nanoseconds(size: int, jobs: int) -> float:
    """Time per element with `jobs` threads at once, the least of three."""

    def work(values: Block) -> None:
        for _ in range(ELEMENTS // size):
            measure(values, PARAMS)

    blocks = [block(size, seed) for seed in range(jobs)]
    times = []
    for _ in range(3):
        threads = [threading.Thread(target=work, args=(values,)) for values in blocks]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times.append(time.perf_counter() - start)
    return min(times) / (jobs * ELEMENTS) * 1e9


if __name__ == "__main__":
    rows = []
    for size in (1 << power for power in range(14, 21)):
        one, two = (nanoseconds(size, jobs) for jobs in (1, 2))
        rows.append([size, f"{one:.2f}", f"{two:.2f}", f"{one / two:.2f}"])
    print(
        tabulate(rows, ["elements", "one thread", "two threads", "speed-up"], disable_numparse=True)
    )
