"""Grids: values and cells of every code, against a search through all representable values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qdebug.arithmetic.grids import (
    Decoded,
    affine_blocks,
    codebook,
    expected_square,
    spread,
    variance_of_square,
)
from qdebug.errors import FieldError

Array = NDArray[np.float64]

# Scales and levels with few digits: all sums and halves of them are exact.
exact = st.integers(-64, 64).map(lambda n: n / 16)
not_zero = exact.filter(bool)


def cells_of(representable: list[float], value: float) -> tuple[float, float, int]:
    """Half distances to the neighbours of a value, and whether it is the least or largest one."""
    values = sorted(set(representable))
    place = values.index(value)
    below = values[place] - values[place - 1] if place else None
    above = values[place + 1] - values[place] if place + 1 < len(values) else None
    end = -1 if below is None else 1 if above is None else 0
    below, above = below or above, above or below
    assert below is not None
    assert above is not None
    return below / 2, above / 2, end


def check(found: Decoded, values: Array, tables: list[list[float]]) -> None:
    """Each element against all values that its own block can represent."""
    np.testing.assert_array_equal(found.values, values)
    shape = values.shape
    assert found.below is not None
    assert found.above is not None
    assert found.ends is not None
    below, above = (np.broadcast_to(half, shape).ravel() for half in (found.below, found.above))
    ends = np.broadcast_to(found.ends, shape).ravel()
    for place, (value, table) in enumerate(zip(values.ravel().tolist(), tables, strict=True)):
        assert (below[place], above[place], ends[place]) == cells_of(table, value)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-8, 7), not_zero, exact), min_size=1, max_size=20),
)
def test_values_and_cells_of_affine_blocks(elements: list[tuple[int, float, float]]) -> None:
    codes, scale, offset = (np.array(column) for column in zip(*elements, strict=True))
    tables = [[s * q + o for q in range(-8, 8)] for _, s, o in elements]
    check(affine_blocks(codes, scale, offset, (-8, 7)), scale * codes + offset, tables)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(exact, min_size=2, max_size=16).filter(lambda levels: len(set(levels)) > 1),
    st.data(),
)
def test_values_and_cells_of_codebooks(levels: list[float], data: st.DataObject) -> None:
    """Levels in any order, some of them twice, by scales of either sign."""
    size = data.draw(st.integers(1, 20))
    codes = np.array([data.draw(st.integers(0, len(levels) - 1)) for _ in range(size)])
    scale = np.array([data.draw(not_zero) for _ in range(size)])
    values = np.array([levels[q] for q in codes]) * scale
    check(codebook(codes, levels, scale), values, [[s * x for x in levels] for s in scale])


def test_levels_that_are_not_finite_are_no_neighbours() -> None:
    found = codebook(np.array([0, 1, 2, 3]), [-1.0, np.nan, 3.0, np.inf], 1.0)
    assert found.below is not None
    assert found.below[[0, 2]].tolist() == [2.0, 2.0]
    assert not np.isfinite(found.values[[1, 3]]).any()


@pytest.mark.parametrize("levels", [[], [1.0], [2.0, 2.0], [1.0, np.nan]])
def test_a_codebook_needs_two_levels(levels: list[float]) -> None:
    with pytest.raises(FieldError, match=r"'levels': found [01], expected 2 or more"):
        codebook(np.array([0]), levels, 1.0)


@pytest.mark.parametrize("code", [-1, 3])
def test_a_code_needs_a_level(code: int) -> None:
    with pytest.raises(FieldError, match=f"found code {code}, expected 0 to 2"):
        codebook(np.array([0, code]), [0.0, 1.0, 2.0], 1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2), st.integers(1, 5)
)
def test_each_block_along_an_axis_has_its_own(
    outer: int, middle: int, inner: int, axis: int, block: int
) -> None:
    shape = (outer, middle, inner)
    blocks = tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))
    each = np.arange(float(np.prod(blocks))).reshape(blocks)
    found = np.broadcast_to(spread(each, shape, axis, block), shape)
    for place in np.ndindex(shape):
        block_of = tuple(n // block if i == axis else n for i, n in enumerate(place))
        assert found[place] == each[block_of]


def test_another_number_of_blocks_is_refused() -> None:
    with pytest.raises(FieldError, match=r"'scale': found shape \(2, 3\), expected \(2, 2\)"):
        spread(np.ones((2, 3)), (2, 8), 1, 4)


@pytest.mark.parametrize(("below", "above"), [(0.5, 0.5), (0.25, 1.0), (3.0, 0.125), (1.0, 0.0)])
def test_moments_of_an_error_uniform_over_a_cell(below: float, above: float) -> None:
    """By the integral of e^2 and e^4, as the midpoints of a million intervals give it."""
    edges = np.linspace(-below, above, 1_000_001)
    square = ((edges[:-1] + edges[1:]) / 2) ** 2
    a, b = np.array(below), np.array(above)
    assert expected_square(a, b) == pytest.approx(square.mean(), rel=1e-9)
    assert variance_of_square(a, b) == pytest.approx(square.var(), rel=1e-9)
    assert expected_square(a, b) == pytest.approx((a**3 + b**3) / (3 * (a + b)))
