"""The rules for codes that are off by a constant, or on another line: both sides of a threshold."""

import math
from dataclasses import astuple
from typing import Any

import pytest

from tests.subjects import LINE, OFF, REFERENCE, ROUNDING, STEP, cause, found, offset_of

# --- codes read as the other type ----------------------------------------------------------------

WHOLE = {"max_abs_error_scale": 256.0, "mean_error_scale": -64.0, "rmse_scale": 128.0}
HALF = {"max_abs_error_scale": 128.0, "mean_error_scale": 100.0, "rmse_scale": 128.0}


def test_wrapped_codes_are_named_with_their_type() -> None:
    assert astuple(found(**WHOLE)) == (
        "bad",
        "bias",
        "25 % of the codes are 256 steps off, a whole turn of 8 bits",
        "the codes were most likely uint8, read as int8: read them as uint8",
    )
    unsigned = {"dtype": "uint8", "qmin": 0, "qmax": 255, "zero_point": 128}
    assert astuple(found(**HALF, **unsigned)) == (
        "bad",
        "bias",
        "100 % of the codes are 128 steps off, half a turn of 8 bits",
        "the codes were most likely int8, read as uint8: read them as int8",
    )


@pytest.mark.parametrize(
    ("figures", "wrapped"),
    [
        *((WHOLE | {"max_abs_error_scale": most}, True) for most in (255.0, 257.0)),
        *((WHOLE | {"max_abs_error_scale": most}, False) for most in (254.9, 257.1)),
        *((WHOLE | {"mean_error_scale": 64 * by}, True) for by in (0.981, 1.019, -1.019)),
        *((WHOLE | {"mean_error_scale": 64 * by}, False) for by in (0.979, 1.021, -1.021)),
        *((HALF | {"max_abs_error_scale": most}, True) for most in (127.0, 129.0)),
        *((HALF | {"max_abs_error_scale": most}, False) for most in (126.9, 129.1)),
        *((HALF | {"rmse_scale": rmse}, True) for rmse in (127.0, 129.0)),
        *((HALF | {"rmse_scale": rmse}, False) for rmse in (126.9, 129.1)),
        (WHOLE | {"max_abs_error_scale": None}, False),
        (WHOLE | {"mean_error_scale": None}, False),
        (WHOLE | {"quantizer_rmse_scale": 128.0}, False),  # clipping can be that large, too
    ],
)
def test_wrapped_codes_are_off_by_a_turn_or_half_of_one(
    figures: dict[str, Any], wrapped: bool
) -> None:
    assert ("turn of 8 bits" in found(**figures).evidence) == wrapped


# --- bias ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "is_bias"),
    [
        (offset_of(0.24), False),
        (offset_of(0.25), True),
        (offset_of(-0.24), False),
        (offset_of(-0.26), True),
        (offset_of(5.0, left=0.98), True),
        (offset_of(5.0, left=1.02), False),
        (OFF | {"rmse_scale": 2.125, "mean_error_scale": 1.875}, True),  # leaves 1 exactly
        (offset_of(0.67, left=1 - 0.67**2), False),  # explains 49 % of the excess
        (offset_of(0.69, left=1 - 0.69**2), True),  # 52 %
        (offset_of(5.0) | {"mean_error_scale": None}, False),
    ],
)
def test_an_offset_of_a_quarter_of_a_step_that_explains_half_is_a_bias(
    figures: dict[str, Any], is_bias: bool
) -> None:
    assert (cause(**figures) == "bias") == is_bias


@pytest.mark.parametrize(
    ("offset", "advice"),
    [
        (-0.5, "the codes are rounded down: round to the nearest instead of truncating"),
        (0.5, "the codes are rounded up: round to the nearest instead of truncating"),
        (0.3, "the codes are rounded up: round to the nearest instead of truncating"),
        (-0.74, "the codes are rounded down: round to the nearest instead of truncating"),
        (-0.75, "the zero point is off by +1: -1 would fit"),
        (0.76, "the zero point is off by -1: 1 would fit"),
        (1.5, "the zero point is off by -2: 2 would fit"),
        (3.0, "the zero point is off by -3: 3 would fit"),
        (-3.0, "the zero point is off by +3: -3 would fit"),
    ],
)
def test_half_steps_are_rounding_and_whole_ones_the_zero_point(offset: float, advice: str) -> None:
    diagnosis = found(**offset_of(offset))
    assert diagnosis.evidence == (
        f"the error is {offset:+.3g} steps everywhere; without it rmse/scale would be 0.289 "
        f"instead of {math.sqrt(offset**2 + ROUNDING):.3g}"
    )
    assert diagnosis.advice == advice


@pytest.mark.parametrize(
    ("zero_point", "offset", "advice"),
    [
        (-127, -1, "the zero point is off by +1: -128 would fit"),
        (126, 1, "the zero point is off by -1: 127 would fit"),
        (None, -3, "the recorded zero points are off by +3"),
        (-128, -1, "the codes are 1 too low, and no zero point can correct that (-129 is outside "
            "-128 to 127): quantize the floats again, with scale 0.124 and zero point 2 for "
            "[-16, 15.5]"),
        (127, 2, "the codes are 2 too high, and no zero point can correct that (129 is outside "
            "-128 to 127): quantize the floats again, with scale 0.124 and zero point 2 for "
            "[-16, 15.5]"),
    ],
)  # fmt: skip
def test_the_zero_point_that_would_fit_is_a_code(
    zero_point: int | None, offset: int, advice: str
) -> None:
    assert found(**offset_of(offset), zero_point=zero_point).advice == advice


@pytest.mark.parametrize("unknown", ["float_min", "float_max"])
def test_no_range_is_advised_where_it_is_unknown(unknown: str) -> None:
    figures = offset_of(-1.0) | {unknown: None}
    assert found(**figures, zero_point=-128).advice.endswith("quantize the floats again")


def test_symmetric_codes_are_to_be_quantized_again_by_their_scheme() -> None:
    """Symmetric codes stay so, in the range that they may use."""
    about = {"zero_point": 0, "qmin": -127, "qmax": 127, "narrow_range": True}
    advice = found(**offset_of(-200.0), **about).advice
    assert advice.endswith("with scale 0.126 and zero point 0 for [-16, 15.5]")


def test_exact_zeros_dilute_an_offset() -> None:
    """Three quarters are zeros, which stay exact; the others are half a step off."""
    diluted = {
        "rmse_scale": math.sqrt((0.25 + ROUNDING) / 4),
        "rmse_scale_expected": REFERENCE / 2,
        "quantizer_rmse_scale": REFERENCE / 2,
    }
    assert found(**OFF, **diluted, mean_error_scale=-0.125).evidence == (
        "the error is -0.5 steps wherever x is not zero; without it rmse/scale would be 0.144 "
        "instead of 0.289"
    )
    outward = found(**OFF, **diluted, outward_error_scale=-0.125)
    assert outward.evidence == (
        "the error is -0.5 steps away from zero; without it rmse/scale would be 0.144 instead of "
        "0.289"
    )
    assert outward.advice == (
        "the codes are truncated toward zero, as a cast does: round to the nearest"
    )
    away = found(**OFF, **diluted, outward_error_scale=0.125)
    assert away.advice == "the codes are rounded up: round to the nearest instead of truncating"
    assert cause(**OFF, **diluted, outward_error_scale=None) == "carried"


@pytest.mark.parametrize(
    ("figures", "is_bias"),
    [
        ({"num_elements": 4, "outward_error_scale": 0.5}, True),
        ({"num_elements": 3, "outward_error_scale": 0.5}, False),
        # The mean of an offset does not exceed its root mean square.
        ({"rmse_scale": 0.5, "outward_error_scale": 0.5}, True),
        ({"rmse_scale": 0.5, "outward_error_scale": 0.51}, False),
    ],
)
def test_an_offset_away_from_zero_must_be_possible(figures: dict[str, Any], is_bias: bool) -> None:
    figures = OFF | {"rmse_scale": math.sqrt(0.25 + ROUNDING)} | figures
    assert (cause(**figures) == "bias") == is_bias


def test_the_standard_deviation_has_the_digits_that_a_difference_of_squares_has_not() -> None:
    """A share of 1e-6 of the squares: below it the standard deviation is taken."""
    for left, said in ((0.0095, "0.3"), (0.0105, "0.102")):
        figures = offset_of(100.0, left=left, stddev=0.3 * STEP)
        assert f"rmse/scale would be {said} " in found(**figures).evidence
    figures = offset_of(100.0, left=0.0095)
    assert "would be 0.0975 " in found(**figures | {"stddev": None}).evidence
    assert "would be 0.0975 " in found(**figures, scale=None, zero_point=None).evidence


# --- wrong scale ---------------------------------------------------------------------------------


def test_a_line_is_given_beside_what_is_recorded() -> None:
    assert astuple(found(**LINE)) == (
        "bad",
        "wrong-scale",
        "the codes lie on a line with scale 0.25 and zero point 3.2, 0.29 of its steps from the "
        "floats; recorded are 0.125 and 0",
        "record scale 0.25 and zero point 3, or quantize with the recorded scale",
    )
    exact = found(**LINE | {"fit_scale": 0.123456789})
    assert exact.advice.startswith("record scale 0.123457 and")


@pytest.mark.parametrize(("zero_point", "fits"), [(-129, 0), (-128, 1), (127, 1), (128, 0)])
def test_the_zero_point_of_the_line_must_be_a_code(zero_point: int, fits: bool) -> None:
    advice = found(**LINE | {"fit_zero_point": float(zero_point)}).advice
    if fits:
        assert f"and zero point {zero_point}, or" in advice
    else:
        assert advice == (
            "quantize with the recorded scale: zero point "
            f"{zero_point} of that line is outside -128 to 127"
        )


@pytest.mark.parametrize(
    ("figures", "is_line"),
    [
        ({"fit_rmse_scale": 1.0}, True),
        ({"fit_rmse_scale": 1.01}, False),
        ({"fit_scale": -0.25}, False),
        ({"fit_scale": 0.0}, False),
        ({"fit_scale": None}, False),
        ({"fit_rmse_scale": None}, False),
        ({"mean_error_scale": None}, False),
        # The line leaves 0.58^2; half of what the offset leaves is a little more, or less.
        ({"mean_error_scale": math.sqrt(25 - 2.06 * 0.58**2)}, True),
        ({"mean_error_scale": math.sqrt(25 - 1.94 * 0.58**2)}, False),
        # It leaves 1/4, and the offset 1/2.
        ({"rmse_scale": 1.125, "mean_error_scale": 0.875, "fit_scale": STEP,
            "fit_rmse_scale": 0.5}, False),
    ],
)  # fmt: skip
def test_a_line_must_leave_less_than_half_of_what_an_offset_leaves(
    figures: dict[str, Any], is_line: bool
) -> None:
    assert (cause(**LINE | figures) == "wrong-scale") == is_line


def test_codes_with_a_scale_for_each_channel_have_no_line() -> None:
    assert cause(**LINE, scale=None) != "wrong-scale"
