"""Diagnoses of layers whose steps differ: faults planted into sound weights, and sound ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded, Grid, affine_blocks, codebook, spread
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import layer_metrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import layer_report, with_origins
from tests.reports import layer

Array = NDArray[Any]

ROWS, COLUMNS, BLOCK = 32, 512, 32
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
NF4_LIKE = np.tanh(np.linspace(-2, 2, 16)) / np.tanh(2)


def diagnosed(x: Array, found: Decoded) -> Diagnosis:
    """The diagnosis of a matrix of weights, each row a channel."""
    rows, columns = x.shape
    arrays = (found.values, found.below, found.above, found.ends)
    values, *cells = (
        None if a is None else np.broadcast_to(a, x.shape).reshape(1, rows, columns) for a in arrays
    )
    assert values is not None
    grid = Grid("Q4", rows, 0)
    statistics = measure(Block(x[None], values, None, 0, None, *cells), grid)
    about = Layer("w", grid, x.shape, kind="weight")
    found_in = layer_report(about, statistics, layer_metrics(statistics, grid)).diagnosis
    assert found_in is not None
    return found_in


def extremes(x: Array) -> tuple[Array, Array, Array]:
    """Of each block, spread: the least, the largest, the largest magnitude."""
    blocks = x.reshape(len(x), -1, BLOCK)
    found = blocks.min(axis=2), blocks.max(axis=2), np.abs(blocks).max(axis=2)
    low, high, most = (spread(each, x.shape, 1, BLOCK) for each in found)
    return low, high, most


def in_int4(x: Array) -> tuple[Array, Array, Array]:
    """Codes, scale and offset: from the least to the largest of each block."""
    low, high, _ = extremes(x)
    scale = (high - low) / 15
    return np.clip(np.rint((x - low) / scale), 0, 15), scale, low


def in_levels(x: Array, levels: Array, scale: Array) -> Array:
    return np.abs(x[..., None] / scale[..., None] - levels).argmin(axis=-1)


def int4(x: Array) -> Decoded:
    return affine_blocks(*in_int4(x), (0, 15))


def symmetric(x: Array) -> Decoded:
    scale = extremes(x)[2] / 7
    return affine_blocks(np.clip(np.rint(x / scale), -8, 7), scale, 0.0, (-8, 7))


def nf4(x: Array) -> Decoded:
    scale = extremes(x)[2]
    return codebook(in_levels(x, NF4_LIKE, scale), NF4_LIKE, scale)


def fp4(x: Array) -> Decoded:
    scale = extremes(x)[2] / 6
    return codebook(in_levels(x, FP4, scale), FP4, scale)


SOUND = [int4, symmetric, nf4, fp4]
DRAWN = ["normal", "laplace", "uniform", "student", "wide"]


def weights(name: str, seed: int = 0) -> Array:
    rng, size = np.random.default_rng(seed), (ROWS, COLUMNS)
    if name == "student":
        return rng.standard_t(4, size)
    if name == "wide":  # rows and blocks of very different sizes
        return rng.normal(size=size) * np.exp(rng.normal(0, 1.5, (ROWS, 1)))
    return np.asarray(getattr(rng, name)(size=size)) - (0.5 if name == "uniform" else 0)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("make", SOUND)
def test_sound_weights_are_ok(make: Callable[[Array], Decoded], name: str, seed: int) -> None:
    x = weights(name, seed)
    found = diagnosed(x, make(x))
    assert (found.verdict, found.cause) == ("ok", "ok"), found.evidence


def replaced(found: Decoded, values: Array) -> Decoded:
    return Decoded(values, found.below, found.above, found.ends)


def times(factor: float) -> Callable[[Array], Decoded]:
    """All scales are off by a factor."""

    def faulty(x: Array) -> Decoded:
        return symmetric(x).mapped(lambda a: a if a.dtype == np.int8 else a * factor)

    return faulty


def zero_points_off(x: Array) -> Decoded:
    """As where GPTQ's zero points, stored minus one, are read as they are."""
    codes, scale, offset = in_int4(x)
    return affine_blocks(codes, scale, offset + scale, (0, 15))


def rounded_down(x: Array) -> Decoded:
    _, scale, offset = in_int4(x)
    return affine_blocks(np.floor((x - offset) / scale), scale, offset, (0, 15))


def truncated(x: Array) -> Decoded:
    scale = extremes(x)[2] / 7
    return affine_blocks(np.trunc(x / scale), scale, 0.0, (-8, 7))


def narrow(x: Array) -> Decoded:
    """Ranges of blocks that are too small."""
    scale = extremes(x)[2] / 12
    return affine_blocks(np.clip(np.rint(x / scale), -8, 7), scale, 0.0, (-8, 7))


def powers_of_two(x: Array) -> Decoded:
    """As MXFP4's scales, where the largest magnitude is just below a power of two."""
    scale = 2.0 ** (np.floor(np.log2(extremes(x)[2])) - 3)
    return codebook(in_levels(x, FP4, scale), FP4, scale)


def another_tensor(x: Array) -> Decoded:
    return int4(weights("normal", 99))


def rows_permuted(x: Array) -> Decoded:
    found = int4(x)
    return found.mapped(lambda a: np.roll(a, 1, axis=0))


def nibbles_swapped(x: Array) -> Decoded:
    codes, scale, offset = in_int4(x)
    swapped = codes.reshape(len(x), -1, 2)[:, :, ::-1].reshape(x.shape)
    return affine_blocks(swapped, scale, offset, (0, 15))


def noisy(x: Array) -> Decoded:
    """Codes that are often not the nearest ones."""
    codes, scale, offset = in_int4(x)
    wrong = codes + np.random.default_rng(1).integers(-1, 2, x.shape)
    return affine_blocks(np.clip(wrong, 0, 15), scale, offset, (0, 15))


def very_noisy(x: Array) -> Decoded:
    """Codes several steps off: the line through them is flat, but is no other scale."""
    scale = extremes(x)[2] / 127
    wrong = np.rint(x / scale + np.random.default_rng(1).normal(0, 80, x.shape))
    return affine_blocks(np.clip(wrong, -128, 127), scale, 0.0, (-128, 127))


def not_finite(x: Array) -> Decoded:
    found = int4(x)
    values = found.values.copy()
    values[3, :BLOCK] = np.nan
    return replaced(found, values)


def scales_of_zero(x: Array) -> Decoded:
    return affine_blocks(in_int4(x)[0], np.zeros((1, 1)), 0.0, (0, 15))


FAULTS: list[tuple[Callable[[Array], Decoded], str, str]] = [
    (times(0.5), "wrong-scale", "the floats are 1.99 times the decoded values"),
    (times(2.0), "wrong-scale", "the floats are 0.49"),
    (times(-1.0), "wrong-scale", "the floats are -0.99"),
    (times(16.0), "wrong-scale", "the floats are 0.062"),
    (zero_points_off, "bias", "the error is +1.0"),
    (rounded_down, "bias", "the error is -0.5"),
    (truncated, "bias", "steps away from zero"),
    (narrow, "clipping", "of the floats lie beyond the last code"),
    (powers_of_two, "clipping", "of the floats lie beyond the last code"),
    (another_tensor, "carried", "do not correlate"),
    (rows_permuted, "carried", "do not correlate"),
    (nibbles_swapped, "carried", "do not correlate"),
    (noisy, "carried", "farther from the floats than rounding to the nearest"),
    (very_noisy, "carried", "farther from the floats than rounding to the nearest"),
    (not_finite, "non-finite", "32 of 16384 floats or decoded values"),
    (scales_of_zero, "coarse-scale", "all floats that are not zero become zero"),
]


@pytest.mark.parametrize(("make", "cause", "evidence"), FAULTS)
@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_faults_are_named(
    make: Callable[[Array], Decoded], cause: str, evidence: str, name: str
) -> None:
    x = weights(name)
    found = diagnosed(x, make(x))
    assert found.cause == cause, found.evidence
    assert found.verdict in ("bad", "warn")
    if name == "normal":
        assert evidence in found.evidence
        assert found.advice


@pytest.mark.parametrize(("make", "cause"), [(f[0], f[1]) for f in FAULTS[:14]])
def test_a_fault_in_one_row_names_the_row(make: Callable[[Array], Decoded], cause: str) -> None:
    x = weights("normal")
    sound, faulty = int4(x), make(x)

    def mixed(a: Array | None, b: Array | None) -> Array:
        assert a is not None
        assert b is not None
        rows = np.arange(ROWS)[:, None] == 7
        return np.where(rows, np.broadcast_to(b, x.shape), np.broadcast_to(a, x.shape))

    arrays = zip(
        (sound.values, sound.below, sound.above, sound.ends),
        (faulty.values, faulty.below, faulty.above, faulty.ends),
        strict=True,
    )
    found = diagnosed(x, Decoded(*(mixed(a, b) for a, b in arrays)))
    assert found.cause == cause, found.evidence
    assert f"1 of {ROWS} channels; the worst is 7: " in found.evidence


def test_many_short_rows_are_not_bad_by_chance() -> None:
    x = np.random.default_rng(0).normal(size=(4000, BLOCK))
    found = diagnosed(x, symmetric(x))
    assert (found.verdict, found.cause) == ("ok", "ok"), found.evidence


def test_what_all_rows_share_is_named_before_what_one_row_has() -> None:
    """All scales are 8 % off, which is too little to show in a row; one row is another's."""
    x = np.random.default_rng(0).normal(size=(2000, BLOCK))
    faulty = times(1.08)(x)
    values = faulty.values.copy()
    values[5] = values[6]
    found = diagnosed(x, replaced(faulty, values))
    assert found.cause == "wrong-scale"
    assert "channels" not in found.evidence


def test_a_format_without_neighbours_has_no_yardstick_but_may_be_another_tensor() -> None:
    x = weights("normal")
    found = diagnosed(x, Decoded(int4(x).values))
    assert (found.verdict, found.cause) == ("ok", None)
    assert "no steps to compare with: SQNR 2" in found.evidence
    other = diagnosed(x, Decoded(another_tensor(x).values))
    assert (other.verdict, other.cause) == ("bad", "carried")


def test_exact_weights_are_ok() -> None:
    values = int4(weights("normal")).values
    for found in (int4(values), Decoded(values)):
        said = diagnosed(values, replaced(found, values))
        assert (said.verdict, said.cause) == ("ok", "ok")


def test_few_elements_are_said_to_be_few() -> None:
    x = weights("normal")[:1, :8]
    said = diagnosed(x, Decoded(np.rint(x * 4) / 4, np.array(0.125), np.array(0.125)))
    assert (said.cause, said.verdict) == ("ok", "ok")
    assert "only 8 elements: too few to say more" in said.evidence


def test_weights_that_move_an_output_are_named_with_their_format() -> None:
    weight = layer(
        "w", "weight", grid="Q4_0", sqnr_db=19.8, diagnosis=Diagnosis("ok", "ok", "", "")
    )
    moved = Diagnosis("warn", "weights", "the operator's quantized weights move its output", "")
    output = replace(layer("y", sqnr_db=20.0, diagnosis=moved), inputs=["w"])
    found = with_origins([replace(weight, inputs=[]), output])[1].diagnosis
    assert found is not None
    assert found.evidence.endswith("; 'w' has 19.8 dB")
    assert found.advice == "'w' is Q4_0: choose a format of more bits or smaller blocks for it"
