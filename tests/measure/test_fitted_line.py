"""What the least-squares line leaves keeps its digits, however large the codes and the error."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.figures import Figures
from qdebug.measure.layer import Layer
from qdebug.measure.metrics import Metrics, layer_metrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import layer_report
from tests.visits import ArrayPart, blocks_of

pytestmark = pytest.mark.usefixtures("both_kernels")

LEAST, MOST = -(2**31), 2**31 - 1


def found(x: Any, codes: Any, scale: float, parts: int = 1) -> tuple[Metrics, Diagnosis]:
    """Figures and diagnosis of a layer that comes in `parts` parts."""
    params = QuantParams.of(scale, 0, codes.dtype.name)
    figures = Figures(params)
    pieces = zip(np.array_split(x, parts), np.array_split(codes, parts), strict=True)
    layer = Layer("layer", params, x.shape)
    for floats, some in pieces:
        for _, block in blocks_of(ArrayPart(layer, floats, some)):
            figures.add(layer, block)
    statistics = figures.statistics
    metrics = layer_metrics(statistics, params)
    diagnosis = layer_report(layer, statistics, metrics).diagnosis
    assert diagnosis is not None
    return metrics, diagnosis


def line_left(x: Any, codes: Any) -> float:
    """fit_rmse_scale in the longest floats there are, for float64 hardly holds such codes."""
    x, q = x.astype(np.longdouble), codes.astype(np.longdouble)
    x, q = x - x.mean(), q - q.mean()
    slope = (x * q).sum() / (q * q).sum()
    return float(np.sqrt(((x - slope * q) ** 2).mean()) / abs(slope))


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("off", [0.5, 0.9, 1.0001, 1.1, 2.0])
@pytest.mark.parametrize("least", [LEAST, 0, 2**30, MOST - 100_000])
def test_int32_codes_of_another_scale_lie_on_a_line(least: int, off: float, parts: int) -> None:
    rng = np.random.default_rng(least % 1000)
    codes = rng.integers(least, MOST, 5000).astype(np.int32)
    for rounding in (0.0, 0.5):
        x = (codes - rng.uniform(-rounding, rounding, codes.size)) * 0.001
        metrics, _ = found(x, codes, 0.001 * off, parts)
        digits = 1e-5 if rounding == 0 else 1e-9  # float64 has 2^31 to 5e-7
        assert metrics.fit_scale == pytest.approx(0.001)
        assert metrics.fit_rmse_scale == pytest.approx(line_left(x, codes), rel=1e-6, abs=digits)


@pytest.mark.slow
@pytest.mark.parametrize("off", [0.9, 1.1])
@pytest.mark.parametrize("size", [100, 1000, 600_000])
def test_an_exact_line_of_int32_codes_is_a_wrong_scale(size: int, off: float) -> None:
    for seed in range(5):
        codes = np.random.default_rng(seed).integers(LEAST, MOST, size).astype(np.int32)
        metrics, diagnosis = found(codes * 0.001, codes, 0.001 * off)
        assert metrics.fit_rmse_scale == pytest.approx(0, abs=1e-5)
        assert diagnosis.cause == "wrong-scale"
        assert "record scale 0.001 " in diagnosis.advice


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(["int8", "int16", "int32"]),
    center=st.floats(-1, 1),
    spread=st.floats(1e-4, 1),
    off=st.floats(0.3, 3),
    rounding=st.sampled_from([0.0, 0.5]),
    parts=st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_parts_of_any_line_merge_into_what_its_own_line_leaves(
    seed: int,
    dtype: str,
    center: float,
    spread: float,
    off: float,
    rounding: float,
    parts: int,
) -> None:
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    codes = center * limits.max + spread * limits.max * rng.normal(size=200)
    codes = np.rint(codes).clip(limits.min, limits.max).astype(dtype)
    if codes.min() == codes.max():
        return
    x = (codes - rng.uniform(-rounding, rounding, codes.size)) * 0.01
    metrics, _ = found(x, codes, 0.01 * off, parts)
    digits = 1e-9 + 2e-14 * limits.max if rounding == 0 else 1e-9
    assert metrics.fit_rmse_scale == pytest.approx(line_left(x, codes), rel=1e-6, abs=digits)


@pytest.mark.parametrize("offset", [10**3, 10**6, 10**8])
def test_a_large_offset_of_int32_codes_is_no_wrong_scale(offset: int) -> None:
    """What is left of the error without its mean has no digit in the difference of squares."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 2**24, 1000)
        x = codes - rng.uniform(-0.5, 0.5, codes.size)
        assert found(x, (codes - offset).astype(np.int32), 1.0)[1].cause == "bias"
