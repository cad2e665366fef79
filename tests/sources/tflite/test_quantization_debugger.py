"""The figures of LiteRT models against those of TensorFlow's own QuantizationDebugger.

Runs where TensorFlow is installed beside ai-edge-litert.
"""

import importlib.util
import json
import subprocess
import sys

import pytest

from qdebug.run import session
from qdebug.sources.tflite.source import LitertModels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("ai_edge_litert") is None,
        reason="needs the extra: pip install 'qdebug[litert]'",
    ),
]


# In a process of its own: TensorFlow warns of itself on import.
DEBUG = """
import json, sys
from pathlib import Path
import keras, numpy as np, tensorflow as tf
from keras import layers as L

folder = Path(sys.argv[1])
keras.utils.set_random_seed(4)
image = keras.Input((12, 12, 3), name="image")
x = L.Conv2D(8, 3, padding="same", name="stem")(image)
x = stem = L.ReLU(6.0, name="stem_relu6")(L.BatchNormalization(name="stem_bn")(x))
x = L.DepthwiseConv2D(3, padding="same", name="dw")(x)
x = L.ReLU(6.0, name="dw_relu6")(L.BatchNormalization(name="dw_bn")(x))
x = L.Add(name="add")([stem, L.Conv2D(8, 1, name="pw")(x)])
x = L.MaxPooling2D(2, name="pool")(x)
x = L.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(x)
x = L.GlobalAveragePooling2D(name="mean")(x)
network = keras.Model(image, L.Softmax(name="out")(L.Dense(5, name="dense")(x)), name="net")
rng = np.random.default_rng(6)
images = rng.normal(size=(30, 12, 12, 3)).astype(np.float32)
np.save(folder / "inputs.npy", images)

def dataset():
    for sample in images:
        yield [sample[None]]

start = tf.lite.TFLiteConverter.from_keras_model
(folder / "float.tflite").write_bytes(start(network).convert())
converter = start(network)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = dataset
debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_dataset=dataset)
debugger.run()
(folder / "debug.tflite").write_bytes(debugger.get_debug_quantized_model())
(folder / "int8.tflite").write_bytes(debugger.get_nondebug_quantized_model())
layers = []
for detail in debugger._get_numeric_verify_tensor_details():
    layers.append({
        "name": detail["name"],
        "scale": float(detail["quantization_parameters"]["scales"][0]),
        **{name: float(value) for name, value in debugger.layer_statistics[detail["name"]].items()},
    })
(folder / "layers.json").write_text(json.dumps(layers))
"""


@pytest.fixture(scope="module")
def debugged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debugger")
    subprocess.run(
        [sys.executable, "-c", DEBUG, str(folder)], capture_output=True, text=True, check=True
    )
    return folder


@pytest.mark.parametrize("models", [["float", "int8"], ["debug"], ["float", "debug"]])
def test_every_layer_has_the_figures_of_the_quantization_debugger(
    debugged, models, record_property
):
    expected = json.loads((debugged / "layers.json").read_text())
    paths = [str(debugged / f"{name}.tflite") for name in models]
    report = session.run(LitertModels(paths, str(debugged / "inputs.npy")))
    activations = [
        row for row in report.layers if row.kind == "activation" and row.op != "QUANTIZE"
    ]
    assert len(activations) == len(expected) == 9
    for row, theirs in zip(activations, expected, strict=True):
        scale, rmse_scale = theirs["scale"], theirs["mean_squared_error"] ** 0.5 / theirs["scale"]
        print(f"{row.op:20} {row.metrics.rmse_scale:.6f} {rmse_scale:.6f}")
        assert row.metrics.num_elements == 30 * theirs["num_elements"]
        assert row.metrics.rmse_scale == pytest.approx(rmse_scale, 0.01, 1e-5)
        assert row.metrics.mean_error == pytest.approx(theirs["mean_error"], 0.01, 1e-3 * scale)
