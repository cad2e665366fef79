"""The tables of docs/weights.md: `times_expected` of sound quantizers on weights drawn at random.

    python benchmarks/times_expected.py [gguf]

The quantizers of the first table take the usual scale and round to the nearest value; nothing is
searched for. Those of the second one are ggml's own, by libgguf, without an importance matrix.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from qdebug.arithmetic.grids import Decoded, Grid, affine_blocks, codebook
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import layer_metrics
from qdebug.sources.gguf.types import TYPES, Type

Array = NDArray[np.float64]

ROWS, COLUMNS = 256, 2048

# The levels of E2M1 (OCP Microscaling Formats 1.0), and the quantiles of NF4 (Dettmers et al.:
# QLoRA, 2023).
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
NF4 = [-1.0, -0.696193, -0.525073, -0.394917, -0.284441, -0.184773, -0.091050, 0.0,
       0.079580, 0.160930, 0.246112, 0.337915, 0.440710, 0.562617, 0.722957, 1.0]  # fmt: skip


def absmax(x: Array) -> Array:
    """Of each block: (blocks, 1)."""
    return np.abs(x).max(axis=1, keepdims=True)


def integers(x: Array, scale: Array, offset: Array | float, low: int, high: int) -> Decoded:
    """Rounded to the nearest integer times scale, plus offset."""
    codes = np.clip(np.rint((x - offset) / scale), low, high)
    return affine_blocks(codes, scale, offset, (low, high))


def extreme_over_8(x: Array) -> Decoded:
    """As GGUF's Q4_0: the largest magnitude, with its sign, becomes the code -8."""
    place = np.abs(x).argmax(axis=1)[:, None]
    return integers(x, np.take_along_axis(x, place, 1) / -8, 0.0, -8, 7)


def from_least_to_largest(x: Array) -> Decoded:
    """As GGUF's Q4_1: a float offset."""
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    return integers(x, (high - low) / 15, low, 0, 15)


def nearest_level(x: Array, levels: list[float], scale: Array) -> Decoded:
    """The codebook's level nearest to each element over its block's scale."""
    table = np.array(levels)
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    steps = np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)
    return codebook(order[np.searchsorted(middles, steps)], table, scale)


def power_of_two(x: Array) -> Array:
    """The scale of MXFP4 (OCP Microscaling Formats 1.0): E2M1's largest power is 4."""
    return 2.0 ** (np.floor(np.log2(absmax(x))) - 2)


# Name -> elements in a block, and what quantizes an array (blocks, elements).
FORMATS: dict[str, tuple[int, Callable[[Array], Decoded]]] = {
    "int8, absmax / 127, 32": (32, lambda x: integers(x, absmax(x) / 127, 0.0, -127, 127)),
    "int4, absmax / 7, 32": (32, lambda x: integers(x, absmax(x) / 7, 0.0, -7, 7)),
    "int4, absmax / 7, 128": (128, lambda x: integers(x, absmax(x) / 7, 0.0, -7, 7)),
    "int4, extreme / -8, 32 (Q4_0)": (32, extreme_over_8),
    "int4, least to largest, 32 (Q4_1)": (32, from_least_to_largest),
    "NF4, absmax, 64": (64, lambda x: nearest_level(x, NF4, absmax(x))),
    "FP4, absmax / 6, 16 (NVFP4)": (16, lambda x: nearest_level(x, FP4, absmax(x) / 6)),
    "FP4, power of two, 32 (MXFP4)": (32, lambda x: nearest_level(x, FP4, power_of_two(x))),
}


def weights() -> dict[str, Array]:
    """Weights of four shapes, always the same."""
    rng = np.random.default_rng(0)
    size = (ROWS, COLUMNS)
    normal = rng.normal(size=size)
    return {
        "normal": normal,
        "Laplace": rng.laplace(size=size),
        "Student, 5": rng.standard_t(5, size),
        "half zeros": normal * (rng.random(size) < 0.5),
    }


def times_expected(x: Array, found: Decoded) -> float:
    """Of a whole tensor."""
    shape = (1, 1, x.size)
    arrays = (found.values, found.below, found.above, found.ends)
    values, *cells = (np.broadcast_to(a, x.shape).reshape(shape) for a in arrays if a is not None)
    statistics = measure(Block(x.reshape(shape), values, None, 0, None, *cells), Grid("drawn"))
    metrics = layer_metrics(statistics, Grid("drawn"))
    assert metrics.times_expected is not None
    return metrics.times_expected


def by_ggml(number: int, kind: Type) -> Callable[[Array], Decoded]:
    """A type's own quantizer, then qdebug's decoder."""
    import libgguf

    def quantized(x: Array) -> Decoded:
        blocks = libgguf.quantize_rows(x.astype(np.float32), number)
        assert kind.decode is not None
        return kind.decode(blocks.reshape(-1, kind.size))

    return quantized


def of_gguf() -> dict[str, tuple[int, Callable[[Array], Decoded]]]:
    """The types of GGUF whose values have neighbours."""
    scalar = {n: k for n, k in TYPES.items() if k.block > 1 and not k.by_library}
    return {
        f"{kind.name}, {8 * kind.size / kind.block:.4g} bits": (kind.block, by_ggml(number, kind))
        for number, kind in sorted(scalar.items(), key=lambda of: of[1].name)
    }


def rows(formats: dict[str, tuple[int, Callable[[Array], Decoded]]]) -> Iterator[list[str]]:
    """The format, then the figure for each shape of weights."""
    drawn = weights().values()
    for name, (n, make) in formats.items():
        blocks = [x.astype(np.float32).astype(np.float64).reshape(-1, n) for x in drawn]
        yield [name, *(f"{times_expected(x, make(x)):.2f}" for x in blocks)]


if __name__ == "__main__":
    if sys.argv[1:] == ["gguf"]:
        print(tabulate(rows(of_gguf()), ["type", *weights()], disable_numparse=True))
    else:
        heads = ["format, elements in a block", *weights()]
        print(tabulate(rows(FORMATS), heads, disable_numparse=True))
