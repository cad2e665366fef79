"""Layers whose steps differ: figures against a slow oracle, in whatever pieces the rows come."""

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded, Grid, affine_blocks, codebook, spread
from qdebug.errors import FieldError
from qdebug.measure import slabs
from qdebug.measure.figures import Figures
from qdebug.measure.histogram import CellErrors
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import ChannelMetrics, layer_metrics
from qdebug.measure.slabs import hand_over_decoded
from qdebug.measure.statistics import Statistics
from tests import grid_oracle

pytestmark = pytest.mark.usefixtures("both_kernels")

LEVELS = [-6.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0]


def in_blocks(
    rows: int, columns: int, seed: int, kind: str = "int4", block: int = 8
) -> tuple[NDArray[np.float64], Decoded, list[list[float]]]:
    """Floats, what their codes stand for, and for each element all values of its block."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    x[rng.random(x.shape) < 0.1] = 0.0
    blocks = (rows, -(-columns // block))
    scale = spread(rng.uniform(0.1, 0.3, blocks), x.shape, 1, block)
    offset = spread(rng.normal(size=blocks), x.shape, 1, block)
    if kind == "int4":
        pairs = zip(scale.ravel(), offset.ravel(), strict=True)
        codes = np.clip(np.rint((x - offset) / scale), 0, 15)
        table = [[s * q + o for q in range(16)] for s, o in pairs]
        return x, affine_blocks(codes, scale, offset, (0, 15)), table
    distance = np.abs(x[..., None] - np.array(LEVELS) * scale[..., None])
    table = [[s * level for level in LEVELS] for s in scale.ravel()]
    return x, codebook(distance.argmin(axis=-1), LEVELS, scale), table


class Gathering:
    """A visitor that measures what it takes."""

    def __init__(self, grid: Grid) -> None:
        self.figures = Figures(grid)

    def take(self, layer: Layer, block: Block) -> None:
        self.figures.add(layer, block)

    def fail(self, layer: Layer, reason: str) -> None:
        raise AssertionError(reason)


def measured(
    x: NDArray[Any], found: Decoded, cuts: Sequence[int] = (), *, reverse: bool = False
) -> tuple[Statistics, Grid]:
    """The statistics of a layer whose rows come in pieces, each gathered alone and then merged."""
    grid = Grid("blocks", len(x), 0)
    layer = Layer("w", grid, x.shape)
    gathered = []
    ends = [0, *sorted(cuts), len(x)]
    for start, stop in pairwise(ends):
        gathering = Gathering(grid)
        piece = found.mapped(itemgetter(slice(start, stop)))
        hand_over_decoded(gathering, layer, x[start:stop], piece, start)
        gathered.append(gathering.figures)
    first, *others = reversed(gathered) if reverse else gathered
    for other in others:
        first.merge(other)
    return first.statistics, grid


@pytest.mark.parametrize("kind", ["int4", "levels"])
@pytest.mark.parametrize("block", [8, 7])
def test_figures_are_those_of_the_oracle(kind: str, block: int) -> None:
    x, found, tables = in_blocks(5, 40, seed=1, kind=kind, block=block)
    statistics, grid = measured(x, found)
    grid_oracle.assert_same(
        layer_metrics(statistics, grid),
        grid_oracle.figures(x.ravel(), found.values.ravel(), tables),
    )
    for row, channel in enumerate(ChannelMetrics(statistics, grid)):
        of_row = tables[row * 40 : row * 40 + 40]
        grid_oracle.assert_same(channel, grid_oracle.figures(x[row], found.values[row], of_row))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99),
    st.lists(st.integers(1, 19), max_size=5, unique=True),
    st.booleans(),
    st.sampled_from([64, 1000, 24]),
)
def test_pieces_their_order_and_the_size_of_blocks_change_nothing(
    seed: int, cuts: list[int], reverse: bool, elements: int
) -> None:
    x, found, _ = in_blocks(20, 24, seed, kind=["int4", "levels"][seed % 2])
    x[seed % 20, 3], x[0, 0] = np.nan, np.inf
    whole, grid = measured(x, found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "BLOCK_ELEMENTS", elements)
        pieces, _ = measured(x, found, cuts, reverse=reverse)
    np.testing.assert_allclose(pieces.table, whole.table, rtol=1e-9, atol=1e-9)
    expected = vars(layer_metrics(whole, grid))
    grid_oracle.assert_same(layer_metrics(pieces, grid), expected)


def test_what_is_not_finite_is_left_out_of_all_figures() -> None:
    """Floats, values that codes stand for, and cells."""
    x, found, tables = in_blocks(2, 40, seed=3)
    values, below = found.values.copy(), np.array(np.broadcast_to(found.below, x.shape))
    x[0, 1], values[1, 5], below[1, 6] = np.nan, np.inf, np.nan
    statistics, grid = measured(x, Decoded(values, below, below, found.ends))
    values[1, 6] = np.nan  # a value without a cell is as good as none
    metrics = layer_metrics(statistics, grid)
    assert metrics.non_finite == 3
    grid_oracle.assert_same(metrics, grid_oracle.figures(x.ravel(), values.ravel(), tables))


def test_a_format_without_neighbours_has_the_figures_that_need_none() -> None:
    x, found, _ = in_blocks(3, 40, seed=2)
    with_cells = layer_metrics(*measured(x, found))
    without = layer_metrics(*measured(x, Decoded(found.values)))
    unknown = {name for name, value in vars(without).items() if value is None}
    more = unknown - {name for name, value in vars(with_cells).items() if value is None}
    assert more == {
        *("times_expected", "times_expected_stderr", "clipped", "clipped_error_share"),
        *("saturated", "mean_error_scale", "outward_error_scale", "max_abs_error_scale"),
    }
    kept = {name: value for name, value in vars(with_cells).items() if name not in more}
    grid_oracle.assert_same(without, kept)


@pytest.mark.parametrize("types", [("f2", "f4", "f4"), ("f4", "f2", "f8"), ("f8", "f4", "f2")])
def test_arrays_of_any_float_type_are_the_numbers_that_they_hold(types: tuple[str, ...]) -> None:
    x, found, _ = in_blocks(3, 40, seed=5)
    assert found.below is not None
    given = [a.astype(t) for a, t in zip((x, found.values, found.below), types, strict=True)]
    narrow, _ = measured(given[0], Decoded(*given[1:], given[2], found.ends))
    x, values, half = (a.astype(np.float64) for a in given)
    wide, _ = measured(x, Decoded(values, half, half, found.ends))
    np.testing.assert_allclose(narrow.table, wide.table, rtol=1e-12)


def test_cells_may_be_those_of_whole_rows() -> None:
    x = np.random.default_rng(0).normal(size=(3, 50))
    scale = np.array([[0.1], [0.2], [0.3]])
    codes = np.clip(np.rint(x / scale), -8, 7)
    narrow = measured(x, affine_blocks(codes, scale, 0.0, (-8, 7)))[0]
    wide = measured(x, affine_blocks(codes, np.broadcast_to(scale, x.shape), 0.0, (-8, 7)))[0]
    np.testing.assert_array_equal(narrow.table, wide.table)


def test_blocks_whose_scale_is_zero_expect_no_error() -> None:
    x = np.zeros((1, 16))
    x[0, :8] = np.linspace(-1, 1, 8)
    scale = spread([[0.25, 0.0]], x.shape, 1, 8)
    exact = affine_blocks(np.rint(x / 0.25), scale, 0.0, (-8, 7))
    metrics = layer_metrics(*measured(x, exact))
    first_only = layer_metrics(*measured(x[:, :8], exact.mapped(lambda values: values[:, :8])))
    assert metrics.times_expected == first_only.times_expected
    nothing = layer_metrics(*measured(np.zeros((1, 16)), exact.mapped(np.zeros_like)))
    assert (nothing.times_expected, nothing.rmse) == (None, 0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20))
def test_errors_are_counted_in_steps_of_their_own_side(seed: int) -> None:
    """Rounding alone leaves half a step, however uneven the cell."""
    x, found, tables = in_blocks(4, 40, seed, kind="levels")
    counts = CellErrors(layer_metrics(*measured(x, found)))
    layer = Layer("w", Grid("blocks", 4, 0), x.shape)

    class Counting:
        def take(self, layer: Layer, block: Block) -> None:
            counts.add(layer, block)

        def fail(self, layer: Layer, reason: str) -> None:
            raise AssertionError(reason)

    hand_over_decoded(Counting(), layer, x, found)
    inside = exact = 0
    for value, d, table in zip(x.ravel(), found.values.ravel(), tables, strict=True):
        nearest = min(abs(value - other) for other in table)
        exact += d == value == 0
        inside += (
            abs(d - value) <= nearest
            and min(table) <= value <= max(table)
            and not (d == value == 0)
        )
    within = np.abs(counts.errors.edges[:-1] + counts.errors.edges[1:]) / 2 < 0.5
    assert counts.exact_zeros == exact
    assert counts.errors.counts.sum() == x.size - exact
    assert inside <= counts.errors.counts[within].sum()


@pytest.mark.parametrize(
    ("rows", "first", "message"), [(3, 0, "one shape"), (2, 3, "found 5 rows, expected 4")]
)
def test_rows_that_do_not_fit_are_refused(rows: int, first: int, message: str) -> None:
    layer = Layer("w", Grid("blocks", 4, 0), (4, 8))
    visitor = Gathering(Grid("blocks", 4, 0))
    with pytest.raises(FieldError, match=message):
        hand_over_decoded(visitor, layer, np.ones((2, 8)), Decoded(np.ones((rows, 8))), first)


@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_a_sound_quantizer_of_blocks_reads_about_1(draw: str) -> None:
    """As ggml's Q4_0: the extreme of each block becomes -8, and the other end is a step shorter."""
    x = getattr(np.random.default_rng(0), draw)(size=(64, 32 * 16)).reshape(-1, 32)
    place = np.abs(x).argmax(axis=1)[:, None]
    scale = np.take_along_axis(x, place, 1) / -8
    codes = np.clip(np.floor(x / scale + 8.5), 0, 15) - 8
    metrics = layer_metrics(*measured(x, affine_blocks(codes, scale, 0.0, (-8, 7))))
    assert metrics.times_expected is not None
    assert 0.96 < metrics.times_expected < 1.09
    assert metrics.clipped == pytest.approx(0.005, abs=0.003)
    twice = layer_metrics(*measured(x, affine_blocks(codes, 2 * scale, 0.0, (-8, 7))))
    assert twice.times_expected is not None
    assert twice.times_expected > 4
