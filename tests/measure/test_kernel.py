"""The compiled kernel takes the same statistics as NumPy."""

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.histogram import Distributions
from qdebug.measure.kernel import bins, plain
from qdebug.measure.kernel.library import VARIABLE, description, library
from qdebug.measure.kernel.measure import add, add_best, measure
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import layer_metrics
from qdebug.measure.statistics import ROWS, Statistics, no_statistics
from tests import layers

pytestmark = pytest.mark.skipif(library() is None, reason=description())


def block_of(fields: dict[str, Any]) -> tuple[Block, QuantParams]:
    """A random layer as one block, in the byte order that it has."""
    x, q, m = (
        None if array is None else np.asarray(array, order="C")
        for array in map(fields.get, ("float", "quantized", "model_float"))
    )
    assert x is not None
    assert q is not None
    axis = fields["axis"] % x.ndim if "axis" in fields else None
    params = QuantParams.of(
        fields["scale"],
        fields["zero_point"],
        q.dtype.name,
        axis=axis,
        **{key: fields[key] for key in ("bits", "narrow_range", "rounding") if key in fields},
    )
    shape = (1, 1, x.size)
    if axis is not None:
        shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    return Block(
        x.reshape(shape), q.reshape(shape), None if m is None else m.reshape(shape)
    ), params


def sizes_of_sums(block: Block, params: QuantParams) -> dict[str, np.ndarray]:
    """What the terms of each sum add up to without their signs, by channel; others are exact."""

    def summed(values: np.ndarray) -> np.ndarray:
        return np.where(finite, values, 0).sum(axis=(0, 2))

    scale, zero_point = params.scale[None, :, None], params.zero_point[None, :, None]
    x, t = block.floats.astype(np.float64), block.codes.astype(np.float64) - zero_point
    finite, e = np.isfinite(x), t * scale - x
    xx, tt, ee = summed(x**2), summed(t**2), summed(e**2)
    s, steps = params.scale, summed(np.abs(e)) / params.scale
    return {
        "x_sum": summed(np.abs(x)),
        "e_sum": summed(np.abs(e)),
        "steps_sum": steps,
        "steps_outward": steps,
        "xd_product": np.sqrt(xx * tt) * s,
        "x_moment": xx,
        "q_moment": tt,
        "e_moment": ee,
        "xq_moment": np.sqrt(xx * tt),
        # e less its line, which takes as much from it as the slopes differ.
        "line_square": ee + s**2 * tt,
    }


def assert_same(ours: Statistics, plainly: Statistics, sizes: dict[str, np.ndarray]) -> None:
    for row in ROWS:
        found, want = ours.table[row.row], plainly.table[row.row]
        size = sizes.get(row.name, np.abs(want))
        near = np.abs(found - want) <= 1e-12 * size
        beyond = ~np.isfinite(found) & ~np.isfinite(want)  # sums of squares of huge floats
        assert (near | (found == want) | beyond).all(), (row.name, found, want)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), elements=st.sampled_from([2, 5, 12, 40]))
def test_random_layers_have_the_same_statistics_as_in_numpy(seed: int, elements: int) -> None:
    """All types, shapes, axes, byte orders, faults and gaps."""
    rng = np.random.default_rng(seed)
    fields = layers.random_layer(rng, elements)
    if fields["float"].size > 200_000:
        return
    if rng.random() < 0.2 and fields["float"].size:  # many gaps, also in the model's values
        for field in ("float", "model_float"):
            if field in fields:
                gaps = rng.random(fields[field].shape) < rng.choice([0.01, 0.5, 1.0])
                fields[field] = np.where(gaps, np.nan, fields[field]).astype(fields[field].dtype)
    block, params = block_of(fields)
    with np.errstate(all="ignore"):
        sizes = sizes_of_sums(block, params)
        assert_same(measure(block, params), plain.measured(block, params), sizes)
        best = plain.quantized(block, params)
        found = no_statistics(best.codes.shape[1])
        add_best(found, block, params)
        assert_same(found, plain.measured(best, params), sizes_of_sums(best, params))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    inner=st.sampled_from([1, 2, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 5000]),
    channels=st.sampled_from([1, 7, 8, 9, 17]),
    rows=st.integers(1, 300),
)
def test_rows_of_any_length_fill_the_buffers(
    seed: int, inner: int, channels: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (max(min(rows, 100_000 // (inner * channels)), 1), channels, inner)
    scale, zero_point = rng.uniform(0.01, 0.1, channels), rng.integers(-9, 9, channels)
    params = QuantParams.of(scale, zero_point, axis=1)
    x = rng.normal(size=shape).astype(np.float32)
    codes = np.rint(x / scale[:, None] + zero_point[:, None]).clip(-128, 127).astype(np.int8)
    block = Block(x, codes, rng.normal(size=shape).astype(np.float16))
    sizes = sizes_of_sums(block, params)
    assert_same(measure(block, params), plain.measured(block, params), sizes)


def test_each_float16_is_read_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, -1, 1)
    params = QuantParams.of(np.ones(halves.size), axis=1)
    found = measure(Block(halves, np.zeros(halves.shape, np.int8)), params)
    finite = np.isfinite(halves).ravel()
    assert (found.non_finite == ~finite).all()
    assert (found.x_min[finite] == halves.ravel()[finite].astype(np.float64)).all()


@pytest.mark.parametrize("unit", [1, 3])
def test_arrays_in_any_place_and_order_are_read(unit: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5, 4)).astype(np.float32)
    codes = np.rint(x / 0.1).astype(np.int16)
    params = QuantParams.of(0.1 * np.arange(1, 6), dtype="int16", axis=1)
    want = measure(Block(x, codes), params)
    room = np.empty(x.nbytes + unit, np.uint8)
    unaligned = room[unit:].view(np.float32).reshape(x.shape)
    unaligned[:] = x
    for floats, whole in (
        (unaligned, codes),
        (np.asfortranarray(x), codes.astype(">i2")),
        (x.astype(">f4"), np.repeat(codes, 2, axis=2)[:, :, ::2]),
    ):
        assert (measure(Block(floats, whole), params).table == want.table).all()


def test_a_type_that_the_kernel_does_not_know_is_left_to_numpy() -> None:
    x, params = np.linspace(-1, 1, 9).reshape(1, 1, 9), QuantParams.of(0.1)
    codes = np.rint(x / 0.1)
    known, other = (measure(Block(x, codes.astype(kind)), params) for kind in (np.int8, np.int64))
    np.testing.assert_allclose(other.table, known.table, atol=1e-15)


def test_some_channels_are_merged_into_those_known_so_far() -> None:
    x = np.random.default_rng(0).normal(size=(1, 6, 50))
    codes, params = np.rint(x / 0.1).astype(np.int8), QuantParams.of(np.full(6, 0.1), axis=1)
    found = no_statistics(6)
    for start, stop in ((0, 4), (2, 6)):
        block = Block(x[:, start:stop], codes[:, start:stop], first_channel=start)
        add(found, block, params)
    assert found.count.tolist() == [50, 50, 100, 100, 50, 50]
    once = measure(Block(x, codes), params)
    np.testing.assert_allclose(found.x_moment, once.x_moment * [1, 1, 2, 2, 1, 1])


def test_the_rows_of_the_table_have_the_same_order_in_both() -> None:
    kernel = library()
    assert kernel is not None
    names = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(kernel, "qdebug_rows")))
    assert names.decode().split() == [row.name for row in ROWS]


def assert_same_bins(seed: int, kind: str) -> None:
    """Bins and extremes of random floats are those of NumPy."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 60, 3))
    channels = shape[1]
    with np.errstate(over="ignore"):
        x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-30, 30)).astype(kind)
    x[rng.random(shape) < 0.1] = rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf])
    unit = 10.0 ** rng.uniform(-3, 3, channels)
    first = rng.integers(0, 400_000, channels)
    found = []
    for kernel in ("", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            counts = np.zeros((channels, 2, 1 << 12), np.int64)
            bins.count(counts, x, unit, first, 11)
            found.append((counts, *bins.extremes(x)))
    for ours, plainly in zip(*found, strict=True):
        assert (ours == plainly).all()
    assert found[0][0].sum() == np.isfinite(x).sum()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["<f2", "<f4", "<f8", ">f4"]))
def test_bins_are_those_of_numpy(seed: int, kind: str) -> None:
    assert_same_bins(seed, kind)


def assert_same_distributions(seed: int) -> None:
    """The distributions of a random layer are those of NumPy."""
    rng = np.random.default_rng(seed)
    fields = layers.random_layer(rng, 14)
    block, params = block_of(fields)
    with np.errstate(all="ignore"):
        metrics = layer_metrics(measure(block, params), params)
    if not metrics.num_elements:
        return
    found = []
    for kernel in ("", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            counted = Distributions(params, metrics)
            counted.add(Layer("layer", params, block.floats.shape), block)
            found.append(counted)
    ours, plainly = found
    assert ours.exact_zeros == plainly.exact_zeros
    assert (ours.floats.counts == plainly.floats.counts).all()
    assert (ours.codes.counts == plainly.codes.counts).all()
    assert (ours.errors.counts == plainly.errors.counts).all()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_distributions_are_those_of_numpy(seed: int) -> None:
    assert_same_distributions(seed)


@pytest.mark.parametrize("seed", range(8))
def test_some_random_layers_are_counted_as_in_numpy(seed: int) -> None:
    assert_same_bins(seed, ("<f2", "<f4", "<f8", ">f4")[seed % 4])
    assert_same_distributions(seed)


@pytest.mark.parametrize("half_even", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.07, 1e-140, 1e140])
def test_halves_are_rounded_as_quotients_are(scale: float, half_even: bool) -> None:
    """A product with 1 / s may round a half to another side."""
    steps = np.arange(-40, 40) + 0.5
    x = np.concatenate([steps, np.nextafter(steps, 0), np.nextafter(steps, 99)]) * scale
    rounding = "half_even" if half_even else "half_away"
    params = QuantParams.of(scale, rounding=rounding)
    block = Block(x.reshape(1, 1, -1), np.zeros((1, 1, x.size), np.int8))
    best = plain.quantized(block, params)
    found = measure(best, params)
    assert found.carried_square.item() == 0
    own = no_statistics(1)
    add_best(own, block, params)
    assert own.q_sum.item() == best.codes.sum()
    assert own.q_moment.item() == pytest.approx(found.q_moment.item())


def test_values_on_the_edges_of_bins_are_counted_as_in_numpy() -> None:
    params = QuantParams.of(0.1)
    edges = (np.arange(-130, 130) + 0.5) * 0.1
    x = np.concatenate([edges, np.nextafter(edges, 99), np.nextafter(edges, -99)]).reshape(1, 1, -1)
    codes = np.clip(np.rint(x / 0.1), -128, 127).astype(np.int8)
    block = Block(x, codes)
    counted = []
    for kernel in ("", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            counted.append(Distributions(params, layer_metrics(measure(block, params), params)))
            counted[-1].add(Layer("layer", params, x.shape), block)
    ours, plainly = counted
    assert (ours.floats.counts == plainly.floats.counts).all()
    assert (ours.errors.counts == plainly.errors.counts).all()
