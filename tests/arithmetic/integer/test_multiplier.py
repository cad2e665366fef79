"""Fixed-point multipliers: golden values, and the two published roundings in unbounded integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.arithmetic.integer.multiplier import (
    INT32_MAX,
    INT32_MIN,
    divide_by_power_of_two,
    doubling_high_multiply,
    multiply,
    multiply_reduced,
    quantize_multiplier,
    reduced_mantissa,
    wrapped,
)
from qdebug.errors import FieldError

int32 = st.integers(INT32_MIN, INT32_MAX)
multipliers = st.one_of(st.floats(2.0**-30, 2.0), st.floats(1e-9, 1e-3))


@pytest.mark.parametrize(
    ("real", "m0", "shift"),
    [
        (1.0, 1 << 30, 1),
        (0.5, 1 << 30, 0),
        (0.25, 1 << 30, -1),
        (2.0**-31, 1 << 30, -30),
        (1024.0, 1 << 30, 11),
        (1 - 2.0**-53, 1 << 30, 1),  # the mantissa rounds to 2^31, and is halved
        (1 - 2.0**-31, (1 << 31) - 1, 0),
        (0.75, 1610612736, 0),
        (1.5, 1610612736, 1),
        (0.0, 0, 0),
        (2.0**-32, 1 << 30, -31),
        (2.0**-33, 0, 0),  # below the least shift: nothing is left
        (1e-300, 0, 0),
        (2.0**40, INT32_MAX, 30),  # beyond the largest shift
    ],
)
def test_golden_forms(real: float, m0: int, shift: int) -> None:
    found = quantize_multiplier(real)
    assert (int(found.m0), int(found.shift)) == (m0, shift)


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf")])
def test_a_multiplier_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(FieldError, match="multiplier"):
        quantize_multiplier([0.5, wrong])


@given(multipliers)
def test_the_form_is_the_nearest_of_its_bits(real: float) -> None:
    found = quantize_multiplier(real)
    assert 2**30 <= int(found.m0) <= INT32_MAX
    assert int(found.n) == 31 - int(found.shift)
    value = Fraction(int(found.m0)) / Fraction(2) ** int(found.n)
    assert abs(value - Fraction(real)) <= Fraction(1, 2) / Fraction(2) ** int(found.n)
    assert float(found.relative_error) == pytest.approx(
        float(value / Fraction(real) - 1), abs=1e-15
    )


def _half_up(value: Fraction) -> int:
    return int((value + Fraction(1, 2)) // 1)


def _half_away(value: Fraction) -> int:
    return _half_up(value) if value >= 0 else -_half_up(-value)


@given(int32, multipliers)
def test_single_rounding_is_one_rounding_of_the_whole_product(x: int, real: float) -> None:
    multiplier = quantize_multiplier(real)
    exact = Fraction(x) * int(multiplier.m0) / Fraction(2) ** int(multiplier.n)
    assert int(multiply(x, multiplier, "single")) == _half_up(exact)
    assert int(multiply(x, multiplier, "floor")) == exact // 1


@given(int32, multipliers.filter(lambda real: real < 0.999))
def test_double_rounding_rounds_the_upper_half_and_then_the_shift(x: int, real: float) -> None:
    multiplier = quantize_multiplier(real)
    product = Fraction(x) * int(multiplier.m0) / 2**31
    # A half below 0 rounds up in the first step, and away from 0 in the second.
    high = _half_up(product)
    expected = _half_away(Fraction(high, 2 ** -int(multiplier.shift)))
    assert int(multiply(x, multiplier, "double")) == expected
    upward = _half_up(Fraction(high, 2 ** -int(multiplier.shift)))
    assert int(multiply(x, multiplier, "double_up")) == upward


@given(st.integers(-(2**47), 2**47), st.floats(2.0**-40, 2.0**-12))
def test_wide_accumulators_do_not_overflow(x: int, real: float) -> None:
    multiplier = quantize_multiplier(real)
    exact = Fraction(x) * int(multiplier.m0) / Fraction(2) ** int(multiplier.n)
    assert int(multiply(x, multiplier, "single")) == _half_up(exact)
    reduced = Fraction(x) * int(reduced_mantissa(multiplier.m0)) * 2**16
    assert int(multiply_reduced(x, multiplier)) == _half_up(reduced / 2 ** int(multiplier.n))


@pytest.mark.parametrize(
    ("a", "b", "high"),
    [
        (INT32_MIN, INT32_MIN, INT32_MAX),  # the only case that saturates
        (INT32_MIN, INT32_MAX, INT32_MIN + 1),
        (INT32_MAX, INT32_MAX, INT32_MAX - 1),
        (INT32_MIN, 1, -1),
        (1, 1 << 30, 1),  # a half rounds up
        (-1, 1 << 30, 0),  # and below 0 toward 0
        (0, INT32_MIN, 0),
    ],
)
def test_the_high_product_at_the_ends_of_int32(a: int, b: int, high: int) -> None:
    assert int(doubling_high_multiply(a, b)) == high


@given(int32, st.integers(0, 31))
def test_division_rounds_halves_away_from_zero(x: int, bits: int) -> None:
    assert int(divide_by_power_of_two(x, bits)) == _half_away(Fraction(x, 2**bits))


@given(st.integers(-(2**40), 2**40))
def test_int32_wraps_as_numpy_wraps(x: int) -> None:
    assert int(wrapped(np.array(x))) == int(np.array(x).astype(np.int32))


def test_multiplication_broadcasts_over_channels() -> None:
    multiplier = quantize_multiplier([0.5, 0.25, 2.0])
    assert multiply([[8, 8, 8], [-8, 4, 1]], multiplier).tolist() == [[4, 2, 16], [-4, 1, 2]]
    assert multiply([8, 8, 8], multiplier.shifted(-1)).tolist() == [2, 1, 8]
    assert multiply([5, 5, 5], multiplier, "float").tolist() == [2, 1, 10]  # 2.5 to even
