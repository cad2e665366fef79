"""Make the models beside this file, and the figures that TensorFlow's own debugger has of them.

Needs tensorflow-cpu (made with 2.21):

    python tests/data/quantization_debugger/make.py [FOLDER]
"""

import contextlib
import io
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

SHAPE = (12, 12, 3)
SAMPLES = 30


def network() -> Any:
    """Convolutions with batch normalization and ReLU6, a residual, pools, dense and softmax."""
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = stem = layers.ReLU(6.0, name="stem_relu6")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    x = layers.ReLU(6.0, name="dw_relu6")(layers.BatchNormalization(name="dw_bn")(x))
    x = layers.Add(name="add")([stem, layers.Conv2D(8, 1, name="pw")(x)])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(x)
    x = layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(image, layers.Softmax(name="out")(x), name="net")


def verified(model: bytes, images: NDArray[np.float32]) -> dict[str, int]:
    """NumericVerify tensor -> CRC-32 of the codes that it compares, of all samples."""
    # Just as the debugger runs it.
    interpreter = tf.lite.Interpreter(model_content=model, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    operators = [o for o in interpreter._get_ops_details() if o["op_name"] == "NumericVerify"]
    found = {names[operator["outputs"][0]]: 0 for operator in operators}
    for sample in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        for operator in operators:
            name = names[operator["outputs"][0]]
            codes = interpreter.get_tensor(operator["inputs"][0])
            found[name] = zlib.crc32(codes.tobytes(), found[name])
    return found


def main(folder: Path) -> None:
    """Write the models, their inputs, and what the debugger says of each layer."""
    keras.utils.set_random_seed(4)
    model = network()
    images = np.random.default_rng(6).normal(size=(SAMPLES, *SHAPE)).astype(np.float32)

    def dataset() -> Iterator[Any]:
        for sample in images:
            yield [sample[None]]

    start = tf.lite.TFLiteConverter.from_keras_model
    with contextlib.redirect_stdout(io.StringIO()):  # the converter prints much
        floats = start(model).convert()
        converter = start(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = dataset
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=dataset
        )
        debugger.run()
        debug = debugger.get_debug_quantized_model()
        int8 = debugger.get_nondebug_quantized_model()
    np.save(folder / "inputs.npy", images)
    for name, content in (("float", floats), ("debug", debug), ("int8", int8)):
        (folder / f"{name}.tflite").write_bytes(content)
    codes = verified(debug, images)
    found = [
        {
            "name": detail["name"],
            "scale": float(detail["quantization_parameters"]["scales"][0]),
            "codes_crc32": codes[detail["name"]],
            **{k: float(v) for k, v in debugger.layer_statistics[detail["name"]].items()},
        }
        for detail in debugger._get_numeric_verify_tensor_details()
    ]
    known = {"tensorflow": tf.__version__, "samples": SAMPLES, "layers": found}
    (folder / "layers.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
