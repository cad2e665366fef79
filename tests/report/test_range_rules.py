"""Each rule for what rmse/scale does not show, on both sides of each of its thresholds."""

import math
from dataclasses import astuple
from typing import Any

import pytest

from qdebug.measure.metrics import REFERENCE
from tests.subjects import N, cause, found

# --- rounding alone -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "evidence"),
    [
        ({}, "rmse/scale 0.289, expected 0.289 +- 0.001"),
        ({"rmse_scale_stderr": None}, "rmse/scale 0.289, expected 0.289"),
        ({"rmse_scale_expected": None}, "rmse/scale 0.289, expected 0.289 +- 0.001"),
        ({"rmse_scale": 0.4, "quantizer_rmse_scale": 0.4}, "rmse/scale 0.4, expected 0.289 +- "
            "0.001: still rounding alone, of floats not spread evenly between the codes"),
        ({"num_elements": 16}, "rmse/scale 0.289, expected 0.289 +- 0.001"),
        ({"num_elements": 15}, "rmse/scale 0.289, expected 0.289 +- 0.001; only 15 elements: too "
            "few to say more"),
        ({"num_elements": 1}, "rmse/scale 0.289, expected 0.289 +- 0.001; only 1 element: too few "
            "to say more"),
    ],
)  # fmt: skip
def test_rounding_alone_is_given_with_what_is_expected(
    figures: dict[str, Any], evidence: str
) -> None:
    assert astuple(found(**figures)) == ("ok", "ok", evidence, "")


# --- constant -------------------------------------------------------------------------------------


def test_equal_floats_are_counted() -> None:
    advice = (
        "calibrate and measure with real data; a tensor that is constant by design can be folded"
    )
    for count, value, shown in ((2, 3.0, "3"), (N, -0.0, "0"), (N, -2.5, "-2.5")):
        diagnosis = found(num_elements=count, float_min=value, float_max=value)
        assert astuple(diagnosis) == (
            "warn",
            "constant",
            f"all {count} floats are {shown}",
            advice,
        )


@pytest.mark.parametrize(
    "figures",
    [
        {"num_elements": 1},
        {"float_min": None, "float_mean_abs": None, "range_waste": None},
        {"float_max": 3.1},
        {"kind": "weight"},
        {"kind": "bias"},
    ],
)
def test_one_float_and_constants_of_the_model_are_no_fault(figures: dict[str, Any]) -> None:
    assert cause(**{"float_min": 3.0, "float_max": 3.0} | figures) == "ok"


# --- coarse scale: small floats are gone ----------------------------------------------------------

GONE = {"small": 0.5, "lost": 0.4}
FINER = "use 16 bits or a scale per channel, or leave the operators around it in float"
# A signal that is more exact than 8 bits can be over their range.
EXACT_DB = 20 * math.log10(256 / REFERENCE)


def test_floats_that_become_zero_are_counted() -> None:
    assert astuple(found(**GONE)) == (
        "warn",
        "coarse-scale",
        "40 % of the floats that are not zero become zero: the step is 0.125, the largest "
        "magnitude 16; 50 % lie within four steps of zero",
        FINER,
    )
    assert "the largest magnitude 20;" in found(**GONE, float_max=20.0).evidence


@pytest.mark.parametrize(
    ("figures", "is_gone"),
    [
        ({"lost": 0.15}, True),  # three tenths of the small ones
        ({"lost": 0.149}, False),
        ({"small": 0.2, "lost": 0.1}, True),  # a tenth of all
        ({"small": 0.2, "lost": 0.099}, False),
        ({"small": 0.1, "lost": 0.1}, True),
        ({"small": 0.099, "lost": 0.1}, False),
        ({"lost": None}, False),
        ({"small": None}, False),
        # With few elements: 0.2 * 16 + 4 * sqrt(0.2 * 16) = 10.36 are within chance.
        ({"num_elements": 100, "small": 0.16, "lost": 0.104}, True),
        ({"num_elements": 100, "small": 0.16, "lost": 0.103}, False),
        ({"num_elements": 100, "small": 0.15, "lost": 0.15}, False),
        # Of 400 elements 100 are not zero.
        ({"num_elements": 400, "rmse_scale_expected": REFERENCE / 2, "small": 0.16,
            "lost": 0.104, "rmse_scale": REFERENCE / 2}, True),
        ({"num_elements": 400, "rmse_scale_expected": REFERENCE / 2, "small": 0.16,
            "lost": 0.103, "rmse_scale": REFERENCE / 2}, False),
        ({"num_elements": 16, "small": 1.0, "lost": 1.0}, True),
        ({"num_elements": 15, "small": 1.0, "lost": 1.0}, False),
        ({"scale": None}, False),
        ({"float_mean_abs": None}, False),
        ({"kind": "bias"}, False),
        ({"kind": "weight"}, True),
    ],
)  # fmt: skip
def test_small_floats_are_gone_if_too_many_become_zero(
    figures: dict[str, Any], is_gone: bool
) -> None:
    assert (cause(**GONE | figures) == "coarse-scale") == is_gone


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ({"lost": 0.49}, "warn"),
        ({"lost": 0.5}, "bad"),
        ({"sqnr_db": EXACT_DB - 0.1}, "warn"),
        ({"sqnr_db": EXACT_DB + 0.1}, "bad"),
        ({"sqnr_db": None}, "warn"),
        ({"sqnr_db": EXACT_DB + 0.1, "bits": 9}, "warn"),
    ],
)
def test_information_that_is_gone_is_bad(figures: dict[str, Any], verdict: str) -> None:
    assert found(**GONE | figures).verdict == verdict


def test_a_mask_is_to_be_clipped_in_the_float_model() -> None:
    exact = GONE | {"sqnr_db": 90.0}
    assert found(**exact, float_min=-1e4, float_max=3.0).advice == (
        "in the float model, clip large values that carry no information, such as a mask's -1e+04; "
        "or leave the operators around it in float"
    )
    assert found(**exact, float_max=1e4).advice == FINER
    assert found(**GONE, float_min=-1e4).advice == FINER


# --- coarse scale: the bulk lies within a few steps -----------------------------------------------


def bulk_of(magnitude: float, peak: float, count: int = N, **more: Any) -> dict[str, Any]:
    """Floats of this mean magnitude, and one that is `peak`."""
    mean_abs = (magnitude * (count - 1) + peak) / count
    return {"num_elements": count, "float_mean_abs": mean_abs, "float_min": -peak} | more


def test_the_bulk_is_measured_in_steps_and_decibels() -> None:
    assert astuple(found(**bulk_of(0.25, 16.0))) == (
        "warn",
        "coarse-scale",
        "the largest float is 16, 64 times the mean magnitude of the others, 0.25: 2 steps, an "
        f"SQNR of about {20 * math.log10(2 / REFERENCE):.3g} dB for the bulk",
        "use 16 bits or a scale per channel, or exclude outliers that do not matter from the range",
    )
    nothing = found(**bulk_of(0.0, 16.0)).evidence
    assert "16, many times the mean magnitude of the others, 0: 0 steps" in nothing
    assert f"about {20 * math.log10(1e-9 / REFERENCE):.3g} dB" in nothing


@pytest.mark.parametrize(
    ("figures", "is_coarse"),
    [
        (bulk_of(0.495, 16.0), True),  # four steps are 0.5
        (bulk_of(0.505, 16.0), False),
        (bulk_of(0.5, 16.5, 16), False),
        (bulk_of(0.4, 10.1, float_max=5.0), True),
        (bulk_of(0.4, 9.9, float_max=5.0), False),
        (bulk_of(0.25, 6.25, 16, float_max=5.0), False),  # 25 times, exactly
        (bulk_of(0.4, 9.9, float_max=10.1), True),
        (bulk_of(0.25, 16.0, 15), False),
        (bulk_of(0.25, 16.0, 16), True),
    ],
)
def test_a_scale_is_coarse_below_four_steps_and_beyond_25_times_the_bulk(
    figures: dict[str, Any], is_coarse: bool
) -> None:
    assert (cause(**figures) == "coarse-scale") == is_coarse


@pytest.mark.parametrize(("not_zero", "is_coarse"), [(1.5, False), (2.0, True), (3.0, True)])
def test_one_float_beside_zeros_is_no_outlier(not_zero: float, is_coarse: bool) -> None:
    expected = REFERENCE * math.sqrt(not_zero / N)
    sound = {"rmse_scale": expected, "rmse_scale_expected": expected}
    mean_abs = (16.0 + 0.25 * (not_zero - 1)) / N
    assert (cause(**sound, float_mean_abs=mean_abs) == "coarse-scale") == is_coarse
    if is_coarse:
        assert "the others, 0.25: 2 steps" in found(**sound, float_mean_abs=mean_abs).evidence


# --- probabilities --------------------------------------------------------------------------------

SHARES = {"float_min": 0.0, "float_max": 1.0, "float_mean": 0.02, "float_mean_abs": 0.02}


@pytest.mark.parametrize(
    ("figures", "are_probabilities"),
    [
        ({}, False),
        *(
            ({"op": op}, True)
            for op in ("Softmax", "SOFTMAX", "Sigmoid", "LOGISTIC", "HardSigmoid")
        ),
        ({"op": "CONV_2D"}, False),
        ({"shape": (7, 50)}, True),
        ({"shape": (50, 7)}, True),
        ({"shape": (7, 49)}, False),
        ({"shape": (7, 50), "float_mean": (1 + 0.00095) / 50}, True),
        ({"shape": (7, 50), "float_mean": (1 + 0.00105) / 50}, False),
        ({"shape": (7, 50), "float_mean": (1 - 0.00095) / 50}, True),
        ({"shape": (7, 50), "float_mean": (1 - 0.00105) / 50}, False),
        ({"shape": (1, 7), "float_mean": 1.0}, False),
        ({"shape": (2, 7), "float_mean": 0.5}, True),
        ({"op": "SOFTMAX", "float_max": 1.00095}, True),
        ({"op": "SOFTMAX", "float_max": 1.00105}, False),
        ({"op": "SOFTMAX", "float_min": -0.001}, False),
        ({"op": "SOFTMAX", "float_mean": None}, False),
    ],
)
def test_small_probabilities_may_become_zero(
    figures: dict[str, Any], are_probabilities: bool
) -> None:
    assert (cause(**GONE | SHARES | figures) == "ok") == are_probabilities


# --- range waste ----------------------------------------------------------------------------------

WASTE = {
    "zero_point": -128,
    "float_min": 0.0,
    "float_max": 14.0,
    "range_waste": 0.6,
    "range_waste_low": 0.2,
    "range_waste_high": 0.4,
}


def test_waste_is_given_for_both_ends() -> None:
    assert astuple(found(**WASTE)) == (
        "warn",
        "range-waste",
        "60 % of the codes are never used: 20 % at the lower end, 40 % at the upper",
        "calibrate with data as the model meets it: for [0, 14] the scale could be 0.0549 instead "
        "of 0.125",
    )


@pytest.mark.parametrize(
    ("figures", "is_waste"),
    [
        ({"range_waste": 0.551}, True),
        ({"range_waste": 0.55}, False),
        ({"range_waste": None}, False),
        ({"scale": None}, False),
        ({"num_elements": 16}, True),
        ({"num_elements": 15}, False),
        # 0.45 of the scale is that of [0, 14.34]: 255 steps.
        ({"float_max": 14.3}, True),
        ({"float_max": 14.4}, False),
        # A symmetric range has but 127 steps for it.
        ({"float_max": 7.1, "zero_point": 0}, True),
        ({"float_max": 7.2, "zero_point": 0}, False),
    ],
)
def test_more_than_half_of_the_codes_must_be_unused_for_no_reason(
    figures: dict[str, Any], is_waste: bool
) -> None:
    assert (cause(**WASTE | figures) == "range-waste") == is_waste
