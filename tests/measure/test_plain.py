"""The NumPy path's own steps: sums of long rows, counts, buffers that are used again."""

import math
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel import plain
from qdebug.measure.layer import Block
from qdebug.measure.metrics import layer_metrics
from qdebug.measure.statistics import Statistics
from tests import oracle

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("elements", [1, 8191, 8192, 8193, 20_000])
def test_products_of_rows_of_any_length(
    elements: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_BLAS_ALONE", alone)
    a, b = RNG.normal(size=(2, 3, elements))
    want = [math.fsum(row) for row in a * b]
    np.testing.assert_allclose(plain._dot(a, b), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("elements", [0, 511, 512, 513])
def test_counts_of_rows_of_any_length(elements: int) -> None:
    mask = RNG.random((4, elements)) < 0.3
    assert plain._count(mask).tolist() == [sum(row) for row in mask.tolist()]


def block(elements: int, channels: int = 1, **given: Any) -> tuple[Block, QuantParams]:
    x = RNG.normal(size=(2, channels, elements))
    params = QuantParams.of(np.full(channels, 0.1), 3, axis=1)
    codes = np.rint(x / 0.1 + 3).clip(-128, 127).astype(np.int8)
    return Block(x, codes, **given), params


def test_buffers_are_used_again_and_what_they_held_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [(10, 3), (1000, 2), (7, 5), (2000, 1), (1000, 2)]
    blocks = [block(*size) for size in sizes]
    fresh = []
    for each in blocks:
        monkeypatch.setattr(plain, "_scratch", plain._Scratch())
        fresh.append(plain.measured(*each).table)
    again = [plain.measured(*each) for each in blocks]
    for found, want in zip(again, fresh, strict=True):
        assert (found.table == want).all()
    taken = plain._scratch.take("x", (2, 3))
    assert taken.shape == (2, 3)
    assert np.shares_memory(taken, plain._scratch.take("x", (5,)))
    assert not np.shares_memory(taken, plain._scratch.take("q", (5,)))


def test_gaps_are_left_out_of_their_own_channels() -> None:
    """Each channel is that of the oracle, with gaps in some, in the floats or in the model's."""
    with_gaps, params = block(30, 5)
    x, codes = with_gaps.floats.copy(), with_gaps.codes
    model = x + 0.05
    x[0, 1, :4], x[:, 2], x[1, 4, 7] = np.nan, np.inf, -np.inf
    model[1, 1, :2], model[:, 3] = np.inf, np.nan
    found = plain.measured(Block(x, codes, model), params)
    for channel in range(5):
        one = QuantParams.of(0.1, 3)
        metrics = layer_metrics(Statistics(found.table[:, channel : channel + 1]), one)
        want = oracle.figures(
            x[:, channel], codes[:, channel], 0.1, 3, model_float=model[:, channel]
        )
        assert not oracle.disagreements(vars(metrics), want, 0.1), channel
    assert found.non_finite.tolist() == [0, 4, 60, 0, 1]
    assert found.model_only.tolist() == [0, 4, 60, 0, 1]


def test_codes_within_a_span_are_compared_in_their_own_type() -> None:
    codes = np.array([[-128, -127, 0, 126, 127], [0, 5, 9, 10, 127]], np.int8)
    low, high = np.array([-200, 5]), np.array([126, 300])
    want = [[True, True, True, True, False], [False, True, True, True, True]]
    assert plain._within(codes, low, high).tolist() == want
    assert plain._within(codes.astype(np.float64), low, high).tolist() == want


@pytest.mark.parametrize("rounding", ["half_away", "half_even"])
def test_what_weights_and_kernel_add_is_counted_by_channel(rounding: str) -> None:
    base, params = block(25, 3, first_channel=0)
    params = QuantParams.of(params.scale * [1, 2, 4], [3, -2, 0], axis=1, rounding=rounding)
    w = base.floats + RNG.normal(size=base.floats.shape) * 0.07
    w[0, 0, :5] = np.arange(5) * 0.1 + 0.05  # halfway between two codes
    x = base.floats.copy()
    w[1, 1, 3], x[1, 2, :2] = np.nan, np.inf
    count, weights, arithmetic = plain.split(Block(x, base.codes, weights_float=w), params)
    for channel in range(3):
        s, z = params.scale[channel], params.zero_point[channel]
        known = np.isfinite(w[:, channel]) & np.isfinite(x[:, channel])
        ours, floats = w[:, channel][known], x[:, channel][known]
        ideal = oracle.ideal_codes(ours, s, z, -128, 127, rounding)
        codes = base.codes[:, channel][known].astype(float)
        assert count[channel] == known.sum()
        assert weights[channel] == pytest.approx((((ours - floats) / s) ** 2).sum())
        assert arithmetic[channel] == pytest.approx(((codes - ideal) ** 2).sum())
