"""Causes that lie upstream: held against the float model's own run, followed through the graph."""

from typing import Any

import numpy as np
import pytest

import qdebug
from qdebug import Pair, Report


def pair(x: np.ndarray, model: np.ndarray, op: str, *inputs: str, low: float, high: float) -> Pair:
    """Floats that arrive and the float model's own, quantized to a range."""
    scale = (high - low) / 255
    zero_point = int(np.rint(-128 - low / scale))
    with np.errstate(invalid="ignore"):
        codes = np.clip(np.nan_to_num(np.rint(x / scale)) + zero_point, -128, 127).astype(np.int8)
    return Pair(
        x, codes, scale, zero_point, model_float=model, op=op, kind="activation", inputs=inputs
    )


def values(made: Pair) -> np.ndarray:
    return (made.codes.astype(float) - made.zero_point[0]) * made.scale[0]


def causes(report: Report) -> dict[str, tuple[str, str | None]]:
    return {
        layer.name: (layer.diagnosis.verdict, layer.diagnosis.cause)
        for layer in report
        if layer.diagnosis
    }


@pytest.fixture
def layer_norm() -> dict[str, Pair]:
    """A variance that is zero in its codes, its inverse root, and what follows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 32))
    variance = 10 ** rng.uniform(-6, 0, size=(64, 1)) * np.ones((64, 32))
    model = x / np.sqrt(variance)
    pairs = {"x": pair(x, x, "Conv", low=x.min(), high=x.max())}
    pairs["variance"] = pair(variance, variance, "Add", "x", low=0, high=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / np.sqrt(values(pairs["variance"]))
        sound = 1 / np.sqrt(variance)
        pairs["inverse"] = pair(inverse, sound, "Reciprocal", "variance", low=0, high=1000)
        wide = 30 * np.nan_to_num(x * inverse, posinf=9, neginf=-9) + 5 * model
    largest = np.abs(model).max()
    pairs["scaled"] = pair(wide, model, "Mul", "x", "inverse", low=-largest, high=largest)
    return pairs


def test_one_layer_is_at_fault_and_the_others_name_it(layer_norm: dict[str, Pair]) -> None:
    report = qdebug.analyze(layer_norm)
    assert causes(report) == {
        "x": ("ok", "ok"),
        "variance": ("bad", "coarse-scale"),
        "inverse": ("bad", "inherited"),
        "scaled": ("bad", "inherited"),
    }
    for name in ("inverse", "scaled"):
        diagnosis = report[name].diagnosis
        assert diagnosis is not None
        assert "the error enters at 'variance' (coarse-scale)" in diagnosis.evidence
        assert diagnosis.advice == "look at 'variance' first"


def test_without_the_float_models_run_the_float_model_may_be_broken(
    layer_norm: dict[str, Pair],
) -> None:
    alone = {
        name: Pair(p.floats, p.codes, p.scale, p.zero_point, op=p.op, inputs=p.inputs)
        for name, p in layer_norm.items()
    }
    assert causes(qdebug.analyze(alone))["inverse"] == ("bad", "non-finite")


def test_a_float_model_that_is_broken_itself_is_named(layer_norm: dict[str, Pair]) -> None:
    broken = layer_norm["inverse"]
    layer_norm["inverse"] = Pair(
        broken.floats, broken.codes, broken.scale, broken.zero_point,
        model_float=broken.floats, op="Reciprocal", inputs=("variance",),
    )  # fmt: skip
    assert causes(qdebug.analyze(layer_norm))["inverse"] == ("bad", "non-finite")


def masked(size: float) -> dict[str, Pair]:
    """Attention: scores, scores with a mask, and the softmax of both."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(40, 64)) * 3
    with_mask = np.where(rng.random(scores.shape) < 0.4, -size, scores)

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        softened: np.ndarray = e / e.sum(axis=1, keepdims=True)
        return softened

    pairs = {"scores": pair(scores, scores, "MatMul", low=scores.min(), high=scores.max())}
    pairs["masked"] = pair(with_mask, with_mask, "Add", "scores", low=-size, high=with_mask.max())
    pairs["softmax"] = pair(
        softmax(values(pairs["masked"])), softmax(with_mask), "Softmax", "masked", low=0, high=1
    )
    return pairs


@pytest.mark.parametrize("size", [1e4, 1e30, 3.4e38])
def test_a_mask_that_takes_the_whole_range_is_bad(size: float) -> None:
    report = qdebug.analyze(masked(size))
    found = causes(report)
    assert found["scores"] == ("ok", "ok")
    assert found["masked"] == ("bad", "coarse-scale")
    assert found["softmax"][1] in ("ok", "inherited")
    diagnosis = report["masked"].diagnosis
    assert diagnosis is not None
    assert "clip large values" in diagnosis.advice


def test_a_mask_of_the_scores_own_size_is_sound() -> None:
    assert {cause for _, cause in causes(qdebug.analyze(masked(20))).values()} == {"ok"}


def test_a_softmax_may_lose_its_small_probabilities() -> None:
    rng = np.random.default_rng(2)
    logits = 4 * rng.normal(size=(50, 1000))
    x = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = np.clip(np.rint(x * 256) - 128, -128, 127).astype(np.int8)
    for op in ("Softmax", None):
        found = qdebug.analyze({"y": Pair(x, codes, 1 / 256, -128, op=op)})["y"]
        assert found.metrics is not None
        assert found.metrics.lost is not None
        assert found.metrics.lost > 0.5
        assert found.diagnosis is not None
        assert found.diagnosis.cause == "ok"


def test_boxes_joined_with_scores_are_bad_though_their_sqnr_is_high() -> None:
    rng = np.random.default_rng(3)
    boxes, scores = rng.uniform(0, 320, (1, 4, 500)), rng.uniform(0, 1, (1, 18, 500)) ** 8
    both = np.concatenate([boxes, scores], axis=1)
    pairs = {
        "boxes": pair(boxes, boxes, "Mul", low=0, high=320),
        "scores": pair(scores, scores, "Sigmoid", low=0, high=1),
        "joined": pair(both, both, "Concat", "boxes", "scores", low=0, high=320),
    }
    report = qdebug.analyze(pairs)
    joined = report["joined"]
    assert joined.metrics is not None
    assert joined.metrics.sqnr_db is not None
    assert joined.metrics.sqnr_db > 40
    assert causes(report)["joined"] == ("bad", "coarse-scale")
    assert joined.diagnosis is not None
    assert "'scores' is joined with larger values" in joined.diagnosis.evidence


def test_maps_of_one_size_may_be_joined() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 1, 8, 100))
    both = np.concatenate([first, second], axis=1)
    pairs = {
        "first": pair(first, first, "Conv", low=-4, high=4),
        "second": pair(second, second, "Conv", low=-4, high=4),
        "joined": pair(both, both, "Concat", "first", "second", low=-5, high=5),
    }
    assert causes(qdebug.analyze(pairs))["joined"] == ("ok", "ok")


def test_moved_codes_have_the_verdict_of_their_source() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 64, 20))
    x[1] *= 0.1
    part = x[1]
    pairs = {
        "x": pair(x, x, "Conv", low=x.min(), high=x.max()),
        "part": pair(part, part, "Split", "x", low=x.min(), high=x.max()),
    }
    alone: dict[str, Any] = {"part": pairs["part"]}
    assert causes(qdebug.analyze(alone))["part"] == ("warn", "range-waste")
    assert causes(qdebug.analyze(pairs))["part"] == ("ok", "ok")


def test_what_constants_alone_compute_may_be_constant() -> None:
    x = np.full((1, 400), 32.0)
    fixed = pair(x, x, "Add", low=0, high=32)
    given = Pair(x, fixed.codes, fixed.scale, fixed.zero_point, inputs=())
    assert causes(qdebug.analyze({"stride": fixed, "input": given})) == {
        "stride": ("ok", "ok"),
        "input": ("warn", "constant"),
    }
