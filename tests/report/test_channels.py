"""The channels of a layer are diagnosed as each would be alone, however many there are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qdebug
from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.measure.layer import Layer
from qdebug.measure.metrics import layer_metrics
from qdebug.report import diagnosis
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import layer_report
from tests.visits import statistics_of

CHANNELS, ELEMENTS = 24, 60


def faulty(rng: np.random.Generator, fault: str, share: float) -> tuple[Any, Any, QuantParams]:
    """A layer per channel; about this share of its channels has the fault."""
    x = rng.normal(size=(CHANNELS, ELEMENTS)) * 10 ** rng.uniform(-2, 2, (CHANNELS, 1))
    chosen = rng.random(CHANNELS) < share
    if fault == "coarse-scale":
        x[chosen, 0] *= 1e4
    scale = np.abs(x).max(axis=1) / 127
    if fault == "range-waste":
        scale[chosen] *= 8
    if fault == "clipping":
        scale[chosen] /= 3
    params = QuantParams.of(scale, 0, "int8", axis=0)
    codes = quantize(x, params)
    if fault == "bias":
        codes[chosen] = np.clip(codes[chosen].astype(int) - 1, -128, 127)
    if fault == "carried":
        noise = rng.integers(-3, 4, x.shape) * chosen[:, None]
        codes = np.clip(codes + noise, -128, 127).astype(np.int8)
    if fault == "non-finite":
        x[chosen, 0] = np.nan
    if fault == "constant":
        x[chosen], codes[chosen] = scale[chosen, None], 1
    return x, codes, params


def diagnosed(x: Any, codes: Any, params: QuantParams) -> Diagnosis | None:
    statistics = statistics_of(x, codes, params)
    layer = Layer("layer", params, x.shape)
    return layer_report(layer, statistics, layer_metrics(statistics, params)).diagnosis


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    fault=st.sampled_from(
        [*diagnosis.CAUSES[:5], "coarse-scale", "range-waste", "constant", "non-finite"]
    ),
    share=st.sampled_from([0.05, 0.4, 0.8, 1.0]),
)
def test_leaving_out_sound_channels_changes_nothing(seed: int, fault: str, share: float) -> None:
    layer = faulty(np.random.default_rng(seed), fault, share)
    found = diagnosed(*layer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "_suspect", lambda columns, *_: columns["num_elements"] > 0)
        assert diagnosed(*layer) == found


@pytest.mark.parametrize("fault", ["bias", "carried", "clipping", "coarse-scale", "range-waste"])
def test_a_fault_of_most_channels_is_the_layers(fault: str) -> None:
    found = diagnosed(*faulty(np.random.default_rng(0), fault, 0.8))
    assert found is not None
    assert found.cause == fault
    assert f"of {CHANNELS} channels" in found.evidence


def test_a_channel_whose_squares_overflow_hides_no_fault_of_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 10))
    q = np.clip(np.round(x / 0.05) + 3, -128, 127).astype(np.int8)  # all zero points are off by 3
    x[:, 3] *= 1e200
    found = qdebug.compare(x, q, np.full(10, 0.05), np.zeros(10, int), axis=1)
    assert found.metrics.rmse_scale is None
    assert found.diagnosis.cause == "bias"
    assert found.diagnosis.evidence.startswith("9 of 10 channels")
