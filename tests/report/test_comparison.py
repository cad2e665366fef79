"""Comparisons of two reports: what counts as worse, and what is chance."""

import math

import numpy as np
import pytest

import qdebug
from qdebug.errors import QdebugError
from qdebug.report.comparison import Change, compare, comparison_json, standard_error

X = np.random.default_rng(0).normal(size=20_000)


def pair(x: np.ndarray = X, reach: float = 4.0, noise: int = 0) -> qdebug.Pair:
    found = qdebug.quantize(x, value_range=(-reach, reach))
    if noise:
        off = np.random.default_rng(1).integers(-noise, noise + 1, size=x.shape)
        codes = np.clip(found.codes + off, -128, 127).astype(np.int8)
        return qdebug.Pair(x, codes, found.scale, found.params.zero_point)
    return found


def change(old: qdebug.Pair, new: qdebug.Pair, limit: float = 0.1) -> Change:
    before, after = (qdebug.analyze({"a": each}) for each in (old, new))
    (found,) = compare(before, after, limit).changes
    return found


@pytest.mark.parametrize(
    ("new", "status", "figure"),
    [
        (pair(), "same", "rmse_scale"),
        (pair(noise=1), "worse", "rmse_scale"),
        (pair(reach=8.0), "worse", "sqnr_db"),  # the same in steps, but steps of twice the size
        (pair(reach=4.5), "better", "sqnr_db"),
    ],
)
def test_a_layer_is_judged_in_steps_and_beside_its_signal(
    new: qdebug.Pair, status: str, figure: str
) -> None:
    found = change(pair(reach=8.0), new) if status == "better" else change(pair(), new)
    assert (found.status, found.figure) == (status, figure)


def test_a_change_within_the_limit_is_none() -> None:
    found = change(pair(reach=4.0), pair(reach=4.2))
    assert found.status == "same"
    assert found.ratio == pytest.approx(1.05, abs=0.01)
    assert found.beyond_chance
    assert change(pair(reach=4.0), pair(reach=4.2), limit=0.02).status == "worse"


def test_small_layers_may_change_by_chance() -> None:
    """Ten draws of twenty elements each: large changes, and not one regression."""
    for seed in range(10):
        draws = np.random.default_rng(seed).normal(size=(2, 20))
        found = change(*(pair(x) for x in draws), limit=0.0)
        assert found.status == "same"
        assert not found.beyond_chance


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_the_standard_error_covers_real_draws(kind: str) -> None:
    """RMS of n errors strays by no more than three standard errors in 99.7 % of the draws."""
    rng, n = np.random.default_rng(0), 400
    errors = rng.uniform(-0.5, 0.5, (4000, n)) if kind == "uniform" else rng.normal(size=(4000, n))
    rms = np.sqrt((errors**2).mean(axis=1))
    layer = qdebug.analyze({"a": pair(X[:n])}).layers[0]
    true = math.sqrt(1 / 12) if kind == "uniform" else 1.0
    expected = standard_error(layer, true)
    assert expected == pytest.approx(true / math.sqrt(2 * n))
    assert np.mean(np.abs(rms - true) <= 3 * expected) > 0.996
    spread = {"uniform": math.sqrt(2 / 5), "normal": 1.0}[kind]  # of the kurtosis
    assert rms.std() / expected == pytest.approx(spread, rel=0.1)


def test_new_and_vanished_layers_are_regressions_unless_allowed() -> None:
    before = qdebug.analyze({"a": pair(), "gone": pair()})
    after = qdebug.analyze({"a": pair(), "new": pair()})
    found = qdebug.diff(before, after)
    assert [(each.name, each.status) for each in found.changes] == [
        ("gone", "vanished"), ("new", "new"), ("a", "same"),
    ]  # fmt: skip
    assert [each.name for each in found.regressions()] == ["gone", "new"]
    assert [each.name for each in found.regressions(["new"])] == ["gone"]
    assert not found.regressions(["new", "vanished"])


def test_the_worst_layer_comes_first_and_json_has_all() -> None:
    before = qdebug.analyze({name: pair() for name in "abc"})
    after = qdebug.analyze({"a": pair(), "b": pair(noise=1), "c": pair(noise=3)})
    found = qdebug.diff(before, after, max_regression="5%")
    assert [each.name for each in found.changes] == ["c", "b", "a"]
    values = comparison_json(found)
    assert values["schema"] == "qdebug.diff/1"
    assert values["counts"] == {"worse": 2, "vanished": 0, "new": 0, "better": 0, "same": 1}
    assert values["changes"][0]["new"]["rmse_scale"] > 1.9


def test_reports_of_other_layers_are_refused() -> None:
    with pytest.raises(QdebugError, match="found no layer that is in both reports"):
        qdebug.diff(*(qdebug.analyze({name: pair()}) for name in "ab"))


def test_an_error_that_was_nothing_is_worse_whatever_the_limit() -> None:
    exact = np.arange(-100.0, 100.0)
    found = change(
        qdebug.Pair(exact, exact.astype(np.int8), 1.0),
        qdebug.Pair(exact, (exact + 1).astype(np.int8), 1.0),
    )
    assert (found.status, found.ratio) == ("worse", math.inf)
    report = qdebug.analyze({"a": qdebug.Pair(exact, exact.astype(np.int8), 1.0)})
    off = qdebug.analyze({"a": qdebug.Pair(exact, (exact + 1).astype(np.int8), 1.0)})
    assert comparison_json(compare(report, off))["changes"][0]["ratio"] is None
