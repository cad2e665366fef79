"""Which range of floats to represent: no worse than the whole, near the best, by channel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import (
    QuantScheme,
    dequantize,
    params_from_range,
    quantize,
)
from qdebug.errors import FieldError
from qdebug.measure.ranges import range_minmax, range_mse, range_percentile
from tests.arithmetic.strategies import schemes


def mse(x: np.ndarray, low: np.ndarray, high: np.ndarray, scheme: QuantScheme) -> float:
    params = params_from_range(low, high, scheme)
    return float(np.mean((dequantize(quantize(x, params), params) - x) ** 2))


@pytest.mark.slow
@given(scheme=schemes, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_least_error_range_is_no_worse_than_minmax(scheme: QuantScheme, seed: int) -> None:
    x = np.random.default_rng(seed).standard_t(2, 500)
    assert mse(x, *range_mse(x, scheme), scheme) <= mse(x, *range_minmax(x), scheme) * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_least_error_range_is_near_the_best_of_a_fine_grid(bits: int, symmetric: bool) -> None:
    x = np.random.default_rng(bits).laplace(size=3000)
    scheme = QuantScheme("int8", bits=bits, symmetric=symmetric)
    found = mse(x, *range_mse(x, scheme), scheme)
    lows = [-np.inf] if symmetric else x.min() * np.linspace(0.05, 1, 40)
    best = min(
        mse(x, np.maximum(low, -high), high, scheme) if symmetric else mse(x, low, high, scheme)
        for high in np.abs(x).max() * np.linspace(0.02, 1, 60 if symmetric else 40)
        for low in lows
    )
    assert found <= best * 1.02


def test_ranges_go_by_channel_and_leave_out_what_is_not_finite() -> None:
    x = np.array([[1.0, np.nan, 3.0], [-np.inf, -2.0, 5.0], [np.nan] * 3])
    assert [end.tolist() for end in range_minmax(x, axis=0)] == [[1, -2, 0], [3, 5, 0]]
    assert range_mse(x, QuantScheme(), axis=0)[1].shape == (3,)
    low, high = range_percentile(np.arange(-500.0, 501.0), 90, symmetric=True)
    assert (low[0], high[0]) == (-450.0, 450.0)
    with pytest.raises(FieldError, match="percentile"):
        range_percentile(x, 0)
