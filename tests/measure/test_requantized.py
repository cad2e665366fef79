"""The outputs of a model that was quantized again."""

import math

import numpy as np
import pytest

from qdebug.measure.requantized import outputs_of


def test_sums_run_over_samples() -> None:
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)) / 10
    (found,) = outputs_of(["y"], (([a], [a + b]) for a, b in zip(x, e, strict=True)))
    assert found.sqnr_db == pytest.approx(10 * math.log10(np.sum(x**2) / np.sum(e**2)))
    assert (found.name, found.num_samples) == ("y", 3)


def test_where_there_is_no_number() -> None:
    floats, found = [[1.0, 2.0], [0.0], [1.0]], [[1.0, 2.0], [1.0], [math.nan]]
    exact, silent, broken = outputs_of(["exact", "silent", "broken"], [(floats, found)])
    assert (exact.sqnr_db, exact.rmse) == (None, 0)
    assert (silent.sqnr_db, silent.rmse) == (None, 1)
    assert (broken.sqnr_db, broken.non_finite) == (None, 1)
