"""Every figure agrees with the oracle, whatever the layer and however it is read and merged."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import slabs
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import FIGURES, ChannelMetrics, Metrics, layer_metrics
from qdebug.measure.statistics import Statistics, no_statistics
from qdebug.report.report import LayerReport
from qdebug.run import session
from qdebug.sources.npz import array as npy_array
from qdebug.sources.pair_file.read import PairFiles
from tests import layers, oracle

pytestmark = pytest.mark.usefixtures("both_kernels")


def figures(path: Path, *more: Path) -> dict[str, LayerReport]:
    report = session.run(PairFiles([str(p) for p in (path, *more)]))
    return {layer.name: layer for layer in report.layers}


def assert_agrees(found: Metrics, expected: dict[str, Any], step: float) -> None:
    assert not oracle.disagreements(asdict(found), expected, step)


def test_the_oracle_knows_every_figure() -> None:
    x = np.linspace(-1, 1, 50)
    known = oracle.figures(
        x, np.rint(x / 0.01).astype(np.int8), 0.01, model_float=x + 0.1, weights_float=x
    )
    assert set(known) == set(FIGURES)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10))]
)
def test_figures_of_random_layers(seed: int, write_pairs: Callable[..., Path]) -> None:
    """3000 layers of all types, shapes, axes, orders and faults, through real files."""
    rng = np.random.default_rng(seed)
    pairs = {f"layer{i}": layers.random_layer(rng) for i in range(300)}
    found = figures(write_pairs(pairs, packed=seed % 2 == 0))
    for name, fields in pairs.items():
        metrics = found[name].metrics
        assert metrics is not None, found[name].unreadable
        wrong = oracle.disagreements(
            asdict(metrics), layers.expected(fields), float(np.max(fields["scale"]))
        )
        assert not wrong, (name, found[name], wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("block", "count"), [(1, 40), (7, 100), (64, 150)])
def test_block_size_changes_nothing(
    block: int, count: int, write_pairs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(100 + block)
    pairs = {f"layer{i}": layers.random_layer(rng, elements=7) for i in range(count)}
    monkeypatch.setattr(slabs, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(npy_array, "BLOCK_ELEMENTS", block)
    found = figures(write_pairs(pairs))
    for name, fields in pairs.items():
        metrics = found[name].metrics
        assert metrics is not None
        assert_agrees(metrics, layers.expected(fields), float(np.max(fields["scale"])))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_each_channel_has_the_figures_of_its_own_slice(axis: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 6, 7))
    channels = x.shape[axis]
    scale = rng.uniform(0.01, 0.1, channels)
    params = QuantParams.of(scale, 3, "int8", axis=axis % 3)
    shape = [1, 1, 1]
    shape[axis] = channels
    q = np.clip(np.rint(x / scale.reshape(shape)) + 3, -128, 127).astype(np.int8)
    outer, inner = int(np.prod(x.shape[: axis % 3])), int(np.prod(x.shape[axis % 3 + 1 :]))
    block = Block(x.reshape(outer, channels, inner), q.reshape(outer, channels, inner))
    for channel, metrics in enumerate(ChannelMetrics(measure(block, params), params)):
        part = oracle.figures(
            x.take(channel, axis), q.take(channel, axis), scale[channel], zero_point=3
        )
        assert_agrees(metrics, part, scale[channel])


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_order_and_place_of_merging_change_nothing(
    seed: int, cuts: list[int], data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=200) * 10 ** rng.uniform(-3, 3) + 10 ** rng.uniform(-3, 3)
    params = QuantParams.of(abs(x).max() / 100, 0, "int8")
    q = np.clip(np.rint(x / params.scale[0]) + rng.integers(-2, 3, 200), -128, 127).astype(np.int8)
    ends = sorted({0, 200, *cuts})
    parts = [
        measure(Block(x[a:b].reshape(1, 1, -1), q[a:b].reshape(1, 1, -1)), params)
        for a, b in pairwise(ends)
    ]
    order = data.draw(st.permutations(parts))
    merged = no_statistics(1)
    for part in order:
        merged = merged.merged(part)
    assert_agrees(
        layer_metrics(merged, params), oracle.figures(x, q, params.scale), params.scale[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1e-3), (1e4, 1e-3), (-30.0, 0.0), (1e6, 0.3)])
def test_a_constant_offset_does_not_cost_the_standard_deviation_its_digits(
    offset: float, spread: float
) -> None:
    x = np.random.default_rng(1).uniform(-spread, spread, 300_000)
    q = np.full(x.size, int(offset), np.int32)
    params = QuantParams.of(1.0, 0, "int32")
    found = layer_metrics(measure(Block(x.reshape(1, 1, -1), q.reshape(1, 1, -1)), params), params)
    e = q - x
    assert found.stddev == pytest.approx(e.std(), rel=1e-6, abs=1e-9)


def test_no_elements_give_no_figures_and_merge_as_nothing() -> None:
    params = QuantParams.of(0.1, 0, "int8")
    nothing = measure(Block(np.zeros((1, 1, 0)), np.zeros((1, 1, 0), np.int8)), params)
    metrics = layer_metrics(nothing, params)
    assert metrics.num_elements == 0
    assert {v for k, v in asdict(metrics).items() if k not in ("num_elements", "non_finite")} == {
        None
    }
    some = measure(Block(np.ones((1, 1, 3)), np.full((1, 1, 3), 9, np.int8)), params)
    assert asdict(layer_metrics(some.merged(nothing), params)) == asdict(
        layer_metrics(some, params)
    )


def test_no_figure_is_minus_zero() -> None:
    params = QuantParams.of(0.5, 0)
    x = np.array([[[0.0, -0.0, 0.5, -0.5]]])
    found = layer_metrics(measure(Block(x, np.array([[[0, 0, 1, -1]]], np.int8)), params), params)
    for name, value in asdict(found).items():
        assert value is None or value or str(value) in ("0", "0.0"), name


def test_truncation_everywhere_reads_half_a_step_and_one_over_root_three() -> None:
    x = np.random.default_rng(0).uniform(0, 100, 400_000)
    params = QuantParams.of(0.5, 0, "int16")
    q = np.floor(x / 0.5).astype(np.int16)
    metrics = layer_metrics(
        measure(Block(x.reshape(1, 1, -1), q.reshape(1, 1, -1)), params), params
    )
    assert metrics.mean_error_scale == pytest.approx(-0.5, abs=2e-3)
    assert metrics.rmse_scale == pytest.approx(1 / np.sqrt(3), abs=2e-3)


@pytest.mark.slow
def test_rounding_alone_reads_0_289_within_its_standard_error() -> None:
    rng = np.random.default_rng(5)
    params = QuantParams.of(0.01, 0, "int16")
    away = []
    for _ in range(300):
        x = rng.uniform(-100, 100, 1000)
        q = np.rint(x / 0.01).astype(np.int16)
        metrics = layer_metrics(
            measure(Block(x.reshape(1, 1, -1), q.reshape(1, 1, -1)), params), params
        )
        assert metrics.rmse_scale is not None
        assert metrics.rmse_scale_expected is not None
        assert metrics.rmse_scale_stderr is not None
        away.append((metrics.rmse_scale - metrics.rmse_scale_expected) / metrics.rmse_scale_stderr)
    assert np.std(away) == pytest.approx(1.0, abs=0.15)
    assert np.mean(away) == pytest.approx(0.0, abs=0.25)


def test_a_small_layer_is_not_called_bad_by_luck_but_a_large_one_is() -> None:
    def at(rmse_scale: float, n: int) -> bool:
        """A layer of n elements, all `rmse_scale` steps off."""
        params = QuantParams.of(1.0, 0, "int8")
        x = np.full((1, 1, n), 5 - rmse_scale)
        part: Statistics = measure(Block(x, np.full(x.shape, 5, np.int8)), params)
        return layer_metrics(part, params).exceeds_reference

    assert not at(0.33, 10)
    assert at(0.33, 1_000_000)
    assert not at(0.30, 1_000_000)
