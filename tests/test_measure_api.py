"""Measuring from Python: `qdebug.suggest` and `qdebug.analyze(measure=True)`."""

import numpy as np
import pytest

import qdebug
from qdebug import QdebugError

pytest.importorskip("onnx", reason="needs qdebug[onnx]")
pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    from tests.sources.onnx.models import Calibration, QuantFormat, network, onnx, quantize_static

    folder = tmp_path_factory.mktemp("pair")
    onnx.save(network(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "int8.onnx", Calibration(), quant_format=QuantFormat.QDQ
    )
    return [folder / "float.onnx", folder / "int8.onnx"]


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(12).normal(size=(8, 3, 8, 8)).astype(np.float32)


def test_suggest_takes_paths_and_arrays(pair, inputs):
    found = qdebug.suggest(*pair, inputs=inputs, budget="90%", samples=6)
    assert found.outputs == ["p"]
    assert (found.num_operators, found.num_samples) == (9, 6)
    assert found.own_db == found.all_on_db < found.all_off_db == 120
    assert not found.timed_out


def test_a_report_holds_what_was_measured_and_keeps_it(pair, inputs, tmp_path):
    report = qdebug.analyze(*pair, inputs=inputs, measure=True)
    measured = report["p"].measured
    assert measured.alone_db > 20
    assert measured.gain_stderr_db >= 0
    assert report["w1"].measured is None
    report.save(tmp_path / "report.json")
    assert qdebug.load(tmp_path / "report.json") == report
    assert qdebug.analyze(*pair, inputs=inputs)["p"].measured is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top": 0}, "top: found 0"),
        ({"budget": "x"}, "budget: found 'x'"),
        ({"target": "x"}, "target: found 'x'"),
        ({"time_limit": 0}, "time_limit: found 0, expected seconds above 0"),
        ({"inputs": None}, r"found no inputs \(--inputs\)"),
    ],
)
def test_bad_arguments_are_told(pair, inputs, options, said):
    with pytest.raises(QdebugError, match=said):
        qdebug.suggest(*pair, **{"inputs": inputs, **options})


def test_pairs_in_memory_cannot_be_measured():
    with pytest.raises(QdebugError, match="measure: found pairs, expected a float and a quantized"):
        qdebug.analyze({"a": qdebug.quantize([0.1, 0.2])}, measure=True)
