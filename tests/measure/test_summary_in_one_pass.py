"""A summary taken in one pass is what it would be had the largest value come first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.measure import summary
from qdebug.measure.summary import Summarizer, Summary

pytestmark = pytest.mark.usefixtures("both_kernels")


@pytest.fixture(autouse=True)
def _always_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "WHOLE_ELEMENTS", 0)


def taken(*slabs: np.ndarray, unit: object = 0.1) -> Summarizer:
    found = Summarizer(unit)  # type: ignore[arg-type]
    for slab in slabs:
        found.add(slab)
    return found


def same(one: Summary, other: Summary) -> bool:
    assert one.weights is not None
    assert other.weights is not None
    ours, theirs = (
        [
            (row[~np.isnan(row)].tolist(), weight[~np.isnan(row)].tolist())
            for row, weight in zip(each.rows, each.weights, strict=True)
        ]
        for each in (one, other)
    )
    return ours == theirs


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.floats(0, 30))
def test_the_order_of_slabs_and_of_merging_changes_nothing(
    seed: int, channels: int, power: float
) -> None:
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.uniform(-3, 3, channels)
    slabs = [
        rng.normal(size=(3, channels, 50)) * 10.0 ** rng.uniform(-power, power) for _ in range(4)
    ]
    forwards, backwards = taken(*slabs, unit=unit), taken(*slabs[::-1], unit=unit)
    assert same(forwards.summary(), backwards.summary())
    first, second = taken(*slabs[:2], unit=unit), taken(*slabs[2:], unit=unit)
    second.merge(first)
    assert same(second.summary(), forwards.summary())


def test_points_are_near_their_elements_and_the_extremes_exact() -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 5000)) ** 3
    found = taken(x).summary()
    assert found.weights is not None
    assert found.mantissa_bits is not None
    order = np.argsort(found.rows[0])
    points = np.repeat(found.rows[0][order], found.weights[0][order].astype(int))
    nearness = {"rtol": 2.0**-found.mantissa_bits, "atol": np.abs(x).max() * 2.0**-31}
    np.testing.assert_allclose(points, np.sort(x.ravel()), **nearness)
    assert (points[0], points[-1]) == (x.min(), x.max())


def test_what_is_far_below_the_largest_value_counts_as_zero_whenever_it_comes() -> None:
    small, large = np.full((1, 1, 7), 1e-12), np.array([[[-1.0, 1.0]]])
    for slabs in ([small, large], [large, small]):
        found = taken(*slabs).summary()
        assert found.weights is not None
        assert found.rows[0].tolist() == [0.0, 1.0, -1.0]
        assert found.weights[0].tolist() == [7, 1, 1]


def test_values_beyond_float32_and_non_finite_ones_do_no_harm() -> None:
    x = np.array([[[1e300, -1e300, np.nan, np.inf, 0.0]]])
    found = taken(x, unit=1e-100).summary()
    assert found.weights is not None
    assert found.weights.sum() == 3
    assert np.nanmin(found.rows) == -1e300
    assert np.nanmax(found.rows) == 1e300


def test_floats_kept_whole_become_a_histogram_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summary, "WHOLE_ELEMENTS", 100)
    few = np.linspace(-1, 1, 60).reshape(1, 1, 60)
    assert taken(few).summary().weights is None
    assert taken(few, few).summary().weights is not None
    one, other = taken(few), taken(few)
    one.merge(other)
    assert same(one.summary(), taken(few, few).summary())
