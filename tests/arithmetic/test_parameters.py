"""What may be a scale, a zero point, a range; and what is said of what may not."""

from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import (
    FLOAT_DTYPES,
    QuantParams,
    QuantScheme,
    code_range,
    dequantize,
    params_from_range,
    quantize,
)
from qdebug.errors import FieldError

LEAST, MOST = 1e-140, 1e140
BOUNDS = "expected 1e-140 to 1e+140"
POSITIVE = "expected finite numbers above 0"
VECTOR = "expected (), (1,) or (channels,)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, f"field 'scale': found 0.0, {POSITIVE}"),
        ({"scale": -1.0}, f"field 'scale': found -1.0, {POSITIVE}"),
        ({"scale": np.inf}, f"field 'scale': found inf, {POSITIVE}"),
        ({"scale": np.nan}, f"field 'scale': found nan, {POSITIVE}"),
        ({"scale": 9.9e-141}, f"field 'scale': found 9.9e-141, {BOUNDS}"),
        ({"scale": 1.01e140}, f"field 'scale': found 1.01e+140, {BOUNDS}"),
        ({"scale": [1.0, 1e-141, 0.5]}, f"field 'scale': found 1e-141 for channel 1, {BOUNDS}"),
        ({"scale": [1.0, 1e-141, 0.0]}, f"field 'scale': found 1e-141 for channel 1, {POSITIVE}"),
        ({"scale": []}, f"field 'scale': found shape (0,), {VECTOR}"),
        ({"scale": [[1.0]]}, f"field 'scale': found shape (1, 1), {VECTOR}"),
        ({"scale": 1.0, "zero_point": []}, f"field 'zero_point': found shape (0,), {VECTOR}"),
        ({"scale": 1.0, "zero_point": 128},
            "field 'zero_point': found 128, expected codes from -128 to 127"),
        ({"scale": 1.0, "zero_point": [0, -129]},
            "field 'zero_point': found -129 for channel 1, expected codes from -128 to 127"),
        ({"scale": 1.0, "rounding": "up"},
            "field 'rounding': found 'up', expected half_away or half_even"),
        ({"scale": [1.0, 2.0]},
            "field 'axis': found nothing, expected the channel axis of 2 scales"),
        ({"scale": [1.0, 2.0], "zero_point": [0] * 3, "axis": 0},
            "field 'scale': found 2 values, expected 1 or 3, as the other"),
        ({"scale": [1.0] * 3, "zero_point": [0] * 2, "axis": 0},
            "field 'zero_point': found 2 values, expected 1 or 3, as the other"),
        ({"scale": 1.0, "bits": 9}, "field 'bits': found 9, expected 2 to 8 for int8"),
        ({"scale": 1.0, "dtype": "int64"}, "field 'quantized': found int64, expected codes of "
            "int8, uint8, int16, uint16, int32"),
    ],
)  # fmt: skip
def test_impossible_parameters_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as raised:
        QuantParams.of(**arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (1.0, -1.0, "1.0 to -1.0"),
        (0.0, np.inf, "0.0 to inf"),
        ([0.0, 2.0], [1.0, 1.5], "2.0 for channel 1 to 1.5 for channel 1"),
    ],
)
def test_impossible_ranges_are_explained(low: Any, high: Any, found: str) -> None:
    with pytest.raises(FieldError) as raised:
        params_from_range(low, high, QuantScheme(), axis=0)
    assert str(raised.value) == (
        f"field 'range': found {found}, expected finite numbers, the lower one first"
    )


def test_the_ends_of_what_is_possible_are() -> None:
    assert QuantParams.of([LEAST, MOST], [-128, 127], axis=0).scale.tolist() == [LEAST, MOST]
    assert [code_range("int8", bits=bits) for bits in (2, 8)] == [(-2, 1), (-128, 127)]
    for bits in (1, 9):
        with pytest.raises(FieldError, match="bits"):
            QuantScheme("int8", bits=bits)
    equal = params_from_range(3.0, 3.0, QuantScheme("uint8"))
    assert (equal.scale[0], equal.zero_point[0]) == (3 / 255, 0)
    assert params_from_range(-1e308, 1e308, QuantScheme()).scale.tolist() == [MOST]
    assert params_from_range(0, 1e-300, QuantScheme()).scale.tolist() == [LEAST]


def test_floats_have_two_four_or_eight_bytes() -> None:
    assert [np.dtype(name) for name in FLOAT_DTYPES] == [np.float16, np.float32, np.float64]


def test_parameters_are_what_was_given() -> None:
    params = QuantParams.of([0.5, 2.0], 3, "int16", axis=1, bits=9, rounding="half_even")
    assert (params.scale.tolist(), params.zero_point.tolist()) == ([0.5, 2.0], [3, 3])
    assert (params.dtype, params.axis, params.bits, params.rounding) == ("int16", 1, 9, "half_even")
    assert (params.channels, params.qmin, params.qmax) == (2, -256, 255)
    plain = QuantParams.of(1.0, axis=0)
    assert (plain.axis, plain.bits, plain.narrow_range, plain.rounding) == (
        None,
        8,
        False,
        "half_away",
    )
    assert QuantScheme() == QuantScheme("int8", None, False, False, "half_away")
    scheme = QuantScheme("int16", 9, narrow_range=True, rounding="half_even")
    made = params_from_range([-1, 0], [1, 1], scheme, axis=0)
    assert (made.dtype, made.bits, made.narrow_range, made.rounding, made.axis) == (
        *("int16", 9, True, "half_even", 0),
    )


def test_each_channel_has_its_own_scale_and_zero_point() -> None:
    x = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    params = QuantParams.of([1.0, 0.5, 10.0], [0, 5, -1], axis=1)
    codes = quantize(x, params)
    assert codes.tolist() == [[1, 9, -1], [10, 45, 2]]
    assert dequantize(codes, params).tolist() == [[1.0, 2.0, 0.0], [10.0, 20.0, 30.0]]
    scale, zero_point = params.rows(1, 3)
    assert (scale.tolist(), zero_point.tolist()) == ([[0.5], [10.0]], [[5], [-1]])
