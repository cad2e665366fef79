"""The figures of channels are made on demand, some together; what rounding alone explains."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import metrics as module
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import (
    FIGURES,
    LOW_SQNR_DB,
    REFERENCE,
    TFLITE_THRESHOLD,
    ChannelMetrics,
    Metrics,
    layer_metrics,
    layers_metrics,
    metrics_at,
    rmse_scale_stderr,
    tolerated_excess,
)
from qdebug.measure.statistics import Statistics
from tests.subjects import metrics

CHANNELS = 7
RNG = np.random.default_rng(6)
X = RNG.normal(size=(1, CHANNELS, 60))
PARAMS = QuantParams.of(np.geomspace(0.02, 0.2, CHANNELS), np.arange(7), axis=1)
CODES = np.rint(X / PARAMS.scale[:, None] + PARAMS.zero_point[:, None]).clip(-128, 127)
STATISTICS = measure(Block(X, CODES.astype(np.int8)), PARAMS)


def alone(channel: int) -> Metrics:
    """The figures of a channel as if it were a layer."""
    params = QuantParams.of(PARAMS.scale[channel], PARAMS.zero_point[channel])
    return layer_metrics(STATISTICS.of(slice(channel, channel + 1)), params)


@pytest.mark.parametrize("together", [1, 2, 3, 7, 1 << 12])
def test_each_channel_is_what_it_would_be_alone(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MADE_TOGETHER", together)
    channels = ChannelMetrics(STATISTICS, PARAMS)
    every = [alone(channel) for channel in range(CHANNELS)]
    assert len(channels) == CHANNELS
    for order in (range(CHANNELS), reversed(range(CHANNELS)), (5, 0, 3, 3, 6, 1)):
        assert all(channels[place] == every[place] for place in order)
    assert (channels[-1], channels[-CHANNELS]) == (every[-1], every[0])
    assert channels[1:6:2] == every[1:6:2]
    assert list(channels) == every
    with pytest.raises(IndexError):
        channels[CHANNELS]
    found: list[Metrics] = []
    for first, columns in channels.columns():
        assert first == len(found)
        scales = PARAMS.scale[first : first + together]
        assert channels.scale(first).tolist() == scales.tolist()
        assert set(columns) == set(FIGURES)
        found += metrics_at(columns, np.arange(len(scales)))
    assert found == every


def test_layers_together_have_the_figures_of_each_alone() -> None:
    few = Statistics(STATISTICS.table[:, :3])
    of_few = QuantParams.of(PARAMS.scale[:3], PARAMS.zero_point[:3], axis=1)
    nothing = measure(Block(X[:, :1, :0], CODES[:, :1, :0].astype(np.int8)), PARAMS)
    pairs = [(few, of_few), (STATISTICS, PARAMS), (nothing, QuantParams.of(1.0))]
    assert layers_metrics(pairs) == [layer_metrics(*pair) for pair in pairs]
    assert layers_metrics([]) == []


def test_channels_without_elements_do_not_count_among_the_wasted() -> None:
    """Three of four channels hold nothing but NaN."""
    x = np.full((1, 4, 8), np.nan)
    x[0, 2] = np.linspace(0, 63, 8)
    params = QuantParams.of(np.ones(4), 0, "uint8", axis=1)
    found = layer_metrics(measure(Block(x, np.zeros(x.shape, np.uint8)), params), params)
    assert (found.range_waste_low, found.range_waste_high) == (0.0, 192 / 255)
    assert found.range_waste == 192 / 255


@pytest.mark.parametrize(("bits", "waste"), [(16, 65535 - 32767), (17, None), (None, None)])
def test_waste_is_told_of_up_to_sixteen_bits(bits: int | None, waste: int | None) -> None:
    params = QuantParams.of(1.0, 0, "int32", bits=bits)
    x = np.array([[[0.0, -32767.0]]])
    found = layer_metrics(measure(Block(x, x.astype(np.int32)), params), params)
    assert found.range_waste == (waste and pytest.approx(waste / 65535))


# --- what rounding alone explains -----------------------------------------------------------------


def test_the_reference_is_that_of_an_error_uniform_over_a_step() -> None:
    u = (np.arange(100_000) + 0.5) / 100_000 - 0.5
    assert pytest.approx(np.sqrt((u**2).mean()), rel=1e-9) == REFERENCE
    for count in (1, 10, 1000):
        spread = (u**2).std() / np.sqrt(count) / (2 * REFERENCE)
        assert rmse_scale_stderr(count) == pytest.approx(spread, rel=1e-9)
    assert (TFLITE_THRESHOLD, LOW_SQNR_DB) == (0.7, 20.0)  # from TFLite's guide; a tenth


@pytest.mark.parametrize(
    ("figures", "excess"),
    [
        ({}, 0.05 * REFERENCE),
        ({"rmse_scale_stderr": 0.0048}, 0.05 * REFERENCE),
        ({"rmse_scale_stderr": 0.0049}, 3 * 0.0049),
        ({"rmse_scale_stderr": None}, 0.05 * REFERENCE),
        ({"rmse_scale_expected": None}, 0.05 * REFERENCE),
        ({"rmse_scale_expected": 0.1}, 0.005),
    ],
)
def test_an_excess_is_tolerated_by_share_or_by_standard_error(
    figures: dict[str, Any], excess: float
) -> None:
    found = metrics(**figures)
    expected = REFERENCE if found.rmse_scale_expected is None else found.rmse_scale_expected
    assert tolerated_excess(found) == pytest.approx(excess)
    assert found.rmse_scale_limit == pytest.approx(expected + excess)
    limit = found.rmse_scale_limit
    assert not replace(found, rmse_scale=limit).exceeds_reference
    assert replace(found, rmse_scale=limit * 1.001).exceeds_reference
    assert not replace(found, rmse_scale=None).exceeds_reference


def test_more_standard_errors_tolerate_more() -> None:
    assert tolerated_excess(metrics(rmse_scale_stderr=0.01), 5.0) == pytest.approx(0.05)


def test_the_ratio_is_one_for_rounding_alone() -> None:
    assert metrics().rmse_scale_ratio == 1
    assert metrics(rmse_scale=0.3, rmse_scale_expected=0.1).rmse_scale_ratio == pytest.approx(3)
    for unknown in (
        {"rmse_scale": None},
        {"rmse_scale_expected": None},
        {"rmse_scale_expected": 0},
    ):
        assert metrics(**unknown).rmse_scale_ratio is None
    assert set(asdict(metrics())) == set(FIGURES)
