"""Tensors that are left out, with the reason."""

from pathlib import Path

import numpy as np
import pytest

from qdebug.run.session import run
from qdebug.sources.onnx.source import OnnxModels
from tests.sources.onnx.models import NODE, made, message, numpy_helper, onnx

HIDDEN = 8


def recurrent(folder: Path, dense: bool) -> tuple[Path, Path]:
    """An LSTM, alone or with a Gemm behind it, and its dynamically quantized twin."""
    from onnxruntime.quantization import quantize_dynamic

    rng = np.random.default_rng(0)

    def constant(name, *shape):
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [NODE("LSTM", ["x", "w", "r"], ["", "h"], "lstm", hidden_size=HIDDEN)]
    constants = [constant("w", 1, 4 * HIDDEN, 5), constant("r", 1, 4 * HIDDEN, HIDDEN)]
    if dense:
        nodes.append(NODE("MatMul", ["h", "wd"], ["y"], "dense"))
        constants.append(constant("wd", HIDDEN, 3))
    outputs = {"y": [1, 1, 3]} if dense else {"h": [1, 1, HIDDEN]}
    onnx.save(made(nodes, {"x": [7, 1, 5]}, outputs, constants, 17), folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    return folder / "float.onnx", folder / "dynamic.onnx"


@pytest.mark.slow
def test_weights_of_an_lstm_are_left_out_with_a_note(tmp_path: Path) -> None:
    floats, dynamic = recurrent(tmp_path, dense=True)
    report = run(OnnxModels([str(floats), str(dynamic)], np.ones((2, 7, 1, 5), np.float32)))
    assert [layer.name for layer in report.layers] == ["wd"]
    (note,) = (note for note in report.notes if "LSTM" in note)
    assert note == (
        "2 tensors ('w_quantized', 'r_quantized') are left out: "
        "weights of DynamicQuantizeLSTM are not read"
    )


@pytest.mark.slow
def test_a_model_with_nothing_else_is_told_so(tmp_path: Path) -> None:
    floats, dynamic = recurrent(tmp_path, dense=False)
    inputs = np.ones((2, 7, 1, 5), np.float32)
    assert "'w_quantized': weights of DynamicQuantizeLSTM are not read" in message(
        OnnxModels, [str(floats), str(dynamic)], inputs
    )


@pytest.mark.slow
def test_activations_of_a_dynamic_model_share_a_note(models: Path) -> None:
    paths = [str(models / "float.onnx"), str(models / "dynamic.onnx")]
    notes = run(OnnxModels(paths, str(models / "x.npy"))).notes
    (note,) = (note for note in notes if "computed at run time" in note)
    assert note.startswith("4 tensors ('x', 'r1', 'r6', ...) are left out: the scale is computed")
