"""The SQNR of slices along an axis, whatever the blocks."""

import math

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import slabs
from qdebug.measure.figures import Figures
from qdebug.measure.layer import Layer
from qdebug.measure.slabs import hand_over
from tests.visits import Kept


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_those_of_the_whole_array(
    block: int, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs, "BLOCK_ELEMENTS", block)
    rng = np.random.default_rng(axis)
    x = rng.normal(size=(3, 4, 5)) * 10 ** rng.uniform(-3, 0, size=(3, 4, 1))
    x[0] = 0
    x[1, 2, 3] = np.nan
    params = QuantParams.of(0.02, 3, "int8")
    q = np.clip(np.rint(np.nan_to_num(x) / 0.02) + 3, -128, 127).astype(np.int8)
    layer = Layer("layer", params, x.shape, view=(axis, x.shape[axis]))
    kept, first, second = Kept(), Figures(params, sliced=True), Figures(params, sliced=True)
    hand_over(kept, layer, x, q)
    for number, (at, each) in enumerate(kept.blocks):
        (second if number % 2 else first).add(at, each)
    first.merge(second)
    error = np.nan_to_num((q.astype(float) - 3) * 0.02 - x)
    others = tuple(a for a in range(3) if a != axis)
    signal, noise = (np.nan_to_num(x) ** 2).sum(axis=others), (error**2).sum(axis=others)
    expected = [
        10 * math.log10(s / n) if s and n else math.inf for s, n in zip(signal, noise, strict=True)
    ]
    found = first.slices
    assert found is not None
    assert found.axis == axis
    assert found.num_slices == np.count_nonzero(signal)
    assert found.num_low == sum(db < 10 for db in expected)
    assert found.least_sqnr_db == pytest.approx(min(expected))
    assert found.least_slice == int(np.argmin(expected))
    small = (np.abs(q.astype(int) - 3) <= 4) & (np.nan_to_num(x) != 0)
    ratio = (x[small] ** 2).sum() / (error[small] ** 2).sum()
    assert found.small_sqnr_db == pytest.approx(10 * math.log10(ratio))
