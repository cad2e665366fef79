"""What is recommended for a layer, and what is not."""

from typing import Any

import numpy as np
import pytest

from qdebug.advise.remedy import Recommendation, recommend
from qdebug.arithmetic.affine import QuantParams
from tests.advise.what_ifs import in_memory

Fields = dict[str, Any]


def recommended(x: np.ndarray, params: QuantParams, **known: Any) -> Recommendation:
    return recommend(in_memory(x, params, **known))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(11).normal(size=shape)


@pytest.mark.slow
def test_a_range_that_clips_or_wastes_is_calibrated_anew() -> None:
    x = np.maximum(normal(20_000), 0)
    for scale in (x.max() / 255 / 3, x.max() / 255 * 3):
        found = recommended(x, QuantParams.of(scale, -128), kind="activation")
        assert found.alternative == "affine"
        assert found.gain_db > 9
        assert "scale" in found.text


@pytest.mark.slow
def test_the_simplest_range_near_the_best_is_taken() -> None:
    x = np.random.default_rng(0).laplace(size=200_000)
    found = recommended(x, QuantParams.of(np.abs(x).max() / 7, bits=4), kind="activation")
    assert found.alternative == "mse"
    assert "% clipped" in found.text
    x = normal(20_000)
    found = in_memory(x, QuantParams.of(np.abs(x).max() / 40, 1), kind="activation")
    gains = {each.name: each.change_db for each in found.alternatives}
    assert gains["affine"] < gains["mse"] < gains["affine"] + 1
    assert recommend(found).alternative == "affine"


def test_a_symmetric_quantizer_of_a_relu_becomes_affine() -> None:
    x = np.maximum(normal(20_000), 0)
    found = recommended(x, QuantParams.of(x.max() / 127), kind="activation")
    assert (found.alternative, round(found.gain_db)) == ("affine", 6)


def test_weights_of_unlike_channels_get_a_scale_each_and_activations_do_not() -> None:
    x = normal(16, 3, 3, 8) * np.logspace(-2, 0, 16)[:, None, None, None]
    params = QuantParams.of(np.abs(x).max() / 127)
    found = recommended(x, params, kind="weight", op="CONV_2D")
    assert found.alternative == "per_channel"
    assert "16 channels of axis 0" in found.text
    alike = normal(200, 50)
    found = in_memory(alike, QuantParams.of(np.abs(alike).max() / 127), kind="weight")
    assert max(each.change_db for each in found.alternatives if each.name == "per_channel") > 3
    assert recommend(found).alternative is None
    y = np.moveaxis(x, 0, -1)
    assert recommended(y, params, kind="activation", op="CONV_2D").alternative is None


@pytest.mark.slow
def test_more_bits_only_where_nothing_else_helps_and_the_signal_suffers() -> None:
    x = np.maximum(normal(640, 32), 0) * 1.5
    x[0, 7] = 382.0
    found = recommended(x, QuantParams.of(382 / 255, -128), kind="activation")
    assert found.alternative == "int16"
    assert "runtimes take one scale for an activation" in found.text
    healthy = recommended(normal(5000), QuantParams.of(np.abs(normal(5000)).max() / 127))
    assert healthy.alternative is None
    assert "rounding at 8 bits" in healthy.text


def test_error_that_was_in_the_codes_is_not_this_quantizers() -> None:
    x = normal(5000)
    params = QuantParams.of(np.abs(x).max() / 120)
    s, _ = params.along(1)
    found = recommended(x, params, q=(np.rint(x / s) + 3).astype(np.int8))
    assert found.alternative is None
    assert "carried rmse/scale 3.00" in found.text


@pytest.mark.parametrize(
    ("x", "known", "words"),
    [
        (np.zeros(9), {}, "All floats are equal"),
        (np.arange(9) * np.float32(0.2), {}, "exact"),
        (np.full(9, np.nan), {}, "No finite element"),
        (np.full(9, 1e300), {}, "too large to square"),
        (normal(9), {"kind": "bias"}, "a bias has"),
        (np.abs(normal(900)), {"kind": "activation", "op": "SOFTMAX"}, "SOFTMAX at 1/256"),
        (normal(900), {"kind": "activation", "op": "MAX_POOL_2D"}, "MAX_POOL_2D its input's"),
    ],
)
def test_what_cannot_be_chosen_is_said(x: np.ndarray, known: Fields, words: str) -> None:
    assert words in recommended(x, QuantParams.of(0.2, 30), **known).text


@pytest.mark.slow
def test_a_lucky_scale_of_a_few_floats_is_no_advice() -> None:
    gains = []
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=9)
        found = in_memory(x, QuantParams.of(np.abs(x).max() / 127), kind="weight")
        gains += [each.change_db for each in found.alternatives if each.change == "range"]
        assert recommend(found).alternative is None
    assert max(gains) > 2.5
