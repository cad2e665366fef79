"""Each rule for an error above rounding, on both sides of each of its thresholds."""

import math
from dataclasses import astuple
from typing import Any

import pytest

from qdebug.report.diagnosis import diagnose, unreadable
from tests.subjects import LINE, OFF, REFERENCE, ROUNDING, STEP, N, cause, found, offset_of, subject


def test_what_is_no_number_is_counted() -> None:
    assert astuple(found(non_finite=2, num_elements=98, rmse_scale=9.0)) == (
        "bad",
        "non-finite",
        "2 of 100 floats are NaN or infinite; the other figures exclude them",
        "find the operator that makes them in the float model: quantization cannot repair it",
    )


def test_layers_that_cannot_be_judged_say_so() -> None:
    assert astuple(found(num_elements=0, rmse_scale=None)) == ("ok", "ok", "no elements", "")
    assert astuple(found(rmse_scale=None)) == (
        "warn",
        None,
        "rmse/scale is unknown: finding the cause needs the tensors",
        "",
    )
    assert astuple(unreadable("no scale")) == (
        "unreadable",
        "unreadable",
        "no scale",
        "write the layer's arrays again; docs/pair-file.md has the format",
    )


@pytest.mark.parametrize(
    ("of", "stderr", "excess"),
    [
        (1, 0.0, 0.05 * REFERENCE),
        (1, None, 0.05 * REFERENCE),
        (1, 0.02, 3 * 0.02),
        (100, 0.02, (3 + math.sqrt(2 * math.log(100))) * 0.02),
    ],
)
def test_chance_explains_five_percent_or_three_standard_errors(
    of: int, stderr: float | None, excess: float
) -> None:
    figures = OFF | {"rmse_scale_stderr": stderr}
    below, above = (
        diagnose(subject(**figures, rmse_scale=REFERENCE + by * excess), of) for by in (0.99, 1.01)
    )
    assert (below.cause, above.cause) == ("ok", "carried")


def test_an_unknown_share_of_zeros_is_taken_for_none() -> None:
    assert cause(rmse_scale_expected=None, rmse_scale=REFERENCE * 1.04, **OFF) == "ok"
    assert cause(rmse_scale_expected=None, rmse_scale=REFERENCE * 1.06, **OFF) == "carried"


# --- whose error it is ---------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "named"), [(0.5005, False), (0.501, True), (0.5015, True)])
def test_codes_within_half_a_step_are_the_best_ones(most: float, named: bool) -> None:
    assert (cause(**offset_of(-0.5) | {"max_abs_error_scale": most}) == "bias") == named


@pytest.mark.parametrize(("share", "named"), [(0.24, False), (0.26, True)])
def test_a_quarter_of_the_excess_must_be_of_other_codes(share: float, named: bool) -> None:
    """The error is one step; a part of it is what the quantizer makes itself."""
    own = math.sqrt(1 - share * (1 - ROUNDING))
    figures = offset_of(-0.9, left=1 - 0.81, quantizer_rmse_scale=own)
    assert (cause(**figures) == "bias") == named
    line = {"fit_scale": 2 * STEP, "fit_zero_point": 0.0, "fit_rmse_scale": 0.1}
    figures = OFF | {"rmse_scale": 1.0, "quantizer_rmse_scale": own} | line
    assert (cause(**figures) == "wrong-scale") == named


def test_unknown_parts_of_the_error_do_not_hide_a_bias() -> None:
    for unknown in ("quantizer_rmse_scale", "max_abs_error_scale"):
        assert cause(**offset_of(-2.0) | {unknown: None}) == "bias"


# --- clipping ------------------------------------------------------------------------------------

CLIPPED = {
    "rmse_scale": 1.0,
    "quantizer_rmse_scale": 1.0,
    "max_abs_error_scale": 9.0,
    "clipped": 0.125,
    "clipped_error_share": 0.9,
    "float_max": 17.0,
}


@pytest.mark.parametrize(
    ("figures", "where", "advice"),
    [
        ({}, "above 15.9, the largest representable value", "to [-16, 17]: scale 0.134"),
        ({"float_min": -18.0, "float_max": 15.0}, "below -16, the least representable value",
            "to [-18, 15.9]: scale 0.142"),
        ({"float_min": -18.0}, "above 15.9, the largest representable value or below -16, the "
            "least representable value", "to [-18, 17]: scale 0.142"),
        # Half a step beyond the range is not clipped.
        ({"float_min": -16.0625, "float_max": 15.9375}, "outside the representable range",
            "to [-16.1, 15.9]: scale 0.126"),
        ({"zero_point": 1}, "above 15.8, the largest representable value",
            "to [-16.1, 17]: scale 0.13"),
    ],
)  # fmt: skip
def test_the_end_of_the_range_that_is_exceeded_is_named(
    figures: dict[str, Any], where: str, advice: str
) -> None:
    assert astuple(found(**CLIPPED | figures)) == (
        "bad",
        "clipping",
        f"12.5 % of the floats lie {where}; they make 90 % of this quantizer's error",
        f"calibrate with more data, or widen the range {advice}",
    )


def test_no_range_is_named_where_each_channel_has_its_own() -> None:
    for unknown in ({"scale": None}, {"zero_point": None}):
        diagnosis = found(**CLIPPED, **unknown)
        assert "12.5 % of the floats lie outside the representable range;" in diagnosis.evidence
        assert diagnosis.advice == "calibrate with more data, or widen the range"


def test_a_clipped_bias_needs_larger_weights() -> None:
    assert found(**CLIPPED, kind="bias").advice == (
        "the bias's scale 0.125 is the input's scale times the weights', and the weights are "
        "nearly zero here: give them a scale no smaller than that of the other channels, or leave "
        "the operator in float"
    )
    assert "widen the range" in found(**CLIPPED, kind="bias", scale=None).advice
    assert "widen the range" in found(**CLIPPED, kind="weight").advice


@pytest.mark.parametrize(
    ("figures", "is_clipping"),
    [
        ({"clipped_error_share": 0.49}, False),
        ({"clipped_error_share": 0.5}, True),
        ({"clipped_error_share": None}, False),
        ({"clipped": 0.0}, False),
        ({"clipped": None}, False),
        ({"quantizer_rmse_scale": None}, False),
        ({"quantizer_rmse_scale": math.sqrt(ROUNDING + 0.49 * (1 - ROUNDING))}, False),
        ({"quantizer_rmse_scale": math.sqrt(ROUNDING + 0.51 * (1 - ROUNDING))}, True),
    ],
)
def test_clipping_must_make_half_of_the_error(figures: dict[str, Any], is_clipping: bool) -> None:
    assert (cause(**CLIPPED | figures) == "clipping") == is_clipping


@pytest.mark.parametrize(("rmse_scale", "verdict"), [(0.7, "warn"), (0.71, "bad")])
@pytest.mark.parametrize("fault", [CLIPPED, LINE | {"fit_rmse_scale": 0.1}, offset_of(-0.6)])
def test_an_error_above_seven_tenths_of_a_step_is_bad(
    fault: dict[str, Any], rmse_scale: float, verdict: str
) -> None:
    figures = {"rmse_scale": rmse_scale}
    if "clipped" in fault:
        figures["quantizer_rmse_scale"] = rmse_scale
    assert found(**fault | figures).verdict == verdict


# --- carried -------------------------------------------------------------------------------------

CARRIED = OFF | {"rmse_scale": 1.0, "carried_rmse_scale": 0.96}
OWN = "the quantizer itself leaves 0.289 steps, as it should; "
BEFORE = (
    "check what feeds this layer: its weights (per channel? 16 bits?), its kernel, the layers "
    "before it"
)
FINER = (
    "quantize its weights finer: a scale per channel, more bits, or train with quantized weights"
)
COMPARE = (
    "compare the kernel with the specification (qdebug replay), and with other kernels; report it "
    "if it is at fault"
)


@pytest.mark.parametrize(
    ("figures", "evidence", "advice"),
    [
        ({}, OWN, BEFORE),
        ({"kind": "activation"}, OWN, BEFORE),
        ({"kind": "weight"}, OWN,
            "the weights were not quantized with the recorded parameters: convert them again"),
        ({"kind": "bias"}, OWN,
            "the bias was not quantized with the recorded scale: convert it again"),
        ({"quantizer_rmse_scale": REFERENCE * 1.049}, OWN.replace("0.289", "0.303"), BEFORE),
        ({"quantizer_rmse_scale": REFERENCE * 1.051},
            "the quantizer itself leaves 0.303 steps, 0.289 expected; ", BEFORE),
        ({"cosine_similarity": 0.5}, OWN, BEFORE),
        ({"cosine_similarity": None}, OWN, BEFORE),
        ({"cosine_similarity": 0.49}, OWN,
            "floats and codes do not correlate: most likely they are different tensors, or one "
            "tensor in two orders or layouts (NCHW, NHWC)"),
        ({"kind": "weight", "weights_rmse_scale": 1.0, "arithmetic_rmse_scale": 0.1}, OWN,
            "the weights were not quantized with the recorded parameters: convert them again"),
    ],
)  # fmt: skip
def test_what_was_carried_is_looked_for_where_it_comes_from(
    figures: dict[str, Any], evidence: str, advice: str
) -> None:
    assert astuple(found(**CARRIED | figures)) == (
        "warn",
        "carried",
        f"{evidence}the codes are 0.96 steps from the best ones",
        advice,
    )


@pytest.mark.parametrize(
    ("weights", "kernel", "cause", "evidence", "advice"),
    [
        (0.9, 0.1, "weights", "the operator's quantized weights move its output by 0.9 steps, its "
            "kernel's arithmetic by 0.1", FINER),
        (0.9, 0.0, "weights", "the operator's quantized weights move its output by 0.9 steps",
            FINER),
        (0.5, 0.5, "weights", "the operator's quantized weights move its output by 0.5 steps, its "
            "kernel's arithmetic by 0.5", FINER),
        (0.1, 0.9, "arithmetic", "the kernel's codes are 0.9 steps from those of its own inputs "
            "and weights in float; its weights move the output by 0.1 steps", COMPARE),
        (0.0, 0.9, "arithmetic", "the kernel's codes are 0.9 steps from those of its own inputs "
            "and weights in float", COMPARE),
        (None, 0.9, "carried", "the codes are 0.96 steps from the best ones", BEFORE),
        (0.9, None, "carried", "the codes are 0.96 steps from the best ones", BEFORE),
    ],
)  # fmt: skip
def test_weights_or_kernel_are_told_apart_where_both_are_known(
    weights: float | None, kernel: float | None, cause: str, evidence: str, advice: str
) -> None:
    split = {"weights_rmse_scale": weights, "arithmetic_rmse_scale": kernel}
    assert astuple(found(**CARRIED, **split)) == ("warn", cause, OWN + evidence, advice)


@pytest.mark.parametrize(
    ("sqnr_db", "rmse_scale", "verdict"),
    [(19.9, 0.71, "bad"), (20.0, 0.71, "warn"), (19.9, 0.7, "warn"), (None, 0.71, "warn")],
)
def test_a_carried_error_is_bad_where_the_signal_suffers(
    sqnr_db: float | None, rmse_scale: float, verdict: str
) -> None:
    figures = CARRIED | {"rmse_scale": rmse_scale, "sqnr_db": sqnr_db}
    assert (found(**figures).verdict, found(**figures).cause) == (verdict, "carried")


@pytest.mark.parametrize("unknown", ["quantizer_rmse_scale", "carried_rmse_scale"])
def test_without_the_tensors_nobody_knows_whose_error_it_is(unknown: str) -> None:
    assert astuple(found(**CARRIED | {unknown: None})) == (
        "bad",
        None,
        "rmse/scale 1; finding the cause needs the tensors",
        "capture the layer's tensors and report on them",
    )


@pytest.mark.parametrize(("by", "cause"), [(1.049, "ok"), (1.051, "carried")])
def test_a_quantizer_that_makes_the_error_itself_carries_none(by: float, cause: str) -> None:
    """Its floats lie between the codes, not evenly."""
    diagnosis = found(
        **OFF, quantizer_rmse_scale=0.4, rmse_scale=0.4 + (by - 1) * REFERENCE, num_elements=N
    )
    assert diagnosis.cause == cause
