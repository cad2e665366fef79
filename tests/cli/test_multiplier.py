"""``qdebug multiplier``: the fixed-point form of a multiplier, and its cost."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

Run = Callable[..., Result]


def test_a_multiplier_has_a_form_of_32_and_of_16_bits(qdebug: Run) -> None:
    values = json.loads(qdebug("multiplier", "0.0003921", "--format", "json").stdout)
    assert values["schema"] == "qdebug.multiplier/1"
    full, short = values["forms"]
    assert (full["bits"], full["m0"], full["n"], full["shift"]) == (32, 1724474037, 42, -11)
    assert (short["bits"], short["m0"], short["n"]) == (16, 26313, 26)
    for form in (full, short):
        assert form["value"] == form["m0"] / 2 ** form["n"]
        assert form["relative_error"] == pytest.approx(form["value"] / 0.0003921 - 1, abs=1e-15)
        assert form["steps"] == pytest.approx(abs(form["relative_error"]) * 255)


def test_the_multiplier_of_three_scales(qdebug: Run) -> None:
    result = qdebug("multiplier", "--scales", "0.5", "0.25", "0.125", "--dtype", "int16")
    assert "M = 0.5 * 0.25 / 0.125 = 1, int16 output of 65535 steps" in result.stdout
    assert "M is 1 or more" in result.stdout


@pytest.mark.parametrize(
    ("value", "note"),
    [("1e-12", "M is below 2^-32"), ("1e12", "M is 2^30 or more"), ("0.9", "")],
)
def test_multipliers_beyond_the_form_say_so(value: str, note: str, qdebug: Run) -> None:
    result = qdebug("multiplier", value)
    assert note in result.stdout
    assert result.stdout.count("\n\n") == 1 + bool(note)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "found neither of M and --scales, expected one of them"),
        (("0.5", "--scales", "1", "1", "1"), "found both of M and --scales"),
        (("--", "-0.5"), "field 'multiplier': found -0.5, expected a finite number of 0 or more"),
        (("inf",), "field 'multiplier': found inf"),
        (("--scales", "1", "0", "1"), "field 'S_W': found 0.0, expected a finite number above 0"),
        (("one",), "'one' is not a valid float"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    args: tuple[str, ...], message: str, qdebug: Run
) -> None:
    result = qdebug("multiplier", *args)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
