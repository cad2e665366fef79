"""The SQNR of a model's outputs."""

import math

import numpy as np
import pytest

from qdebug.measure.requantized import OutputErrors


def test_sums_run_over_samples() -> None:
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)) / 10
    errors = OutputErrors(["y"])
    for floats, wrong in zip(x, e, strict=True):
        errors.add([floats], [floats + wrong])
    expected = 10 * math.log10(np.sum(x**2) / np.sum(e**2))
    assert errors.sqnr_db() == {"y": pytest.approx(expected)}


def test_where_there_is_no_number() -> None:
    errors = OutputErrors(["exact", "silent", "broken"])
    errors.add([[1, 2], [0.0], [1.0]], [[1, 2], [1.0], [math.nan]])
    assert errors.sqnr_db() == {"exact": math.inf, "silent": None, "broken": None}
