"""Limits: which figures they bound, on both sides, and what a check says of those that are over."""

from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from qdebug.errors import QdebugError
from qdebug.measure.outputs import OutputMetrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.limits import (
    ALL_KINDS,
    CheckResult,
    Config,
    Limit,
    Override,
    check,
    limits_of,
    parse_bound,
    parse_causes,
    parse_decibels,
    parse_growth,
    parse_share,
    unmatched,
)
from qdebug.report.report import LayerReport, Report
from tests.reports import layer, report

OUTPUT = OutputMetrics("scores", 8, 80, 0, 40.0, 1.0, 0.01, 0.1, 30.0, 3, 0.95, 8)


def checked(
    *layers: LayerReport,
    outputs: tuple[OutputMetrics, ...] = (),
    causes: dict[str, str] | None = None,
    config: Config | None = None,
    **bounds: float,
) -> CheckResult:
    limits = {name: Limit(name, bound, f"--{name}") for name, bound in bounds.items()}
    whole = replace(report(*layers), outputs=list(outputs))
    return check(whole, limits, causes or {}, config or Config())


# --- bounds ---------------------------------------------------------------------------------------


def test_every_limit_has_its_figure_unit_and_side() -> None:
    assert {name: astuple(kind) for name, kind in ALL_KINDS.items()} == {
        "max_rmse_scale": ("rmse_scale", "steps", False, False),
        "max_times_expected": (
            "rmse_scale_ratio",
            "times the error of rounding alone",
            False,
            False,
        ),
        "max_mean_error": ("mean_error_scale", "steps, of either sign", False, False),
        "min_sqnr": ("sqnr_db", "dB", True, False),
        "max_range_waste": ("range_waste", "share: 0.1 or 10%", False, True),
        "max_clipped": ("clipped", "share: 0.01 or 1%", False, True),
        "max_saturated": ("saturated", "share: 0.01 or 1%", False, True),
        "max_abs_error": ("max_abs_error", "the tensor's own unit", False, False),
        "min_output_sqnr": ("sqnr_db", "dB", True, False),
        "min_top1": ("top1", "share: 0.95 or 95%", True, True),
    }


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("max_rmse_scale", 0, 0.0),
        ("max_rmse_scale", "1e3", 1000.0),
        ("min_sqnr", -3.5, -3.5),
        ("min_output_sqnr", "-3", -3.0),
        ("max_clipped", 1, 1.0),
        ("max_clipped", "100%", 1.0),
        ("max_clipped", "0%", 0.0),
        ("min_top1", "95%", 0.95),
    ],
)
def test_bounds_are_numbers_or_shares(name: str, value: Any, bound: float) -> None:
    assert parse_bound(name, value) == bound


SHARE = "a share from 0 to 1 (or 0% to 100%)"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_rmse_scale", -0.1, "found '-0.1', expected a number of 0 or more"),
        ("max_rmse_scale", "5%", "found '5%', expected a number of 0 or more"),
        ("max_rmse_scale", "", "found '', expected a number of 0 or more"),
        ("max_rmse_scale", True, "found 'True', expected a number of 0 or more"),
        ("max_rmse_scale", None, "found 'None', expected a number of 0 or more"),
        ("max_rmse_scale", float("inf"), "found 'inf', expected a number of 0 or more"),
        ("max_rmse_scale", float("nan"), "found 'nan', expected a number of 0 or more"),
        ("min_sqnr", "loud", "found 'loud', expected a number"),
        ("min_sqnr", "-inf", "found '-inf', expected a number"),
        ("max_clipped", 1.01, f"found '1.01', expected {SHARE}"),
        ("max_clipped", "101%", f"found '101%', expected {SHARE}"),
        ("max_clipped", -0.01, f"found '-0.01', expected {SHARE}"),
        ("min_top1", 1.01, f"found '1.01', expected {SHARE}"),
    ],
)
def test_what_is_no_bound_is_explained(name: str, value: Any, message: str) -> None:
    with pytest.raises(QdebugError) as raised:
        parse_bound(name, value)
    assert str(raised.value) == message


def test_shares_growths_and_levels_name_where_they_were_given() -> None:
    assert parse_share("80%", "budget") == 0.8
    with pytest.raises(QdebugError, match=r"^budget: found '2', expected a share from 0 to 1 \("):
        parse_share(2, "budget")
    with pytest.raises(QdebugError, match=r"^budget: found '-1', expected a share"):
        parse_share(-1, "budget")

    assert [parse_growth(value) for value in (None, "25%", "2", 0.25)] == [0.1, 0.25, 2.0, 0.25]
    for value, shown in (("-5%", "'-5%'"), ("x", "'x'"), (-1, "-1")):
        with pytest.raises(QdebugError) as raised:
            parse_growth(value)
        assert str(raised.value) == (
            f"--max-regression: found {shown}, expected a number of 0 or more, such as 0.1 or 10%"
        )

    assert [parse_decibels(value, "") for value in ("20dB", "2 DB", "-3", 7)] == [20, 2, -3, 7]
    for value, shown in (("loud", "'loud'"), ("5 m", "'5 m'"), (None, "None")):
        with pytest.raises(QdebugError) as raised:
            parse_decibels(value, "target")
        assert str(raised.value) == f"target: found {shown}, expected a number of dB, such as 20dB"


def test_limits_and_causes_are_known_by_name() -> None:
    assert limits_of({"min_sqnr": "3"}) == {"min_sqnr": Limit("min_sqnr", 3.0, "min_sqnr")}
    (limit,) = limits_of({"min_sqnr": 3}, flag="--{}".format).values()
    assert limit.origin == "--min_sqnr"
    for bounds, message in (
        (
            {"min_sqn": 3},
            "no limit 'min_sqn'; did you mean 'min_sqnr', 'min_output_sqnr' or 'min_top1'?",
        ),
        ({"min_sqnr": "x"}, "--min_sqnr: found 'x', expected a number"),
    ):
        with pytest.raises(QdebugError) as raised:
            limits_of(bounds, flag="--{}".format)
        assert str(raised.value) == message
    assert parse_causes(["ok", "bias"], "--fail-on") == ["ok", "bias"]
    with pytest.raises(QdebugError, match=r"^--fail-on: no cause 'bia'; did you mean 'bias'"):
        parse_causes(["bia"], "--fail-on")


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "figure", "within", "over", "expected"),
    [
        ("max_rmse_scale", "rmse_scale", 0.5, 0.501, "<= 0.5"),
        ("max_mean_error", "mean_error_scale", -0.5, -0.501, "<= 0.5"),
        ("max_mean_error", "mean_error_scale", 0.5, 0.501, "<= 0.5"),
        ("min_sqnr", "sqnr_db", 0.5, 0.499, ">= 0.5"),
        ("max_range_waste", "range_waste", 0.5, 0.501, "<= 0.5"),
        ("max_clipped", "clipped", 0.5, 0.501, "<= 0.5"),
        ("max_saturated", "saturated", 0.5, 0.501, "<= 0.5"),
        ("max_abs_error", "max_abs_error", 0.5, 0.501, "<= 0.5"),
    ],
)
def test_a_figure_at_its_limit_passes_and_beyond_it_fails(
    name: str, figure: str, within: float, over: float, expected: str
) -> None:
    fine, wrong = layer("fine", **{figure: within}), layer("wrong", **{figure: over})
    result = checked(fine, wrong, **{name: 0.5})
    assert [astuple(failure) for failure in result.failures] == [
        ("wrong", figure, f"{over:.4g}", expected, f"--{name}")
    ]
    assert [(case.layer, case.failure is None) for case in result.cases] == [
        ("fine", True),
        ("wrong", False),
    ]
    assert (result.num_checked, result.num_outputs, result.unknown) == (2, 0, [])
    assert not result
    assert checked(fine, **{name: 0.5})


@pytest.mark.parametrize(
    ("name", "figures", "found"),
    [
        # No finite element: over the limit if there is any element.
        ("max_rmse_scale", {"num_elements": 0, "non_finite": 3}, "no finite element"),
        ("max_rmse_scale", {"num_elements": 0, "non_finite": 0}, None),
        # No signal, or no error: only an error is over a limit.
        ("min_sqnr", {"rmse": 0.5}, "no signal"),
        ("min_sqnr", {"rmse": 0.0}, None),
        # Only exact zeros: any error is over the limit.
        ("max_times_expected", {"rmse_scale": 0.0, "rmse_scale_expected": 0.0}, None),
        (
            "max_times_expected",
            {"rmse_scale": 0.1, "rmse_scale_expected": 0.0},
            "an error in exact zeros",
        ),
        # Another limit says nothing about exact zeros.
        (
            "max_range_waste",
            {"rmse_scale": 0.1, "rmse_scale_expected": 0.0, "bits": 32},
            None,
        ),
        # No single step, and no neighbours.
        ("max_times_expected", {"grid": "IQ1_S"}, None),
        ("max_rmse_scale", {"grid": "IQ1_S"}, None),
        ("max_range_waste", {"grid": "Q4_K"}, None),
        # No share of so many codes.
        ("max_range_waste", {"bits": 32}, None),
    ],
)
def test_figures_that_do_not_exist_pass_where_there_is_no_error(
    name: str, figures: dict[str, Any], found: str | None
) -> None:
    result = checked(layer("a", **figures), **{name: 0.1})
    assert [failure.found for failure in result.failures] == [found] * (found is not None)
    assert result.unknown == []
    assert len(result.cases) == 1


def test_times_expected_is_that_of_steps_or_of_cells() -> None:
    steps = layer("steps", rmse_scale=0.6, rmse_scale_expected=0.3)
    cells = layer("cells", grid="Q4_K", times_expected=2.0)
    for bound, over in ((1.9, ["steps", "cells"]), (2.0, [])):
        failures = checked(steps, cells, max_times_expected=bound).failures
        assert [(each.layer, each.found) for each in failures] == [(name, "2") for name in over]


def test_rmse_scale_of_cells_is_that_of_equal_steps() -> None:
    """0.7 steps are 2.42 times the error of rounding alone."""
    for times, over in ((2.42, 0), (2.43, 1)):
        result = checked(layer("cells", grid="Q4_K", times_expected=times), max_rmse_scale=0.7)
        assert len(result.failures) == over
        assert len(result.cases) == 1


@pytest.mark.parametrize(
    ("name", "figures", "figure"),
    [
        ("max_rmse_scale", {"rmse": 0.0}, "rmse_scale"),
        ("max_clipped", {}, "clipped"),
        ("min_sqnr", {}, "sqnr_db"),
        ("max_range_waste", {"bits": None}, "range_waste"),
    ],
)
def test_a_figure_that_is_not_known_does_not_pass(
    name: str, figures: dict[str, Any], figure: str
) -> None:
    result = checked(layer("a", **figures), **{name: 0.1})
    assert result.unknown == [f"layer 'a': {figure} is not known: not checked"]
    assert (result.cases, result.failures) == ([], [])
    assert not result


def test_causes_that_no_layer_may_have() -> None:
    biased = Diagnosis("bad", "bias", "", "")
    sound, unsure = Diagnosis("ok", "ok", "", ""), Diagnosis("warn", None, "", "")
    result = checked(
        layer("a", diagnosis=biased),
        layer("b", diagnosis=sound),
        layer("c", diagnosis=unsure),
        layer("d", diagnosis=None),
        causes={"bias": "--fail-on"},
    )
    assert [astuple(each) for each in result.failures] == [
        ("a", "cause", "bias", "another", "--fail-on")
    ]
    assert [(each.layer, each.figure) for each in result.cases] == [("a", "cause"), ("b", "cause")]
    assert checked(layer("a", diagnosis=biased, rmse_scale=0.1), max_rmse_scale=0.7).cases == [
        *checked(layer("a", rmse_scale=0.1), max_rmse_scale=0.7).cases
    ]


def test_a_layers_own_limits_win_and_layers_may_be_left_out() -> None:
    layers = [layer(name, rmse_scale=0.5) for name in ("conv1", "conv2", "dense", "left")]
    torn = LayerReport("torn")
    strict, mild = (Limit("max_rmse_scale", bound, "own") for bound in (0.2, 0.6))
    config = Config(
        limits={"max_rmse_scale": Limit("max_rmse_scale", 0.4, "all")},
        ignore=["none", "left"],
        overrides=[
            Override("conv*", {"max_rmse_scale": mild}),
            Override("*2", {"max_rmse_scale": strict}),
            Override("x*", {"max_rmse_scale": strict}),
        ],
    )
    result = checked(*layers, torn, config=config)
    assert [(each.layer, each.origin) for each in result.failures] == [
        ("conv2", "own"),
        ("dense", "all"),
    ]
    assert result.num_checked == 3
    assert unmatched(report(*layers), config) == ["none", "x*"]
    # A limit that is given wins over the configuration's, not over a layer's own.
    given = checked(*layers, config=config, max_rmse_scale=0.9)
    assert [each.layer for each in given.failures] == ["conv2"]


def test_a_check_of_nothing_does_not_pass() -> None:
    assert not checked(max_rmse_scale=0.7)
    assert checked(layer("a", rmse_scale=0.1), max_rmse_scale=0.7)
    assert not CheckResult([], [], 1, ["torn"])
    assert not CheckResult([], ["unknown"], 1)
    assert CheckResult([], [], 1).num_outputs == 0


# --- the model's outputs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "figures", "failure"),
    [
        ("min_output_sqnr", {"sqnr_db": 20.0}, None),
        ("min_output_sqnr", {"sqnr_db": 19.99}, ("sqnr_db", "19.99", ">= 20")),
        ("min_output_sqnr", {"sqnr_db": None, "rmse": 0.0}, None),
        ("min_output_sqnr", {"sqnr_db": None, "rmse": 0.5}, ("sqnr_db", "no signal", ">= 20")),
        ("min_output_sqnr", {"num_elements": 3, "non_finite": 3, "sqnr_db": None}, ("sqnr_db",
            "3 NaN or infinite", ">= 20")),
        ("min_output_sqnr", {"non_finite": 3}, ("sqnr_db", "3 NaN or infinite", ">= 20")),
        ("min_output_sqnr", {"num_elements": 0, "non_finite": 3, "sqnr_db": None},
            ("sqnr_db", "3 NaN or infinite", ">= 20")),
        ("min_top1", {"top1": 0.95}, None),
        ("min_top1", {"top1": 0.94}, ("top1", "0.94", ">= 0.95")),
        ("min_top1", {"non_finite": 1}, ("top1", "1 NaN or infinite", ">= 0.95")),
    ],
)  # fmt: skip
def test_limits_on_outputs(
    name: str, figures: dict[str, Any], failure: tuple[str, str, str] | None
) -> None:
    bound = 20.0 if name == "min_output_sqnr" else 0.95
    result = checked(layer("a"), outputs=(replace(OUTPUT, **figures),), **{name: bound})
    expected = [] if failure is None else [("output scores", *failure, f"--{name}")]
    assert [astuple(each) for each in result.failures] == expected
    assert [case.layer for case in result.cases] == ["output scores"]
    assert result.num_outputs == 1


def test_outputs_that_are_not_known_do_not_pass_a_limit_on_them() -> None:
    needs = "needs a float and a quantized model, or a file of qdebug capture"
    assert checked(layer("a"), min_output_sqnr=20).unknown == [
        f"sqnr_db of the model's outputs is not known: {needs}"
    ]
    nothing = replace(OUTPUT, num_elements=0, sqnr_db=None, top1=None)
    assert len(checked(layer("a"), outputs=(nothing,), min_output_sqnr=20).unknown) == 1
    # A network without classes.
    no_scores = checked(layer("a"), outputs=(replace(OUTPUT, top1=None),), min_top1=0.5)
    assert no_scores.unknown == [f"top1 of the model's outputs is not known: {needs}"]
    assert no_scores.cases == []


BAD = layer("a", rmse_scale=0.71, diagnosis=Diagnosis("bad", "non-finite", "", ""))


@pytest.mark.parametrize(
    ("outputs", "failing"),
    [
        ((), ["rmse_scale", "cause"]),
        (({},), []),
        (({"sqnr_db": 20.0},), []),
        (({"sqnr_db": 19.9},), ["rmse_scale", "cause"]),
        (({"sqnr_db": None, "rmse": 0.0},), []),
        (({}, {"sqnr_db": 19.9}), ["rmse_scale", "cause"]),
        (({"sqnr_db": 9.9},), ["sqnr_db", "rmse_scale", "cause"]),
        (({"sqnr_db": 10.0},), ["rmse_scale", "cause"]),
        (({"non_finite": 1},), ["sqnr_db", "rmse_scale", "cause"]),
    ],
)
def test_without_limits_outputs_that_are_sound_excuse_the_layers(
    outputs: tuple[dict[str, Any], ...], failing: list[str]
) -> None:
    result = checked(BAD, outputs=tuple(replace(OUTPUT, **each) for each in outputs))
    assert [each.figure for each in result.failures] == failing
    assert {each.origin for each in result.failures} <= {"default"}
    assert result.unknown == []
    assert result.num_outputs == len(outputs)
    within = replace(BAD, diagnosis=None, metrics=layer("a", rmse_scale=0.7).metrics)
    assert not [each for each in checked(within).failures if each.figure != "sqnr_db"]


def test_a_limit_or_a_cause_that_is_given_takes_the_place_of_the_defaults() -> None:
    assert [each.figure for each in checked(BAD, min_sqnr=0).failures] == []
    assert checked(BAD, causes={"bias": "given"}).failures == []
    assert checked(BAD, outputs=(OUTPUT,), max_rmse_scale=0.8).num_outputs == 0
    config = Config(limits={"max_abs_error": Limit("max_abs_error", 9.0, "file")}, path=Path("x"))
    assert checked(BAD, config=config).failures == []


def test_files_that_were_not_read_fail_the_check() -> None:
    broken: Report = replace(report(layer("a", rmse_scale=0.1)), problems=["torn.npz: no"])
    result = check(broken, {}, {}, Config())
    assert result.unreadable == ["torn.npz: no"]
    assert not result
