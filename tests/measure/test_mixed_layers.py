"""Layers with one step beside such whose steps differ: figures together are those alone."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid, affine_blocks
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import (
    Metrics,
    layer_metrics,
    layers_metrics,
    times_expected_limit,
    tolerated_excess,
)
from qdebug.measure.statistics import Statistics, no_statistics

GRID = Grid("int4, blocks of 32")


def affine(low: float, high: float) -> tuple[Statistics, QuantParams]:
    """Floats that leave a part of the codes' range unused, below and above."""
    params = QuantParams.of(0.1, 0, "int8")
    x = np.linspace(low, high, 64).reshape(1, 1, 64)
    return measure(Block(x, np.rint(x / 0.1).astype(np.int8)), params), params


def blocks() -> tuple[Statistics, Grid]:
    x = np.random.default_rng(0).normal(size=(1, 1, 512))
    codes = np.clip(np.rint(x / 0.4), -8, 7)
    found = affine_blocks(codes, np.array(0.4), 0.0, (-8, 7))
    cells = [np.broadcast_to(np.asarray(a), x.shape) for a in (found.below, found.above)]
    block = Block(x, found.values, None, 0, None, *cells, found.ends)
    return measure(block, GRID), GRID


@pytest.fixture(scope="module")
def mixed() -> list[tuple[Statistics, QuantParams | Grid]]:
    return [affine(-12.8, 0), blocks(), affine(0, 12.7), affine(-6.4, 3.2)]


def test_figures_made_together_are_those_made_alone(
    mixed: list[tuple[Statistics, QuantParams | Grid]],
) -> None:
    together = layers_metrics(mixed)
    for found, (statistics, quantization) in zip(together, mixed, strict=True):
        assert asdict(found) == asdict(layer_metrics(statistics, quantization))


def test_range_waste_is_on_its_own_side(
    mixed: list[tuple[Statistics, QuantParams | Grid]],
) -> None:
    left, none, right, both = layers_metrics(mixed)
    assert (none.range_waste, none.range_waste_low, none.range_waste_high) == (None, None, None)
    assert left.range_waste_low == 0
    assert left.range_waste_high == pytest.approx(127 / 255)
    assert right.range_waste_low == pytest.approx(128 / 255)
    assert right.range_waste_high == 0
    assert both.range_waste_low == pytest.approx(64 / 255)
    assert both.range_waste_high == pytest.approx(95 / 255)


def test_only_layers_with_one_step_have_rmse_scale(
    mixed: list[tuple[Statistics, QuantParams | Grid]],
) -> None:
    found = layers_metrics(mixed)
    assert [metrics.rmse_scale is None for metrics in found] == [False, True, False, False]
    assert [metrics.times_expected is None for metrics in found] == [True, False, True, True]


def of_grid(times: float | None, stderr: float | None) -> Metrics:
    metrics = layer_metrics(*blocks())
    return replace(metrics, times_expected=times, times_expected_stderr=stderr)


@pytest.mark.parametrize(("stderr", "limit"), [(None, 1.1), (0.0, 1.1), (0.1, 1.4)])
def test_times_expected_may_be_ten_percent_and_three_standard_errors_above_one(
    stderr: float | None, limit: float
) -> None:
    assert times_expected_limit(of_grid(1.0, stderr)) == pytest.approx(limit)
    assert not of_grid(limit - 0.001, stderr).exceeds_reference
    assert of_grid(limit + 0.001, stderr).exceeds_reference
    assert not of_grid(times_expected_limit(of_grid(1.0, stderr)), stderr).exceeds_reference
    two = times_expected_limit(of_grid(1.0, stderr), stderrs=2)
    assert two == pytest.approx(1.1 + 2 * (stderr or 0))


def test_without_elements_there_is_no_figure_but_the_counts() -> None:
    empty: list[tuple[Statistics, QuantParams | Grid]] = [
        (no_statistics(1), QuantParams.of(0.1, 0, "int8")),
        (no_statistics(1), GRID),
    ]
    for metrics in layers_metrics(empty):
        known = {name: value for name, value in asdict(metrics).items() if value is not None}
        assert known == {"num_elements": 0, "non_finite": 0}


def test_without_a_standard_error_a_share_is_tolerated() -> None:
    metrics = replace(layer_metrics(*affine(-1, 1)), rmse_scale_stderr=None)
    assert metrics.rmse_scale_expected is not None
    assert tolerated_excess(metrics) == pytest.approx(0.05 * metrics.rmse_scale_expected)
    assert tolerated_excess(metrics) < 0.05 / math.sqrt(12) + 1e-9
