"""Advice can be taken: no zero point is recommended that the codes do not have."""

from typing import Any

import numpy as np
import pytest

from qdebug.api import compare
from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.diagnosis import Diagnosis, Subject, diagnose

X = np.random.default_rng(0).uniform(0.1, 6, 5000)


def diagnosed(x: Any, codes: Any, params: QuantParams) -> Diagnosis:
    found = compare(x, codes.astype(params.dtype), params.scale, params.zero_point).diagnosis
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("dtype", "off", "advice"),
    [
        ("int8", -3, "the codes are 3 too low, and no zero point can correct that (-131 is outside "
            "-128 to 127): quantize the floats again, with scale 0.0235 and zero point -128 for "
            "[0.101, 6]"),
        ("uint8", -1, "the codes are 1 too low, and no zero point can correct that (-1 is outside "
            "0 to 255): quantize the floats again, with scale 0.0235 and zero point 0 for "
            "[0.101, 6]"),
        ("int8", 3, "the zero point is off by -3: -125 would fit"),
    ],
)  # fmt: skip
def test_no_zero_point_outside_the_codes_is_advised(dtype: str, off: int, advice: str) -> None:
    zero_point = 0 if dtype == "uint8" else -128
    params = QuantParams.of(0.024, zero_point, dtype)
    found = diagnosed(X, np.rint(X / 0.024) + zero_point + off, params)
    assert found.cause == "bias"
    assert found.advice == advice


def test_floats_are_quantized_again_where_nobody_knows_them() -> None:
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    figures |= {"num_elements": 1000, "rmse_scale": 3.01, "mean_error_scale": -3.0}
    found = diagnose(Subject(Metrics(**figures), "int8", 8, -128, 127, 0.1, -128))
    assert found.advice == (
        "the codes are 3 too low, and no zero point can correct that "
        "(-131 is outside -128 to 127): quantize the floats again"
    )


def test_no_line_is_to_be_recorded_whose_zero_point_is_no_code() -> None:
    params = QuantParams.of(0.024, -128)
    x = X + 0.4  # all codes above -128
    found = diagnosed(x, np.rint(x / 0.03) - 140, params)
    assert found.cause == "wrong-scale"
    assert found.advice == (
        "quantize with the recorded scale: zero point -140 of that line is outside -128 to 127"
    )
