"""A model's outputs: figures against an oracle, sample by sample, and what counts as ruined."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.measure.outputs import (
    Output,
    OutputMetrics,
    OutputRuns,
    compared,
    is_ruined,
    output_metrics,
)


def figures(f: np.ndarray, g: np.ndarray) -> OutputMetrics:
    """Samples along axis 0."""
    sums = [compared(one[None], other[None]) for one, other in zip(f, g, strict=True)]
    return output_metrics(Output("y", np.array(sums)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 9), st.floats(1e-6, 10))
def test_figures_are_those_of_the_whole_arrays(
    seed: int, samples: int, classes: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(samples, classes))
    g = f + noise * rng.normal(size=f.shape)
    found = figures(f, g)
    e = g - f
    assert found.num_elements == f.size
    assert found.sqnr_db == pytest.approx(10 * math.log10((f**2).sum() / (e**2).sum()))
    assert found.rmse == pytest.approx(math.sqrt((e**2).mean()))
    assert found.max_abs_error == pytest.approx(np.abs(e).max())
    lengths = math.sqrt((f**2).sum() * (g**2).sum())
    assert found.cosine_similarity == pytest.approx((f * g).sum() / lengths)
    assert found.top1 == np.mean(f.argmax(axis=1) == g.argmax(axis=1))
    by_sample = [10 * math.log10((x**2).sum() / (d**2).sum()) for x, d in zip(f, e, strict=True)]
    assert found.worst_sqnr_db == pytest.approx(min(by_sample))
    assert found.worst_sample == int(np.argmin(by_sample))


def test_values_that_are_finite_in_the_float_model_only_are_counted_and_ruin_it() -> None:
    f = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    g = np.array([[1.0, np.inf, 7.0], [3.0, 4.0, np.nan]])
    found = figures(f, g)
    assert (found.non_finite, found.num_elements, found.rmse) == (2, 3, 0)
    assert is_ruined(found)


@pytest.mark.parametrize(
    ("sqnr_db", "rmse", "ruined"),
    [(9.99, 1.0, True), (10.0, 1.0, False), (None, 0.0, False), (None, 1.0, True)],
)
def test_below_10_db_an_output_is_ruined(sqnr_db: float | None, rmse: float, ruined: bool) -> None:
    one = figures(np.ones((1, 3)), np.ones((1, 3)))
    assert is_ruined(replace(one, sqnr_db=sqnr_db, rmse=rmse)) == ruined


@pytest.mark.parametrize(
    ("shape", "rows"), [((4, 10), 4), ((1, 1, 1, 10), 1), ((1, 5, 10), 0), ((10,), 0), ((4, 1), 0)]
)
def test_top1_is_of_rows(shape: tuple[int, ...], rows: int) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    found = output_metrics(Output("y", compared(values, values)[None]))
    assert found.num_rows == rows
    assert found.top1 == (1.0 if rows else None)


def test_a_sample_that_is_run_again_counts_once_and_samples_are_in_order() -> None:
    runs, ones = OutputRuns(), np.ones((1, 3))
    for sample, error in ((1, 0.5), (0, 0.25), (1, 9.0)):
        runs.note(sample, {"y": (ones, ones + error)})
    (output,) = runs.outputs()
    assert output_metrics(output).worst_sample == 1
    assert pytest.approx(output.sums[:, 6].tolist()) == [0.25, 0.5]


def test_samples_are_read_again_only_if_some_were_not_run() -> None:
    runs, ran = OutputRuns(), []

    def run(number: int, sample: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        ran.append(number)
        return {"y": (np.array([[1.0]]), np.array([[1 + sample]]))}

    runs.note(1, run(1, 0.5))
    (output,) = runs.completed(3, iter([0.25, 0.5, 0.75]), run)
    assert ran == [1, 0, 2]
    assert output.sums[:, 6].tolist() == [0.25, 0.5, 0.75]

    def unread() -> Iterator[float]:
        raise AssertionError("read again")
        yield 0.0

    assert len(runs.completed(3, unread(), run)) == 1
