"""assert_quantized: passes what is within limits; fails with what is wrong, and why."""

from typing import Any

import numpy as np
import pytest

import qdebug
from qdebug.testing import assert_quantized

X = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
SCALE = 8 / 255
CODES = np.clip(np.round(X / SCALE), -128, 127).astype(np.int8)


def failed(*args: Any, **options: Any) -> list[str]:
    """The lines of the message."""
    with pytest.raises(AssertionError) as caught:
        assert_quantized(*args, **options)
    return str(caught.value).splitlines()


def test_what_is_rounded_and_nothing_else_passes_and_gives_its_figures() -> None:
    layer = assert_quantized(X, CODES, SCALE, max_rmse_scale=0.3, max_mean_error=0.05)
    assert layer == qdebug.compare(X, CODES, SCALE)
    assert layer.plot().axes


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4},
        {"narrow_range": True},
        {"axis": 1},
        {"symmetric": True, "axis": 0, "narrow_range": True, "bits": 4},
        {"dtype": "uint8"},
    ],
    ids=str,
)
def test_every_scheme_can_be_asserted(options: dict[str, Any]) -> None:
    pair = qdebug.quantize(X, **options)
    bits, narrow = options.get("bits"), options.get("narrow_range", False)
    found = pair.codes, pair.scale, pair.zero_point, pair.axis
    assert_quantized(X, *found, bits=bits, narrow_range=narrow, max_rmse_scale=0.3)


def test_a_failure_names_tensor_limit_cause_and_advice() -> None:
    truncated = np.floor(X / SCALE).astype(np.int8)
    first, cause, advice = failed(
        X, truncated, SCALE, name="my\x1b kernel", max_rmse_scale=0.3, max_mean_error=0.1
    )
    assert first == (
        r"my\x1b kernel: rmse_scale: found 0.5853, expected <= 0.3; "
        "mean_error_scale: found -0.5088, expected <= 0.1"
    )
    assert cause.startswith("bias: ")
    assert "round to the nearest" in advice


def test_without_a_limit_the_threshold_of_tflite_applies() -> None:
    assert_quantized(X, CODES, SCALE)
    assert "rmse_scale" in failed(X, CODES + np.int8(1), SCALE)[0]
    assert "expected <= 0.7" in failed(X, CODES + np.int8(1), SCALE)[0]
    assert "cause: found non-finite" in failed([np.nan, 0.1], CODES[0, :2], SCALE)[0]


def test_causes_can_be_what_fails() -> None:
    truncated = np.floor(X / SCALE).astype(np.int8)
    assert_quantized(X, truncated, SCALE, fail_on="clipping")
    for causes in ("bias", ["clipping", "bias"]):
        (first, *_) = failed(X, truncated, SCALE, fail_on=causes)
        assert first == "tensor: cause: found bias, expected another"


@pytest.mark.parametrize("x", [[], np.zeros((3, 0))], ids=["none", "no channel"])
def test_nothing_proves_nothing(x: Any) -> None:
    assert failed(x, np.zeros(np.shape(x), np.int8), 0.1) == [
        "tensor: found no element, expected some"
    ]
    assert "no finite element" in failed([np.nan], np.zeros(1, np.int8), 0.1, max_clipped=0)[0]


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((X, CODES[:1], SCALE), {}, "layer 'tensor': field 'quantized': found shape (1, 32)"),
        ((X, X, SCALE), {"name": "conv"}, "layer 'conv': field 'quantized': found float32"),
        ((X, CODES, 0), {}, "layer 'tensor': field 'scale': found 0.0"),
        ((X, CODES, SCALE), {"max_rmse": 1}, "no limit 'max_rmse'; did you mean 'max_rmse_scale'"),
        ((X, CODES, SCALE), {"config": "x.toml"}, "no limit 'config'"),
        ((X, CODES, SCALE), {"min_sqnr": "x"}, "min_sqnr: found 'x', expected a number"),
        ((X, CODES, SCALE), {"fail_on": "bais"}, "fail_on: no cause 'bais'; did you mean 'bias'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_pair_or_no_limit_is_no_failure_but_an_error(
    args: tuple[Any, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(qdebug.QdebugError) as caught:
        assert_quantized(*args, **options)
    assert said in str(caught.value)
