"""Which channels are looked at, and when their cause is the layer's; where the error began."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from qdebug.measure.metrics import FIGURES, REFERENCE, Metrics
from qdebug.report.diagnosis import Diagnosis, Subject, diagnose_channels, origin
from tests.subjects import OFF, STEP, metrics, offset_of, subject

CHANNELS = 24
CHANCE = 3 + math.sqrt(2 * math.log(CHANNELS))


class Channels:
    """The figures of channels made by hand, as `ChannelMetrics` hands them out."""

    def __init__(self, every: Sequence[Metrics]) -> None:
        self._every = every

    def __len__(self) -> int:
        return len(self._every)

    def scale(self, first: int) -> Any:
        return np.full(len(self), STEP)

    def columns(self) -> Iterator[tuple[int, Any]]:
        yield (
            0,
            {
                name: np.array([getattr(each, name) for each in self._every], np.float64)
                for name in FIGURES
            },
        )


def looked_at(
    faults: dict[int, dict[str, Any]], channels: int = CHANNELS, **whole: Any
) -> tuple[Diagnosis, list[int]]:
    """The diagnosis of a layer with faults in these channels, and the channels looked at."""
    places = []

    def channel(place: int, figures: Metrics) -> Subject:
        places.append(place)
        return Subject(figures, "int8", 8, -128, 127, STEP, 0)

    every = [metrics(**{"num_elements": 1000} | faults.get(k, {})) for k in range(channels)]
    about = {"num_elements": 1000 * channels, "scale": None} | whole
    return diagnose_channels(subject(**about), Channels(every), channel), places  # type: ignore[arg-type]


def bulk_of(magnitude: float, peak: float) -> dict[str, Any]:
    """A thousand floats, a quarter of them not zero."""
    expected = REFERENCE / 2
    rounding = {"rmse_scale": expected, "rmse_scale_expected": expected}
    return rounding | {"float_mean_abs": (magnitude * 249 + peak) / 1000, "float_max": peak}


@pytest.mark.parametrize(
    ("figures", "suspect"),
    [
        ({}, False),
        ({"rmse_scale": REFERENCE + 0.99 * CHANCE * 0.001}, False),
        ({"rmse_scale": REFERENCE + 1.01 * CHANCE * 0.001}, True),
        ({"small": 0.1, "lost": 0.1}, True),
        ({"small": 0.099, "lost": 0.1}, False),
        ({"small": 0.1, "lost": 0.099}, False),
        ({"range_waste": 0.56}, True),
        ({"range_waste": 0.55}, False),
        (bulk_of(0.495, 20.0), True),
        (bulk_of(0.505, 20.0), False),
        (bulk_of(0.4, 10.1) | {"float_min": -1.0}, True),
        (bulk_of(0.4, 9.9) | {"float_min": -1.0}, False),
        (bulk_of(0.4, 9.9) | {"float_min": -10.1}, True),
    ],
)
def test_only_channels_that_may_have_a_cause_are_looked_at(
    figures: dict[str, Any], suspect: bool
) -> None:
    assert looked_at({5: figures})[1] == [5] * suspect


def test_a_layer_whose_channels_are_sound_is_judged_as_a_whole() -> None:
    whole = {"rmse_scale": 1.0, "carried_rmse_scale": 1.0} | OFF
    assert looked_at({}, **whole)[0].cause == "carried"
    assert looked_at({}, non_finite=3)[0].cause == "non-finite"
    # Channels of nothing but NaN among them.
    assert looked_at({3: offset_of(-5.0)}, non_finite=3) == (looked_at({}, non_finite=3)[0], [])


def test_the_worst_channel_is_described_the_first_of_equal_ones() -> None:
    found, places = looked_at({3: offset_of(-2.0), 7: offset_of(-3.0), 9: offset_of(-3.0)})
    assert places == [3, 7, 9]
    assert (found.verdict, found.cause) == ("bad", "bias")
    assert found.evidence == (
        "3 of 24 channels; the worst is 7 (rmse/scale 3.01): the error is -3 steps everywhere; "
        "without it rmse/scale would be 0.289 instead of 3.01"
    )
    assert found.advice == "the zero point is off by +3: -3 would fit"


CLIPPED = {
    "rmse_scale": 2.0,
    "quantizer_rmse_scale": 2.0,
    "clipped": 0.1,
    "clipped_error_share": 1.0,
    **OFF,
}


@pytest.mark.parametrize(("elements", "cause"), [(1900, "clipping"), (2100, "bias")])
def test_of_two_causes_it_is_the_one_with_more_of_the_squared_error(
    elements: int, cause: str
) -> None:
    """Each channel's weight is its elements times what its square exceeds rounding's."""
    clipped = 1000 * (4 - REFERENCE**2)
    steps = math.sqrt(clipped / 2000)
    faults = {2: CLIPPED, 8: offset_of(-steps, num_elements=elements)}
    assert looked_at(faults)[0].cause == cause


@pytest.mark.parametrize(("share", "cause"), [(0.49, "carried"), (0.51, "bias")])
def test_channels_explain_a_layer_by_half_of_its_excess(share: float, cause: str) -> None:
    excess = 9.0 / share * 1000 / (1000 * CHANNELS)
    whole = OFF | {"rmse_scale": math.sqrt(excess + REFERENCE**2), "carried_rmse_scale": 1.0}
    assert looked_at({4: offset_of(-3.0)}, **whole)[0].cause == cause


def test_few_faulty_channels_of_a_layer_that_seems_sound_are_named() -> None:
    assert looked_at({4: offset_of(-3.0)})[0].cause == "bias"
    # It reads less than rounding as a whole.
    assert looked_at({4: offset_of(-3.0)}, rmse_scale=0.1)[0].cause == "bias"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"small": 0.5, "lost": 0.4}, "coarse-scale"),
        ({"range_waste": 0.6, "range_waste_low": 0.6, "float_min": 0.0, "float_max": 1.0},
            "range-waste"),
    ],
)  # fmt: skip
def test_a_scale_that_is_no_error_is_the_layers_in_more_than_half_of_its_channels(
    fault: dict[str, Any], cause: str
) -> None:
    for count, named in ((12, "ok"), (13, cause)):
        found, _ = looked_at(dict.fromkeys(range(count), fault))
        assert found.cause == named
    # Not if the layer has a cause of its own.
    carried = {"rmse_scale": 1.0, "carried_rmse_scale": 1.0} | OFF
    assert looked_at(dict.fromkeys(range(24), fault), **carried)[0].cause == "carried"


# --- where the model's error began ----------------------------------------------------------------


def run(db: float | None, inherited: float, own: float, whole: float | None = None) -> Metrics:
    """A layer beside the float model's own run."""
    return metrics(
        model_sqnr_db=db,
        inherited_rmse_scale=inherited,
        rmse_scale=own,
        model_rmse_scale=math.hypot(inherited, own) if whole is None else whole,
    )


def test_what_is_inherited_and_what_is_made_is_said() -> None:
    chain = [run(20.0, 0.0, 4.0), run(20.0, 4.0, 3.0)]
    assert origin(chain, ["a", "b"], 1) == (
        "against the float model's own run 5 steps: 4 inherited, 3 made here (they add in "
        "squares), seen first at 'a'"
    )


@pytest.mark.parametrize("unknown", ["model_rmse_scale", "inherited_rmse_scale", "rmse_scale",
                                     "model_sqnr_db"])  # fmt: skip
def test_without_a_run_of_the_float_model_nothing_is_said(unknown: str) -> None:
    figures = {"model_rmse_scale": 5.0, "inherited_rmse_scale": 4.0, "model_sqnr_db": 20.0}
    assert origin([metrics(**figures | {"rmse_scale": 3.0} | {unknown: None})], ["a"], 0) is None
    assert origin([None], ["a"], 0) is None


@pytest.mark.parametrize(
    ("whole", "add"), [(4.78, True), (4.75, False), (5.26, True), (5.28, False)]
)
def test_errors_add_in_squares_within_a_tenth(whole: float, add: bool) -> None:
    said = str(origin([run(20.0, 4.0, 3.0, whole)], ["a"], 0))
    assert ("they add in squares" in said) == add


@pytest.mark.parametrize(
    ("before", "inherited", "first"),
    [(22.95, 4.0, True), (23.0, 4.0, True), (23.05, 4.0, False), (20.0, 3.0, False)],
)
def test_the_signal_was_better_where_it_was_three_decibels_better(
    before: float, inherited: float, first: bool
) -> None:
    chain = [run(45.0, 0.0, 0.3), run(before, 0.0, 4.0), run(20.0, inherited, 3.0)]
    said = str(origin(chain, ["input", "a", "b"], 2))
    assert said.endswith("seen first at 'a'") == first
