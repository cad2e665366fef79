"""Quantization arithmetic: worked examples of public articles, and properties."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qdebug.arithmetic.affine import (
    CODE_DTYPES,
    QuantParams,
    QuantScheme,
    code_range,
    dequantize,
    params_from_range,
    quantize,
)
from tests import oracle
from tests.arithmetic.strategies import schemes

TWENTY = np.array(
    [127.48, -40.1, 0, 89.74, 124.38, -39.1, 126.48, 21.2, -35.99, 124.16]
    + [5.92, 41.68, 23.6, -26.4, -21.51, -20.6, 94.49, 85.07, 70.11, 76.91]
)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale", "zero_point", "codes"),
    [
        (0, 1000, "uint8", 3.9215686, 0, {500.0: 128}),
        (-20, 1000, "uint8", 4.0, 5, {-20.0: 0}),
        (-20, 1000, "int8", 4.0, -123, {-20.0: -128, 1000.0: 127}),
        (40, 1000, "uint8", 3.9215686, 0, {40.0: 10}),
    ],
)
def test_worked_examples_of_a_range(
    low: float, high: float, dtype: str, scale: float, zero_point: int, codes: dict[float, int]
) -> None:
    params = params_from_range(low, high, QuantScheme(dtype))
    assert params.scale[0] == pytest.approx(scale, abs=5e-8)
    assert params.zero_point[0] == zero_point
    assert quantize(list(codes), params).tolist() == list(codes.values())


@pytest.mark.parametrize(("low", "high"), [(2.0, 6.0), (0.5, 0.6), (-6.0, -2.0), (-0.6, -0.5)])
def test_a_range_on_one_side_of_zero_is_extended_to_it(low: float, high: float) -> None:
    for symmetric in (False, True):
        scheme = QuantScheme("int8", symmetric=symmetric)
        found = params_from_range(low, high, scheme)
        expected = params_from_range(min(low, 0), max(high, 0), scheme)
        assert found.scale == expected.scale
        assert found.zero_point == expected.zero_point
        assert found.scale[0] == pytest.approx(max(-low, high) / (127 if symmetric else 255))


def test_worked_example_of_twenty_values_asymmetric() -> None:
    params = params_from_range(TWENTY.min(), TWENTY.max(), QuantScheme("uint8"))
    assert params.scale[0] == pytest.approx(0.6571765, abs=5e-8)
    assert params.zero_point[0] == 61
    codes = quantize(TWENTY, params)
    assert codes.tolist() == [
        *(255, 0, 61, 198, 250, 2, 253, 93, 6, 250),
        *(70, 124, 97, 21, 28, 30, 205, 190, 168, 178),
    ]
    assert ((dequantize(codes, params) - TWENTY) ** 2).mean() == pytest.approx(0.03, abs=0.005)


def test_worked_example_of_twenty_values_symmetric() -> None:
    params = params_from_range(TWENTY.min(), TWENTY.max(), QuantScheme("int8", symmetric=True))
    assert params.scale[0] == pytest.approx(1.0037795, abs=5e-8)
    codes = quantize(TWENTY, params)
    assert codes.tolist() == [
        *(127, -40, 0, 89, 124, -39, 126, 21, -36, 124),
        *(6, 42, 24, -26, -21, -21, 94, 85, 70, 77),
    ]
    assert ((dequantize(codes, params) - TWENTY) ** 2).mean() == pytest.approx(0.08, abs=0.005)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("constant", [0.0, 1e-320])
def test_a_range_of_nothing_has_a_scale(constant: float, symmetric: bool) -> None:
    params = params_from_range(0, constant, QuantScheme("int8", symmetric=symmetric))
    assert params.scale[0] > 0
    assert dequantize(quantize([0.0], params), params).tolist() == [0.0]
    if constant == 0:
        assert params.scale[0] == 1


@given(scheme=schemes, ends=st.tuples(*[st.floats(-1e30, 1e30)] * 2))
def test_zero_is_exact_and_the_range_is_covered(
    scheme: QuantScheme, ends: tuple[float, float]
) -> None:
    low, high = sorted(ends)
    params = params_from_range(low, high, scheme)
    qmin, qmax = scheme.code_range
    assert qmin <= params.zero_point[0] <= qmax
    assert dequantize(quantize(0.0, params), params) == 0.0
    # The ends come back within the step that rounding the zero point may cost.
    back = dequantize(quantize([low, high], params), params)
    assert np.abs(back - [low, high]).max() <= params.scale[0] * (1 + 1e-9)


@given(
    x=hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e6, 1e6)),
    scale=st.floats(1e-6, 1e3),
    dtype=st.sampled_from(CODE_DTYPES),
    data=st.data(),
)
def test_quantize_agrees_with_the_oracle(
    x: np.ndarray, scale: float, dtype: str, data: st.DataObject
) -> None:
    qmin, qmax = code_range(dtype)
    zero_point = data.draw(st.integers(max(qmin, -999), min(qmax, 999)))
    params = QuantParams.of(scale, zero_point, dtype)
    expected = oracle.ideal_codes(x, scale, zero_point, qmin, qmax)
    assert quantize(x, params).tolist() == expected.astype(int).tolist()
    half_even = np.clip(np.rint(x / scale) + zero_point, qmin, qmax)
    params = replace(params, rounding="half_even")
    assert quantize(x, params).tolist() == half_even.astype(int).tolist()


@pytest.mark.slow
@given(codes=hnp.arrays(np.int8, (3, 4)), axis=st.sampled_from([0, 1]))
def test_codes_survive_a_round_trip_by_channel(codes: np.ndarray, axis: int) -> None:
    scale = np.geomspace(1e-3, 10, codes.shape[axis])
    params = QuantParams.of(scale, 5, "int8", axis=axis)
    assert (quantize(dequantize(codes, params), params) == codes).all()


def test_what_is_not_a_number_gets_the_zero_point_and_infinities_clamp() -> None:
    params = QuantParams.of(0.1, 7, "int8")
    assert quantize([np.nan, np.inf, -np.inf, 1e308], params).tolist() == [7, 127, -128, 127]
