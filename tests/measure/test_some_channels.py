"""Statistics of some of a layer's channels: widened, merged and pooled with those of others."""

from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import statistics
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.statistics import ROWS, Statistics, no_statistics, side_by_side

pytestmark = pytest.mark.usefixtures("both_kernels")

CHANNELS = 7
RNG = np.random.default_rng(4)
X = RNG.normal(size=(3, CHANNELS, 40)) * np.geomspace(1, 100, CHANNELS)[:, None]
PARAMS = QuantParams.of(np.geomspace(0.02, 2, CHANNELS), np.arange(-3, 4), axis=1)
CODES = np.rint(X / PARAMS.scale[:, None] + PARAMS.zero_point[:, None]).clip(-128, 127)


def of(start: int, stop: int, rows: Any = slice(None)) -> Statistics:
    """The statistics of channels from `start` to `stop - 1`, of some rows."""
    here = slice(start, stop)
    codes = CODES[rows, here].astype(np.int8)
    return measure(Block(X[rows, here], codes, first_channel=start), PARAMS)


def assert_near(found: Any, want: Any) -> None:
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-11)


def test_which_channels_are_known() -> None:
    some = of(2, 5)
    assert (some.first_channel, some.channels) == (2, 3)
    ranges = [(start, stop) for start in range(8) for stop in range(start, 8)]
    known = [(start, stop) for start, stop in ranges if start >= 2 and stop <= 5]
    assert [(start, stop) for start, stop in ranges if some.cover(start, stop)] == known


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (3, 4), (0, 3), (4, 7), (2, 5)])
def test_widened_statistics_know_nothing_of_the_other_channels(start: int, stop: int) -> None:
    wide = of(2, 5).widened(start, stop)
    first, last = min(start, 2), max(stop, 5)
    assert (wide.first_channel, wide.channels) == (first, last - first)
    assert (wide.table[:, 2 - first : 5 - first] == of(2, 5).table).all()
    others = np.delete(wide.table, np.s_[2 - first : 5 - first], axis=1)
    assert (others == no_statistics(1).table).all()


@pytest.mark.parametrize("one", [(0, 7), (2, 5), (0, 3)])
@pytest.mark.parametrize("other", [(0, 7), (2, 5), (4, 6)])
def test_channels_are_merged_with_themselves(one: tuple[int, int], other: tuple[int, int]) -> None:
    merged = of(*one, rows=slice(0, 1)).merged(of(*other, rows=slice(1, 3)))
    first, last = min(one[0], other[0]), max(one[1], other[1])
    assert (merged.first_channel, merged.channels) == (first, last - first)
    for channel in range(first, last):
        rows = [range(1)] * (one[0] <= channel < one[1])
        rows += [range(1, 3)] * (other[0] <= channel < other[1])
        if not rows:
            want = no_statistics(1)
        else:
            want = of(channel, channel + 1, rows=[row for each in rows for row in each])
        assert_near(merged.table[:, channel - first], want.table[:, 0])


@pytest.mark.parametrize("span", [1, 2, 3, 7, 1 << 13])
def test_all_channels_together_however_many_are_taken_at_a_time(
    span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_SPAN_CHANNELS", span)
    whole = of(0, CHANNELS)
    pooled = whole.pooled()
    assert pooled.channels == 1
    x, scale = X, PARAMS.scale[:, None]
    steps = CODES - PARAMS.zero_point[:, None]
    error = steps * scale - x
    assert pooled.count[0] == x.size
    assert (pooled.x_min[0], pooled.x_max[0]) == (x.min(), x.max())
    assert_near(pooled.x_moment[0], ((x - x.mean()) ** 2).sum())
    assert_near(pooled.e_moment[0], ((error - error.mean()) ** 2).sum())
    assert_near(pooled.steps_square[0], ((error / scale) ** 2).sum())
    q = CODES.ravel()
    slope, offset = np.polyfit(q, x.ravel(), 1)
    assert_near(pooled.line_square[0], ((x.ravel() - slope * q - offset) ** 2).sum())

    twice = no_statistics(CHANNELS)
    for rows in (slice(0, 1), slice(1, 3)):
        twice.absorb(of(0, CHANNELS, rows))
    assert_near(twice.table, whole.table)


def test_layers_side_by_side_and_some_of_their_channels() -> None:
    both = side_by_side([of(0, 3), of(3, 5)])
    assert (both.table == of(0, 5).table).all()
    assert (both.of(slice(1, 4)).table == of(1, 4).table).all()
    one = of(2, 3)
    assert one.pooled() is one
    assert Statistics.count.row == ROWS.index(Statistics.count) == 0
