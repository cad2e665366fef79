"""The squared error of candidates: by the kernel as by quantizing, and the same range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantScheme, dequantize, params_from_range, quantize
from qdebug.measure.kernel import candidates
from qdebug.measure.kernel.candidates import squared_errors
from qdebug.measure.kernel.library import VARIABLE
from qdebug.measure.ranges import range_mse
from tests.arithmetic.strategies import schemes


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["", "numpy"])
@given(
    seed=st.integers(0, 2**32),
    scheme=schemes,
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 1500)),
    kind=st.sampled_from(["<f2", "<f4", "<f8", ">f4"]),
    weighted=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_each_error_is_that_of_quantizing_the_floats(
    kernel: str,
    seed: int,
    scheme: QuantScheme,
    shape: tuple[int, int, int],
    kind: str,
    weighted: bool,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(kind)
    x[rng.random(shape) < rng.choice([0, 0.01, 1])] = rng.choice([np.nan, np.inf, -np.inf])
    weights = rng.integers(0, 9, shape).astype(np.float64) if weighted else None
    ends = rng.uniform(0, 5, (3, 2, shape[1]))
    tried = [params_from_range(-low, high, scheme, axis=1) for low, high in ends]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, kernel)
        patch.setattr(candidates, "_TILE", int(rng.integers(1, 4000)))
        found = squared_errors(x, weights, tried, np.full(shape[1], np.inf))
    with np.errstate(invalid="ignore"):
        finite = np.where(np.isfinite(x), x, 0).astype(np.float64)
    square = [(dequantize(quantize(finite, params), params) - finite) ** 2 for params in tried]
    counted = np.isfinite(x) * (1.0 if weights is None else weights)
    want = [(each * counted).sum(axis=(0, 2)) for each in square]
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), scheme=schemes, axis=st.sampled_from([None, 0, 1, -1]))
@settings(max_examples=25, deadline=None)
def test_the_range_is_that_of_numpy(seed: int, scheme: QuantScheme, axis: int | None) -> None:
    x = np.random.default_rng(seed).standard_t(3, (4, 3, 50)).astype(np.float32)
    found = []
    for kernel in ("", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            found.append(range_mse(x, scheme, axis))
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_a_candidate_worse_than_the_best_so_far_is_given_up() -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 100_000))
    good, poor = (params_from_range(-end, end, QuantScheme(bits=4)) for end in (3.0, 0.1))
    (whole,) = squared_errors(x, None, [good], np.array([np.inf]))
    again, part = squared_errors(x, None, [good, poor], whole)
    assert again == whole
    assert part > whole


@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e300])
def test_floats_of_any_size_get_a_range(size: float) -> None:
    low, high = range_mse(np.array([-1.0, -0.5, 0.25, 1.0]) * size, QuantScheme())
    assert -size <= low[0] < 0 < high[0] <= size
