"""The search for operators to leave in float, on boards whose best sets are known."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.advise.meter import LEAST_DB, MOST_DB, Gain, Meter, OutOfTimeError
from qdebug.advise.switchboard import Limits, alone, search
from qdebug.errors import QdebugError
from qdebug.run.board import Board
from tests.boards import Chain


def places(board, found):
    return {board.operators.index(operator) for operator in found.operators}


# --- the meter ----------------------------------------------------------------------------------


def test_the_figure_is_the_sqnr_of_all_samples_together():
    board = Chain([0.1, 0.2], [0.0, 0.3, 0.0])
    meter = Meter(board)
    x = np.concatenate([board.float_outputs(s)[0] for s in range(8)])
    y = np.concatenate([board.quantized_outputs(s)[0] for s in range(8)])
    by_hand = 10 * math.log10(np.sum(x**2) / np.sum((y - x) ** 2))
    assert meter.decibels(meter.errors()) == pytest.approx(by_hand, rel=1e-12)
    assert meter.decibels(meter.errors([0, 1, 2])) == MOST_DB


def test_the_fake_is_a_board():
    board: Board = Chain([1.0])
    assert board.num_samples == 8


def test_a_set_is_run_once_on_each_sample():
    board = Chain([0.1, 0.2])
    meter = Meter(board)
    for _ in range(3):
        meter.errors([1])
        meter.errors([1], samples=[0, 3])
    assert board.runs == meter.runs == 16


def test_several_outputs_count_alike_and_one_that_is_exact_not_at_all():
    class Three(Chain):
        outputs = property(lambda self: ["a", "exact", "b"], lambda self, value: None)

        def float_outputs(self, sample):
            return [1000 * self._x[sample], self._x[sample], self._x[sample]]

        def run(self, sample, left=(), changes=None):
            (y,) = super().run(sample, left)
            return [1000 * y, self._x[sample], 2 * y - self._x[sample]]

    one, three = Meter(Chain([0.1])), Meter(Three([0.1]))
    # The third output has twice the error: 6.02 dB less.
    expected = one.decibels(one.errors()) - 10 * math.log10(4) / 2
    assert three.decibels(three.errors()) == pytest.approx(expected)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_standard_error_is_the_jackknifes(count, seed):
    rng = np.random.default_rng(seed)
    meter = Meter(Chain([0.1], samples=count, size=8))
    before, after = rng.uniform(1, 5, (2, count, 1))
    gains = [
        10 * math.log10((before.sum() - before[i, 0]) / (after.sum() - after[i, 0]))
        for i in range(count)
    ]
    expected = math.sqrt((count - 1) / count * sum((g - np.mean(gains)) ** 2 for g in gains))
    gain = meter.gain(before, after)
    assert gain.stderr_db == pytest.approx(expected, rel=1e-6)
    assert gain.db == pytest.approx(10 * math.log10(before.sum() / after.sum()))


@pytest.mark.slow
def test_the_standard_error_is_about_the_spread_of_gains_over_other_samples():
    gains, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        meter = METER
        noise = rng.gamma(4, size=(16, 1))
        gain = meter.gain(noise + rng.gamma(2, size=(16, 1)), noise)
        gains.append(gain.db)
        errors.append(gain.stderr_db)
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.15)


METER = Meter(Chain([0.1], samples=16, size=8))


def test_one_sample_has_no_standard_error():
    meter = Meter(Chain([0.1, 0.1], samples=1))
    assert meter.gain(meter.errors(), meter.errors([0, 1])).stderr_db is None


@pytest.mark.parametrize(
    ("gain", "real"),
    [
        (Gain(1.0, 0.4, 1.1), True),
        (Gain(1.0, 0.4, 0.9), False),  # a few samples that hold most of the error
        (Gain(1.0, 0.6, 1.9), False),  # within two standard errors
        (Gain(0.04, 0.001), False),  # too small to matter
        (Gain(-1.0, 0.1), False),
        (Gain(1.0, None), True),
        (Gain(1.0, 0.6, 2.5), True),  # on nearly every sample
        (Gain(0.04, 0.6, 2.5), False),
    ],
)
def test_a_gain_counts_beyond_chance_only(gain, real):
    assert gain.is_real is real


def test_outputs_that_are_not_finite_when_quantized_are_lost_and_no_failure():
    class Breaking(Chain):
        def run(self, sample, left=(), changes=None):
            (y,) = super().run(sample, left)
            return [y if 1 in left else np.where(y > 0, np.nan, np.inf)]

    board = Breaking([0.1, 0.1])
    meter = Meter(board)
    assert meter.decibels(meter.errors()) == LEAST_DB
    assert places(board, search(board, Limits(top=1))) == {1}


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "output 'y': found NaN or Inf in the float model's own run"), (0.0, "only zeros")],
)
def test_a_float_model_without_usable_outputs_is_refused(value, said):
    class Broken(Chain):
        def float_outputs(self, sample):
            return [np.full(4096, value)]

    with pytest.raises(QdebugError, match=said):
        Meter(Broken([0.1]))


# --- the search ---------------------------------------------------------------------------------


def test_two_neighbours_are_found_that_gain_nothing_one_by_one():
    board = Chain([0.01, 0.01, 1.0, 0.01])
    found = search(board, Limits(top=2))
    assert places(board, found) == {2, 3}
    assert len(found.steps) == 1
    assert found.best_single.gain.db == pytest.approx(0, abs=0.1)


def test_a_scope_is_found_that_gains_only_as_a_whole():
    """Its tensors all carry as much, so no two neighbours stand out; those outside carry more."""
    names = [f"net/{'norm' if 3 <= place < 9 else 'conv'}/{place}" for place in range(14)]
    tensors = [1.0 if 3 <= place < 8 else 1e-4 for place in range(13)]

    class Whole(Chain):
        """One tensor left quantized spoils it all."""

        def _output(self, sample, left):
            part = left if set(range(3, 9)) <= left else left - set(range(3, 9))
            return super()._output(sample, part)

    board = Whole(tensors, names=names)
    found = search(board, Limits(budget=0.9))
    assert places(board, found) == set(range(3, 9))
    smaller = search(board, Limits(top=4))
    assert smaller.larger is not None
    assert len(smaller.larger.operators) == 6
    assert smaller.larger.gain.db > 10


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]))
@settings(max_examples=12, deadline=None)
def test_nothing_simpler_is_better(seed, top):
    """Not the best single operators put together, not the best of 20 random draws."""
    rng = np.random.default_rng(seed)
    board = Chain(rng.gamma(0.3, size=11), rng.gamma(0.3, size=12), size=64)
    found = search(board, Limits(top=top))
    meter = Meter(board)
    before = meter.errors()

    def gain(left):
        return meter.gain(before, meter.errors(left)).db

    singles = sorted(range(12), key=lambda place: -gain([place]))[:top]
    draws = [rng.choice(12, top, replace=False).tolist() for _ in range(20)]
    reached = found.steps[-1].total.db if found.steps else 0.0
    assert reached >= max(gain(singles), *map(gain, draws)) - 0.1
    assert len(found.operators) <= top


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_three_operators_gain_nearly_as_much_as_the_best_three(seed):
    rng = np.random.default_rng(seed)
    board = Chain(rng.gamma(0.3, size=7), rng.gamma(0.3, size=8), size=64)
    meter = Meter(board)
    best = max(
        meter.gain(meter.errors(), meter.errors(left)).db
        for left in itertools.combinations(range(8), 3)
    )
    assert search(board, Limits(top=3)).steps[-1].total.db >= 0.8 * best


def test_each_step_says_what_it_gains_and_all_so_far():
    board = Chain([0.0] * 5, [1.0, 0.0, 3.0, 0.0, 2.0, 0.0])
    found = search(board, Limits(top=3))
    assert [step.operators[0].layer for step in found.steps] == ["op2:0", "op4:0", "op0:0"]
    totals = [step.total.db for step in found.steps]
    gains = [step.gain.db for step in found.steps]
    assert np.cumsum(gains) == pytest.approx(totals)
    assert totals[0] == pytest.approx(10 * math.log10(6 / 3), abs=0.5)
    assert found.all_off_db == MOST_DB
    assert found.own_db == found.all_on_db


@pytest.mark.slow
def test_noise_is_called_chance_and_nothing_is_suggested_for_it():
    """Every operator's gain is its spread over the samples only."""
    suggested = 0
    for seed in range(10):

        class Noisy(Chain):
            def _output(self, sample, left, seed=seed):
                rng = np.random.default_rng([seed, sample, *sorted(left)])
                return self._x[sample] + rng.gamma(1.0) * self._noise[0]

        suggested += bool(search(Noisy([0.1] * 9, samples=16, size=8), Limits(top=3)).steps)
    assert suggested <= 2  # at two standard errors, one in forty tries


def test_the_target_and_the_budget_end_the_search():
    board = Chain([0.0] * 7, [8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.1])
    assert len(search(board, Limits(budget=0.4)).operators) == 1
    assert len(search(board, Limits(budget=0.65)).operators) == 2
    found = search(board, Limits(target_db=0.0))
    assert found.all_on_db + found.steps[-1].total.db >= 0
    assert found.all_on_db + found.steps[-2].total.db < 0
    assert found.enough
    assert search(board, Limits(target_db=-30.0)).steps == []


def test_an_exact_model_needs_nothing():
    found = search(Chain([0.0, 0.0]), Limits())
    assert found.steps == []
    assert found.own_db == MOST_DB


# --- what it costs ------------------------------------------------------------------------------


def test_a_leave_one_out_pass_costs_two_runs_an_operator_and_sample():
    board = Chain([0.1] * 20, [0.1] * 21)
    meter = Meter(board)
    before = board.runs
    for place in range(21):
        alone(meter, place)
    assert board.runs - before == 2 * 21 * 8


def test_what_is_measured_of_one_operator():
    board = Chain([0.0, 0.0], [3.0, 1.0, 0.0])
    meter = Meter(board)
    one = alone(meter, 0)
    assert one.gain_db == pytest.approx(10 * math.log10(4 / 1), abs=0.5)
    assert one.alone_db == pytest.approx(-10 * math.log10(3), abs=0.2)
    assert alone(meter, 2).alone_db == MOST_DB


def test_the_time_limit_ends_the_search_with_the_best_so_far():
    board = Chain([0.0] * 40, [5.0, *[0.01] * 40])
    clock = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qdebug.advise.meter.time.monotonic", lambda: float(next(clock)))
        found = search(board, Limits(top=5), time_limit=250)
    assert found.timed_out
    assert places(board, found) == {0}
    assert board.runs < 400


def test_a_short_time_suffices_to_find_what_matters_at_the_end_of_the_model():
    board = Chain([0.0] * 159, [*[0.01] * 159, 5.0], size=16)
    clock = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qdebug.advise.meter.time.monotonic", lambda: float(next(clock)))
        found = search(board, Limits(top=3), time_limit=200)  # 16 segments, 4 samples each: 64
    assert found.timed_out
    assert places(board, found) == {159}


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([None, 1, 4]))
@settings(max_examples=15, deadline=None)
def test_a_time_limit_that_is_not_reached_changes_nothing_but_the_number_of_runs(seed, count, top):
    class Tied(Chain):
        """Operators of the same power gain exactly the same."""

        def _output(self, sample, left):
            power = sum(w for place, w in enumerate(self._weights) if place not in left)
            return self._x[sample] + np.sqrt(power) * self._noise[0]

    weights = np.random.default_rng(seed).integers(0, 4, count)
    board = Tied([0.0] * (count - 1), weights, size=16)
    limited, free = (search(board, Limits(top), time_limit=limit) for limit in (1e6, None))
    assert replace(limited, runs=free.runs) == free


def test_out_of_time_is_told_to_callers():
    meter = Meter(Chain([0.1]))
    meter.limit(-1.0)
    with pytest.raises(OutOfTimeError):
        meter.errors([0])
    meter.errors()  # known before


def test_progress_never_exceeds_the_plan():
    seen = []
    search(Chain([0.3] * 6), Limits(), advance=lambda *amounts: seen.append(amounts))
    assert seen
    assert all(0 < done <= total for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
