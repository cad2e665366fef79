"""A summary of a layer's floats: what a histogram says, the floats themselves would say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantScheme, params_from_range
from qdebug.measure.ranges import range_mse, range_percentile
from qdebug.measure.summary import Summarizer
from tests import oracle

pytestmark = pytest.mark.usefixtures("both_kernels")


@pytest.mark.slow
@pytest.mark.parametrize("outliers", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("channels", [1, 5])
def test_percentiles_of_a_histogram_are_near_those_of_all_floats(
    channels: int, outliers: float
) -> None:
    """Within 2^-mantissa_bits of their own value and one element's rank, outliers or not."""
    rng = np.random.default_rng(channels)
    x = rng.laplace(size=(channels, 100_000)) * np.logspace(-5, 2, channels)[:, None]
    x[:, 0] *= outliers
    taken = Summarizer(np.abs(x).mean(1))
    for part in np.array_split(x, 7, axis=1):
        taken.add(part[None])
    found = taken.summary()
    assert found.mantissa_bits == 11
    assert found.weights.sum(1).tolist() == [100_000] * channels
    for p in (99.0, 99.9, 99.99):
        low, high = range_percentile(found.rows, p, 0, weights=found.weights)
        for end, at in ((low, 50 - p / 2), (high, 50 + p / 2)):
            exact = np.percentile(x, at, axis=1, method="inverted_cdf")
            assert end == pytest.approx(exact, rel=2**-11)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8, 10])
def test_the_search_on_a_histogram_finds_as_good_a_range_as_on_all_floats(
    bits: int, symmetric: bool
) -> None:
    rng = np.random.default_rng(bits)
    scheme = QuantScheme("int16", bits=bits, symmetric=symmetric)
    for x in (rng.standard_t(3, 100_000), np.maximum(rng.laplace(size=100_000), 0)):
        taken = Summarizer(0.01)
        taken.add(x.reshape(1, 1, -1))
        found = taken.summary()

        def error(ends: tuple[np.ndarray, np.ndarray], x: np.ndarray = x) -> float:
            p = params_from_range(*ends, scheme)
            codes = oracle.ideal_codes(x, p.scale, p.zero_point, p.qmin, p.qmax)
            return float(np.mean(((codes - p.zero_point) * p.scale - x) ** 2))

        assert error(range_mse(found.rows, scheme, 0, found.weights)) <= 1.02 * error(
            range_mse(x, scheme)
        )


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, 4000), max_size=5), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_summary_does_not_depend_on_how_the_floats_come(cuts: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).standard_t(2, (3, 4000))
    x[0, ::50] = np.nan
    x[1, ::70] = -np.inf
    whole, parts = (Summarizer([0.1, 2.0, 1e-3]) for _ in range(2))
    for taken in (whole, parts):
        taken._count_whole()  # as if there were many
    whole.add(x[None])
    for part in np.split(x, sorted(cuts), axis=1)[::-1]:
        parts.add(part[None, :2])
        parts.add(part[None, 2:], first_channel=2)
    ours, theirs = whole.summary(), parts.summary()
    assert np.array_equal(ours.rows, theirs.rows, equal_nan=True)
    assert np.array_equal(ours.weights, theirs.weights)
    assert ours.weights.sum() == np.isfinite(x).sum()
