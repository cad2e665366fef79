"""Figures of floats at the ends of what floats can be agree with sums that lose no digit."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.measure.metrics import Metrics, layer_metrics
from qdebug.measure.statistics import no_statistics
from tests import oracle
from tests.visits import statistics_of

pytestmark = pytest.mark.usefixtures("both_kernels")

RNG = np.random.default_rng(9)
NORMAL = RNG.normal(size=1000)
LEAST = 2.0**-149  # float32's smallest number


def outlier(x: Any, value: float) -> Any:
    with_one = x.copy()
    with_one[500] = value
    return with_one


CASES: dict[str, tuple[Any, float]] = {
    "float32's subnormal numbers": (np.float32(np.rint(NORMAL * 90)) * np.float32(LEAST), LEAST),
    "float64's subnormal numbers": (np.rint(NORMAL * 1e5) * 5e-324, 1e-140),
    "near float32's largest": (np.float32(NORMAL / 4 * 3e38), 1e36),
    "a scale of 1e-30": (NORMAL * 1e-28, 1e-30),
    "a scale of 1e-30, all clipped": (NORMAL, 1e-30),
    "an outlier of 1e30, in range": (outlier(NORMAL, 1e30), 1e30 / 127),
    "an outlier of 1e30, clipped": (outlier(NORMAL, 1e30), 0.03),
    "an outlier of -1e30, clipped": (outlier(NORMAL, -1e30), 0.03),
}


def in_parts(x: Any, codes: Any, params: QuantParams, parts: int) -> Metrics:
    merged = no_statistics(1)
    pieces = zip(np.array_split(x, parts), np.array_split(codes, parts), strict=True)
    for floats, some in pieces:
        merged = merged.merged(statistics_of(floats, some, params))
    return layer_metrics(merged, params)


def exactly(x: Any, codes: Any, scale: float) -> dict[str, float]:
    """Figures by rational numbers, rounded once at the end."""
    n, s = len(x), Fraction(scale)
    floats = [Fraction(float(each)) for each in x]
    errors = [int(q) * s - each for q, each in zip(codes, floats, strict=True)]
    square = sum(e * e for e in errors)
    mean = sum(errors) / n
    mean_x = sum(floats) / n
    return {
        "mean_error_scale": float(mean / s),
        "rmse_scale": math.sqrt(square / s / s / n),
        "max_abs_error_scale": float(max(map(abs, errors)) / s),
        "float_mean": float(mean_x),
        "float_mean_abs": float(sum(map(abs, floats)) / n),
        "float_std": float(s) * math.sqrt(sum((each - mean_x) ** 2 for each in floats) / n / s / s),
        "stddev": float(s) * math.sqrt((square / n - mean * mean) / s / s),
    }


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("case", CASES)
def test_extreme_floats_keep_their_figures(case: str, parts: int) -> None:
    x, scale = CASES[case]
    params = QuantParams.of(scale)
    codes = quantize(x, params)
    found = in_parts(x, codes, params, parts)
    for name, want in exactly(x, codes, scale).items():
        assert getattr(found, name) == pytest.approx(want, rel=1e-6, abs=1e-9 * scale), name
    with np.errstate(under="ignore"):
        known = oracle.figures(x, codes, scale)
    for name in ("clipped", "saturated", "lost", "small", "float_min", "float_max", "num_elements"):
        assert getattr(found, name) == pytest.approx(known[name], rel=1e-12), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_million_equal_values_vary_by_nothing(kind: Callable[[float], Any]) -> None:
    for value in (kind(3), kind(-0.1), kind(1e30), kind(1e-30)):
        scale = abs(float(value)) / 100.3
        params = QuantParams.of(scale)
        x = np.full(1_000_000, value)
        codes = quantize(x, params)
        found = in_parts(x, codes, params, 3)
        error = int(codes[0]) * Fraction(scale) - Fraction(float(value))
        assert found.num_elements == 1_000_000
        assert found.float_min == found.float_max == float(value)
        assert found.float_mean == pytest.approx(float(value), rel=1e-12)
        assert found.mean_error == pytest.approx(float(error), rel=1e-9)
        assert found.rmse == pytest.approx(abs(float(error)), rel=1e-9)
        assert found.float_std == pytest.approx(0, abs=1e-9 * abs(float(value)))
        assert found.stddev == pytest.approx(0, abs=1e-9 * scale)
        assert (found.fit_scale, found.fit_zero_point) == (None, None)
