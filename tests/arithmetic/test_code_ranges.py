"""What a code range means for zero points and floats: the middle code, the representable range."""

import numpy as np
import pytest

from qdebug.arithmetic.affine import (
    CODE_DTYPES,
    QuantParams,
    QuantScheme,
    dequantize,
    middle_code,
    params_from_range,
    representable_range,
)


@pytest.mark.parametrize("narrow_range", [False, True])
@pytest.mark.parametrize("dtype", CODE_DTYPES)
def test_the_middle_code_is_the_zero_point_of_symmetric_codes(
    dtype: str, narrow_range: bool
) -> None:
    scheme = QuantScheme(dtype, narrow_range=narrow_range, symmetric=True)
    params = params_from_range(-1, 1, scheme)
    middle = 2 ** (params.bits - 1) if dtype.startswith("u") else 0
    assert middle_code(scheme.code_range) == middle
    assert params.zero_point.tolist() == [middle]
    assert params.symmetric
    assert not QuantParams.of(1.0, middle + 1, dtype, narrow_range=narrow_range).symmetric


def test_parameters_are_symmetric_only_where_all_zero_points_are_the_middle_code() -> None:
    assert QuantParams.of([1.0, 2.0], [0, 0], axis=0).symmetric
    assert not QuantParams.of([1.0, 2.0], [0, 1], axis=0).symmetric


def test_the_representable_range_is_what_the_outermost_codes_stand_for() -> None:
    params = QuantParams.of([0.5, 4.0], [3, -123], axis=0)
    low, high = representable_range(params.scale, params.zero_point, params.code_range)
    ends = np.array([params.code_range] * 2, np.int8)
    np.testing.assert_array_equal(np.stack([low, high], axis=1), dequantize(ends, params))
