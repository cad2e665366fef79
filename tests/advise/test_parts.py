"""Parts: outputs that join different magnitudes are judged by their slices."""

import numpy as np
import pytest

from qdebug import api
from qdebug.advise.meter import Meter
from qdebug.advise.parts import Part, parts_of
from qdebug.advise.switchboard import Limits, search
from qdebug.render.measured import notes, table
from qdebug.report.report import Report
from qdebug.sources.open import Options
from tests.boards import Chain

RNG = np.random.default_rng(11)
BOXES = RNG.uniform(0, 320, (4, 1, 4, 100))
SCORES = RNG.uniform(0, 1, (4, 1, 3, 100))


def rounded(x, step):
    return np.rint(x / step) * step


def parts(x, y):
    return parts_of([[each] for each in x], [[each] for each in y])


def test_boxes_do_not_hide_scores():
    x = np.concatenate([BOXES, SCORES], axis=2)
    whole, ruined = parts(x, rounded(x, 1.27))
    assert whole == Part(0, 1, (0, 1, 2, 3))
    assert ruined == Part(0, 1, (4, 5, 6), is_ruined=True)
    np.testing.assert_array_equal(ruined.of(x[0]), SCORES[0])


def test_the_axis_they_are_joined_along_is_found():
    x = np.concatenate([BOXES, SCORES], axis=2).swapaxes(2, 3)
    assert [part.axis for part in parts(x, rounded(x, 1.27))] == [2, 2]


def test_samples_may_have_different_sizes_along_other_axes():
    x = [np.concatenate([BOXES[0], SCORES[0]], axis=1)[:, :, :n] for n in (50, 100)]
    assert len(parts(x, [rounded(each, 1.27) for each in x])) == 2


@pytest.mark.parametrize(
    ("x", "step"),
    [
        (BOXES, 1.27),  # of one magnitude
        (np.concatenate([BOXES, SCORES], axis=2), 0.01),  # fine enough for both
        (np.concatenate([BOXES, SCORES], axis=2), 300),  # ruined as a whole
        (np.concatenate([BOXES, 0 * SCORES], axis=2), 1.27),  # nothing to lose
        (np.concatenate([BOXES, SCORES], axis=2)[..., :1], 1.27),  # a few numbers
    ],
)
def test_other_outputs_stay_whole(x, step):
    assert parts(x, rounded(x, step)) == [Part(0)]


def test_rare_classes_of_a_softmax_are_no_loss():
    x = np.exp(RNG.normal(size=(4, 1, 200, 8)) + 6 * np.eye(8)[0])
    x /= x.sum(axis=-1, keepdims=True)
    y = rounded(x, 1 / 64)
    assert parts(x, y) == [Part(0)]
    assert len(parts(320 * x, 320 * y)) == 2  # the same values, but no probabilities


def test_an_output_that_is_not_finite_stays_whole():
    x = np.concatenate([BOXES, SCORES], axis=2)
    y = rounded(x, 1.27)
    y[0, 0, 0, 0] = np.nan
    assert parts(x, y) == [Part(0)]


class Detector(Chain):
    """`op0` makes boxes, `op1` scores; the last operator joins them under one coarse scale."""

    def _joined(self, left):
        x = [BOXES + 5 * (0 not in left), SCORES]
        joined = np.concatenate(x, axis=2)
        return joined if {1, 2} & set(left) else rounded(joined, 1.27)

    def float_outputs(self, sample):
        return [np.concatenate([BOXES, SCORES], axis=2)[sample]]

    def quantized_outputs(self, sample):
        return [self._joined(())[sample]]

    def run(self, sample, left=(), changes=None):
        return [self._joined(left)[sample]]


def test_the_search_gains_what_the_ruined_part_needs():
    board = Detector([0.1, 0.1], samples=4)
    meter = Meter(board)
    x = np.concatenate([BOXES, SCORES], axis=2)
    y = board._joined(())
    by_hand = [
        10 * np.log10(np.sum(np.square(x[:, :, at])) / np.sum(np.square((y - x)[:, :, at])))
        for at in (slice(0, 4), slice(4, 7))
    ]
    assert meter.decibels(meter.errors()) == pytest.approx(np.mean(by_hand), rel=1e-12)
    found = search(board, Limits(top=1))
    assert [each.layer for each in found.operators] in (["op1:0"], ["op2:0"])
    assert "SQNR of 2 parts of the output (mean) on 4 samples" in " ".join(table(found).split())
    assert notes(found)[0] == (
        "output 'y' is judged in two parts: as quantized, slices 4 to 6 of axis 1 are below 10 dB, "
        "and the others hide it"
    )


def test_a_measured_report_says_so_too(monkeypatch):
    monkeypatch.setattr(api, "open_board", lambda names, options: Detector([0.1, 0.1], samples=4))
    report = api.with_measured(Report(sources=["x"], layers=[]), ["x"], Options())
    assert report.notes == [
        "output 'y' is judged in two parts: as quantized, slices 4 to 6 of axis 1 are below 10 dB, "
        "and the others hide it"
    ]
