"""The diagnosis names planted faults, and nothing where nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.diagnosis import CAUSES, Diagnosis, Subject, diagnose, origin
from qdebug.report.tflite_csv import read_csv
from qdebug.run import session
from qdebug.sources.pair_file.read import PairFiles
from tests import faults
from tests.paths import ROOT, SAMPLES

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]


@pytest.mark.slow
def test_at_least_99_percent_of_gross_faults_are_named() -> None:
    """As docs/diagnosis.md shows."""
    counts = faults.confusion(0, faults.EACH)
    for fault in faults.FAULTS:
        row = {cause: n for (true, cause), n in counts.items() if true == fault}
        assert sum(row.values()) > 500
        assert row[fault] >= 0.99 * sum(row.values()), (fault, row)
    page = (ROOT / "docs/diagnosis.md").read_text()
    assert f"$ python tests/faults.py\n{faults.shown(counts)}```" in page, "run `make docs`"


def diagnoses(path: Path) -> dict[str, Diagnosis]:
    layers = session.run(PairFiles([str(path)])).layers
    return {layer.name: layer.diagnosis for layer in layers if layer.diagnosis}


def test_each_planted_fault_of_the_samples_is_named_and_the_others_are_not() -> None:
    found = diagnoses(SAMPLES / "digits_faulty.npz")
    planted = {
        "stem_bn_1/batchnorm/sub1": ("bad", "bias", "the zero point is off by +3: -128 would fit"),
        "block_dw_bn_1/batchnorm/sub1": ("warn", "range-waste", "the scale could be"),
        "block_pw_bn_1/batchnorm/sub1": ("warn", "bias", "rounded down"),
        "block_add_1/Add": ("bad", "clipping", "widen the range to [0, 5.89]"),
        "tail_bn_1/batchnorm/sub1": ("warn", "coarse-scale", "use 16 bits or a scale per channel"),
    }
    for part, (verdict, cause, advice) in planted.items():
        ((name, diagnosis),) = [(n, d) for n, d in found.items() if n.endswith(part)]
        assert (diagnosis.verdict, diagnosis.cause) == (verdict, cause)
        assert advice in diagnosis.advice
        del found[name]
    assert {d.cause for d in found.values()} <= {"ok", "carried"}
    assert {d.verdict for d in found.values()} <= {"ok", "warn"}


def test_a_sound_network_has_nothing_bad() -> None:
    found = diagnoses(SAMPLES / "digits.npz")
    assert {d.verdict for d in found.values()} <= {"ok", "warn"}
    assert {d.cause for d in found.values()} <= {"ok", "weights"}


def test_causes_are_the_contracts() -> None:
    assert set(CAUSES) == {
        *("ok", "clipping", "bias", "wrong-scale", "carried", "inherited", "coarse-scale"),
        *("range-waste", "constant", "non-finite", "unreadable", "weights", "arithmetic"),
    }


def one(layer: Fields, write_pairs: Write) -> Diagnosis:
    return diagnoses(write_pairs({"layer": layer}))["layer"]


def test_evidence_and_advice_of_clipping_are_figures(write_pairs: Write) -> None:
    x = np.linspace(0, 8.4, 10_001)
    codes = np.clip(np.round(x / (6 / 255)), 0, 255).astype(np.uint8)
    found = one({"float": x, "quantized": codes, "scale": 6 / 255}, write_pairs)
    assert (found.verdict, found.cause) == ("bad", "clipping")
    assert "28.4 % of the floats lie above 6, the largest representable value" in found.evidence
    assert "they make 100 % of this quantizer's error" in found.evidence
    assert "widen the range to [0, 8.4]: scale 0.0329" in found.advice


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9])
def test_truncation_is_seen_however_many_zeros_dilute_it(zeros: float, write_pairs: Write) -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random(20_000) < zeros, 0, rng.uniform(0, 2, 20_000))
    codes = np.floor(x / 0.01).astype(np.uint8)
    found = one({"float": x, "quantized": codes, "scale": 0.01}, write_pairs)
    assert found.cause == "bias"
    assert "the error is -0.5" in found.evidence
    assert "round to the nearest instead of truncating" in found.advice


def test_a_cast_truncates_toward_zero(write_pairs: Write) -> None:
    x = np.random.default_rng(0).normal(size=20_000)
    found = one({"float": x, "quantized": (x / 0.04).astype(np.int8), "scale": 0.04}, write_pairs)
    assert found.cause == "bias"
    assert "steps away from zero; without it rmse/scale would be 0.29 " in found.evidence
    assert "truncated toward zero, as a cast does" in found.advice


def test_int8_read_as_uint8_is_named_in_the_advice(write_pairs: Write) -> None:
    x = np.random.default_rng(0).normal(size=5000)
    codes = np.clip(np.rint(x / 0.04), -128, 127).astype(np.int8)
    for zero_point in (0, 128):
        read_as = {"float": x, "quantized": codes.view(np.uint8), "scale": 0.04}
        found = one(read_as | {"zero_point": zero_point}, write_pairs)
        assert found.cause == "bias"
        assert found.advice == "the codes were most likely int8, read as uint8: read them as int8"


def test_a_wrong_scale_is_given_with_the_right_one(write_pairs: Write) -> None:
    x = np.random.default_rng(0).normal(size=5000)
    codes = np.clip(np.rint(x / 0.03), -128, 127).astype(np.int8)
    found = one({"float": x, "quantized": codes, "scale": 0.02}, write_pairs)
    assert (found.verdict, found.cause) == ("bad", "wrong-scale")
    assert "record scale 0.0300" in found.advice or "record scale 0.0299" in found.advice


def test_a_small_layer_is_said_to_be_small(write_pairs: Write) -> None:
    found = one({"float": np.array([0.33]), "quantized": np.int8([0]), "scale": 1.0}, write_pairs)
    assert (found.verdict, found.cause) == ("ok", "ok")
    assert "only 1 element: too few to say more" in found.evidence


def test_ten_elements_at_a_third_of_a_step_are_fine_a_million_are_not(write_pairs: Write) -> None:
    for count, cause in [(10, "ok"), (1_000_000, "carried")]:
        rng = np.random.default_rng(1)
        x = rng.uniform(-100, 100, count)
        codes = np.rint(x + rng.normal(0, 0.16, count)).astype(np.int8)
        assert one({"float": x, "quantized": codes, "scale": 1.0}, write_pairs).cause == cause


def test_the_faulty_channels_are_counted_and_the_worst_is_named(write_pairs: Write) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(32, 500))
    scale = np.abs(x).max(axis=1) / 127
    codes = np.rint(x / scale[:, None])
    codes[7] += 1
    codes[9] += 3
    codes = codes.clip(-128, 127).astype(np.int8)
    layer = {"float": x, "quantized": codes, "scale": scale, "axis": 0}
    found = one(layer, write_pairs)
    assert found.cause == "bias"
    assert found.evidence.startswith("2 of 32 channels; the worst is 9 (rmse/scale 3")


def test_not_a_number_is_bad_whatever_else(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].copy()
    x[3] = np.nan
    found = one(healthy | {"float": x}, write_pairs)
    assert (found.verdict, found.cause) == ("bad", "non-finite")
    assert "1 of 1000 floats" in found.evidence


def unknown(**known: float | int) -> Metrics:
    return Metrics(**(dict.fromkeys(FIGURES) | {"num_elements": 1000} | known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "cause"),
    [
        ({"rmse_scale": 0.29, "mean_error_scale": 0.0}, "ok"),
        ({"rmse_scale": 0.577, "mean_error_scale": -0.5}, "bias"),
        ({"rmse_scale": 3.0, "mean_error_scale": 0.1}, None),
        ({}, None),
    ],
)
def test_partly_known_figures_tell_what_they_can(
    known: dict[str, float], cause: str | None
) -> None:
    found = diagnose(Subject(unknown(**known), "int8", 8, -128, 127, 0.1, 0))
    assert found.cause == cause
    if cause is None:
        assert "needs the tensors" in found.evidence


def test_a_report_of_tensorflow_is_diagnosed_as_far_as_it_goes(tmp_path: Path) -> None:
    head = "op_name,tensor_idx,num_elements,stddev,mean_error,max_abs_error,mean_squared_error"
    path = tmp_path / "stats.csv"
    path.write_text(
        f"{head},scale,zero_point,tensor_name\n"
        "CONV_2D,7,1000,0.0288,-0.05,0.1,0.00333,0.1,0,truncated\n"
        "ADD,8,1000,0.3,0.001,0.9,0.09,0.1,0,bad\n"
    )
    first, second = (layer.diagnosis for layer in read_csv(str(path)).layers)
    assert first is not None
    assert second is not None
    assert (first.cause, second.cause) == ("bias", None)


def figures(model_sqnr_db: float, inherited: float, own: float = 0.3) -> Metrics:
    return unknown(
        rmse_scale=own,
        model_rmse_scale=(inherited**2 + own**2) ** 0.5,
        inherited_rmse_scale=inherited,
        model_sqnr_db=model_sqnr_db,
    )


def test_inherited_error_is_traced_to_the_layer_where_it_began() -> None:
    metrics = [figures(45, 0.0), figures(44, 0.2), None, figures(22, 0.2, 2.0), figures(21, 1.9)]
    names = ["input", "a", "weights", "culprit", "victim"]
    assert "0.2 inherited, 2 made here" in str(origin(metrics, names, 3))
    assert "1.9 inherited, 0.3 made here (they add in squares), seen first at 'culprit'" in str(
        origin(metrics, names, 4)
    )
    assert origin(metrics, names, 2) is None


@pytest.mark.parametrize(
    ("whole", "add"), [(5.0, True), (5.2, True), (4.8, True), (6.0, False), (4.0, False)]
)
def test_errors_are_said_to_add_in_squares_only_where_they_do(whole: float, add: bool) -> None:
    """3 and 4 make 5; a part that cancels or amplifies the other makes something else."""
    metrics = replace(figures(20, 4.0, 3.0), model_rmse_scale=whole)
    assert ("add in squares" in str(origin([metrics], ["a"], 0))) == add
