"""GGUF's types: values as the `gguf` package has them, cells as a search through all values."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qdebug.sources.gguf.types import TYPES, Type
from tests.grid_oracle import cell

gguf = pytest.importorskip("gguf", reason="needs qdebug[gguf]")

Blocks = NDArray[np.uint8]

SCALAR = [kind for kind in TYPES.values() if kind.block > 1 and not kind.by_library]
VECTORS = [kind for kind in TYPES.values() if kind.by_library]
FLOATS = [kind for kind in TYPES.values() if kind.floats]


def name(kind: Type) -> str:
    return kind.name


def some_blocks(kind: Type, count: int = 200) -> Blocks:
    """Blocks of any bytes, but with scales that are finite."""
    rng = np.random.default_rng(kind.size)
    blocks = rng.integers(0, 256, (count, kind.size), np.uint8)
    if kind.by_library:
        return blocks
    half = rng.normal(size=(count, 2)).astype(np.float16).view(np.uint8)
    for at in {
        "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2),
        "Q5_K": (0, 2), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "NVFP4": (),
    }.get(kind.name, (0,)):  # fmt: skip
        blocks[:, at : at + 2] = half[:, :2] if at != 2 else half[:, 2:]
    if kind.name == "MXFP4":
        blocks[:, 0] = rng.integers(0, 200, count)
    return blocks


def test_all_types_of_the_format_are_known_or_never_met_in_files() -> None:
    known = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
    missing = {known[number] for number in known.keys() - TYPES.keys()}
    assert missing <= {"Q8_1", "Q8_K", "Q1_0"}
    for number, kind in TYPES.items():
        assert kind.name == known[number]
        sizes = gguf.constants.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)]
        assert (kind.block, kind.size) == sizes


@pytest.mark.parametrize("kind", [*SCALAR, *VECTORS, *FLOATS], ids=name)
def test_values_are_those_of_the_gguf_package_to_the_last_bit(kind: Type) -> None:
    blocks = some_blocks(kind)
    assert kind.decode is not None
    with np.errstate(invalid="ignore"):
        expected = (
            blocks.view("<f8")
            if kind.name == "F64"
            else gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind.name])
        )
        found = kind.decode(blocks).values
        assert found.shape == (len(blocks), kind.block)
        np.testing.assert_array_equal(found, expected)


def representable(kind: Type, block: Blocks, change: Callable[[Blocks, int], None]) -> list[float]:
    """All values of the block's first element: those that the package reads as its codes change."""
    values = []
    for code in range(256):
        other = block.copy()
        change(other, code)
        floats = gguf.quants.dequantize(other[None], gguf.GGMLQuantizationType[kind.name])
        values.append(float(floats[0, 0]))
    return values


# The bytes that hold the first element's code.
CODE_AT = {
    "Q4_0": (2,), "Q4_1": (4,), "Q5_0": (6, 2), "Q5_1": (8, 4), "Q8_0": (2,), "Q2_K": (16,),
    "Q3_K": (32, 0), "Q4_K": (16,), "Q5_K": (48, 16), "Q6_K": (0, 128), "IQ4_NL": (2,),
    "IQ4_XS": (8,), "MXFP4": (1,), "NVFP4": (4,), "TQ1_0": (0,), "TQ2_0": (0,),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALAR, ids=name)
def test_cells_reach_half_way_to_the_values_beside_them(kind: Type) -> None:
    assert kind.decode is not None
    blocks = some_blocks(kind, 12)
    if kind.name == "TQ2_0":  # three values: ggml writes no code of 3
        blocks[:, 0] &= 0b01010101
    if kind.name == "TQ1_0":
        blocks[:, 0] = np.arange(12) * 20
    found = kind.decode(blocks)
    assert found.below is not None
    assert found.above is not None
    assert found.ends is not None
    shape = found.values.shape
    below, above, ends = (np.broadcast_to(a, shape) for a in (found.below, found.above, found.ends))
    first, *more = CODE_AT[kind.name]
    for place, block in enumerate(blocks):
        values = set()
        for high in range(256) if more else [0]:

            def change(other: Blocks, code: int, high: int = high) -> None:
                other[first] = code
                if more:
                    other[more[0]] = high

            if more and high not in (0, 1, 2, 3):
                continue  # the first element has the lowest bits
            values |= set(representable(kind, block, change))
        if kind.name == "TQ2_0":
            values -= {2 * max(values, key=abs) / 2} if len(values) == 4 else set()
        expected = cell(sorted(values), float(found.values[place, 0]))
        if len(values) == 1:  # a scale of 0
            expected = 0.0, 0.0, ends[place, 0]
        got = below[place, 0], above[place, 0], ends[place, 0]
        np.testing.assert_allclose(got[:2], expected[:2], rtol=1e-5)
        if len(values) > 1:
            assert got[2] == expected[2]


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("Q4_0", 0.9, 1.1), ("Q4_1", 0.9, 1.0), ("Q5_0", 0.9, 1.1), ("Q5_1", 0.9, 1.0),
        ("Q8_0", 0.95, 1.05), ("MXFP4", 0.95, 1.15), ("TQ1_0", 0.8, 1.0), ("TQ2_0", 0.8, 1.0),
    ],
)  # fmt: skip
def test_what_the_package_quantizes_reads_about_one(kind: str, least: float, most: float) -> None:
    x = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    blocks = gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind])
    found = next(each for each in TYPES.values() if each.name == kind)
    assert found.decode is not None
    decoded = found.decode(blocks.reshape(-1, found.size))
    error = decoded.values - x.reshape(decoded.values.shape)
    a, b = np.asarray(decoded.below, np.float64), np.asarray(decoded.above, np.float64)
    square = np.broadcast_to((a**3 + b**3) / (3 * (a + b)), error.shape)
    assert least < np.sqrt((error.astype(np.float64) ** 2).mean() / square.mean()) < most
