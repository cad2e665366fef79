"""Quantizing again: the settings are those that the quantized model was made with."""

from pathlib import Path

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.sources.onnx.source import OnnxModels
from tests.sources.onnx.models import (
    STATIC,
    Calibration,
    QuantFormat,
    QuantType,
    message,
    network,
    onnx,
    quantize_static,
)

CALIBRATED = np.concatenate([sample["x"] for sample in Calibration().left])
OTHERS = {
    "symmetric": {"extra_options": {"ActivationSymmetric": True}},
    "symmetric-uint8": {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
        "extra_options": {"WeightSymmetric": True},
    },
    "reduced": {"reduce_range": True},
    "float-biases": {"extra_options": {"QuantizeBias": False}},
    "without-two": {"nodes_to_exclude": ["conv2", "add"]},
    "without-the-last": {"nodes_to_exclude": ["softmax", "dense"]},
    "convolutions-only": {"op_types_to_quantize": ["Conv"]},
    "qop-without-two": {
        "quant_format": QuantFormat.QOperator,
        "nodes_to_exclude": ["conv2", "add"],
    },
}


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("apply") / "float.onnx"
    onnx.save(network(), path)
    return path


def quantized(floats: Path, path: Path, **how) -> Path:
    quantize_static(floats, path, Calibration(), **how)
    return path


def parts(model):
    """Operators and constants; the converter's order of constants follows its arguments."""
    constants = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    return constants, {node.name: node.SerializeToString() for node in model.graph.node}


def again(floats: Path, path: Path, left=()):
    models = OnnxModels([str(floats), str(path)], CALIBRATED)
    return models.requantized(left)


@pytest.mark.slow
@pytest.mark.parametrize("how", [*STATIC, *OTHERS])
def test_leaving_nothing_in_float_gives_the_same_model(how, floats: Path, tmp_path: Path) -> None:
    path = quantized(floats, tmp_path / "quantized.onnx", **(STATIC | OTHERS)[how])
    made = again(floats, path)
    assert parts(onnx.load_from_string(made.model)) == parts(onnx.load(path))
    assert made.before == made.after


def test_the_nodes_are_left_in_float_and_the_output_is_measured(
    floats: Path, tmp_path: Path
) -> None:
    path = quantized(floats, tmp_path / "quantized.onnx", per_channel=True)
    made = again(floats, path, ["dense", "softmax"])
    expected = quantized(
        floats, tmp_path / "again.onnx", per_channel=True, nodes_to_exclude=["dense", "softmax"]
    )
    assert parts(onnx.load_from_string(made.model)) == parts(onnx.load(expected))
    (before,), (after,) = made.before, made.after
    assert before.name == after.name == "p"
    assert after.sqnr_db > before.sqnr_db
    assert before.num_samples == len(CALIBRATED)


def test_other_calibration_samples_give_other_ranges(floats: Path, tmp_path: Path) -> None:
    path = quantized(floats, tmp_path / "quantized.onnx")
    models = OnnxModels([str(floats), str(path)], CALIBRATED)
    made = models.requantized([], 2 * CALIBRATED)
    assert made.after != made.before
    assert message(models.requantized, [], CALIBRATED[:, :2]).startswith("inputs: found shape")


def test_what_the_converter_cannot_do_is_one_line(
    floats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime import quantization

    path = quantized(floats, tmp_path / "quantized.onnx")
    models = OnnxModels([str(floats), str(path)])
    assert "found no samples" in message(models.requantized, [])

    def fails(*args, **kwargs):
        raise RuntimeError("no\nway")

    monkeypatch.setattr(quantization, "quantize_static", fails)
    with pytest.raises(QdebugError, match=r"float.onnx: quantize_static: no way"):
        again(floats, path)


@pytest.mark.slow
def test_dynamic_models_are_refused(floats: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(floats, path)
    assert "expected a statically quantized model" in message(again, floats, path)
