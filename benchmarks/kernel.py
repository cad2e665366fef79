"""A compiled kernel, kernel.c, against qdebug's statistics: the same sums of the same blocks."""

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.slabs import BLOCK_ELEMENTS
from qdebug.measure.statistics import Statistics

SOURCE = Path(__file__).resolve().parent / "kernel.c"
COMPILER = ("cc", "-O3", "-march=native", "-ffast-math", "-fPIC", "-shared")
ELEMENTS = 1 << 24
REPETITIONS = 7
PARAMS = QuantParams.of(8 / 255, 0, "int8")
SCALE = float(PARAMS.scale[0])


SUMS = (
    *("x", "magnitude", "steps", "error", "outward"),
    *("x_square", "steps_square", "x_steps", "error_square"),
    *("x_min", "x_max", "q_min", "q_max", "error_max"),
    *("zeros", "saturated", "doubtful"),
)


class Sums(ctypes.Structure):
    """`struct sums` of kernel.c."""

    _fields_ = tuple((name, ctypes.c_double) for name in SUMS)


def blocks_in_memory() -> list[Block]:
    """A layer of float32 and int8 with one scale, cut into blocks as by a source."""
    floats = np.random.default_rng(0).standard_normal(ELEMENTS, np.float32)
    codes = np.rint(floats / SCALE).clip(-128, 127).astype(np.int8)
    size = BLOCK_ELEMENTS
    return [
        Block(floats[i : i + size].reshape(1, 1, -1), codes[i : i + size].reshape(1, 1, -1))
        for i in range(0, ELEMENTS, size)
    ]


def compiled(folder: Path) -> Callable[[Block], Sums] | None:
    """kernel.c, compiled; None if there is no C compiler."""
    if shutil.which(COMPILER[0]) is None:
        return None
    library = folder / "kernel.so"
    subprocess.run([*COMPILER, str(SOURCE), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).measure
    function.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_double, ctypes.c_double, ctypes.POINTER(Sums)),
    ]
    function.restype = None
    zero_point = float(PARAMS.zero_point[0])

    def kernel(block: Block) -> Sums:
        sums = Sums()
        where = (block.floats.ctypes.data, block.codes.ctypes.data, block.codes.size)
        function(*where, SCALE, zero_point, ctypes.byref(sums))
        return sums

    return kernel


def statistics(block: Block) -> Statistics:
    """The statistics that qdebug itself takes."""
    return measure(block, PARAMS)


def check_agreement(ours: Statistics, theirs: Sums) -> None:
    """Check that both compute the same, so that their times can be compared."""
    found: NDArray[np.float64] = np.array([getattr(theirs, name) for name in SUMS])
    unit = dict.fromkeys(("steps", "x_steps"), SCALE) | {"steps_square": SCALE**2}
    found *= [unit.get(name, 1.0) for name in SUMS]
    steps = ours.steps_sum * SCALE + ours.x_sum  # sum of d = e + x
    expected = np.concatenate(
        [
            *(ours.x_sum, ours.x_magnitude, steps, ours.e_sum, ours.steps_outward * SCALE),
            *(ours.x_moment + ours.x_sum**2 / ours.count, ours.d_square, ours.xd_product),
            ours.steps_square * SCALE**2,
            *(ours.x_min, ours.x_max, ours.q_min, ours.q_max, ours.e_max),
            *(ours.zeros, ours.saturated),
        ]
    )
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9, atol=1e-7)


def rate(work: Callable[[Block], object], blocks: Sequence[Block]) -> float:
    """Elements per second on one core, the best of `REPETITIONS`."""
    best = float("inf")
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        for block in blocks:
            work(block)
        best = min(best, time.perf_counter() - start)
    return sum(block.codes.size for block in blocks) / best
