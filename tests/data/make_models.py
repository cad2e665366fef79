"""Make the small .tflite models that the tests of LiteRT models read.

Needs tensorflow-cpu (made with 2.21):

    python tests/data/make_models.py
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.lite.python.convert import mlir_quantize

FOLDER = Path(__file__).resolve().parent
SAMPLES = 50
Shapes = Mapping[str, tuple[int, ...]]
INT8 = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
INT16 = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]


def save(name: str, model: bytes) -> None:
    """Write a model, and say how large it is."""
    (FOLDER / f"{name}.tflite").write_bytes(model)
    print(f"{name:20} {len(model):6} bytes")


def convert(converter: Any) -> bytes:
    """Convert, without all that the converter prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return bytes(converter.convert())


def calibration(shapes: Shapes, signature: str | None = None) -> Callable[[], Iterator[Any]]:
    """A representative dataset: normal numbers for each input."""

    def dataset() -> Iterator[Any]:
        rng = np.random.default_rng(5)
        for _ in range(SAMPLES):
            sample = {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}
            yield sample if signature is None else (signature, sample)

    return dataset


def quantizing(converter: Any, shapes: Shapes | None) -> Any:
    """The converter set up to quantize; weights only where there are no shapes."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if shapes:
        converter.representative_dataset = calibration(shapes)
    return converter


def branches() -> None:
    """Two inputs and outputs; branches of one shape side by side; one value read twice."""
    image, flags = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="flags")
    left = layers.Conv2D(4, 3, padding="same", activation="relu6", name="left")(image)
    right = layers.Conv2D(4, 3, padding="same", activation="relu6", name="right")(image)
    both = layers.MaxPooling2D(2, name="pool")(layers.Concatenate(name="both")([left, right]))
    both = layers.Conv2D(8, 3, strides=2, padding="same", name="down")(both)
    both = layers.Flatten(name="flat")(both)
    gate = layers.Dense(32, activation="tanh", name="gate")(flags)
    score = layers.Dense(3, activation="sigmoid", name="score")(
        layers.Add(name="add")([both, gate])
    )
    level = layers.Dense(2, name="level")(layers.Multiply(name="mul")([both, gate]))
    network = keras.Model([image, flags], [score, level], name="net")
    shapes = {"image": (1, 6, 6, 3), "flags": (1, 4)}
    start = tf.lite.TFLiteConverter.from_keras_model

    save("branches_float", convert(start(network)))
    save("branches_mixed", convert(quantizing(start(network), shapes)))
    for name, ops, dtype in (("int8", INT8, tf.int8), ("uint8", INT8, tf.uint8)):
        converter = quantizing(start(network), shapes)
        converter.target_spec.supported_ops = ops
        converter.inference_input_type = converter.inference_output_type = dtype
        save(f"branches_{name}", convert(converter))
        if dtype == tf.int8:
            converter._experimental_disable_per_channel = True
            save("branches_pertensor", convert(converter))
    converter = quantizing(start(network), shapes)
    converter.target_spec.supported_ops = INT16
    save("branches_int16", convert(converter))
    converter = quantizing(start(network), shapes)
    converter._experimental_calibrate_only = True
    calibrated = convert(converter)
    save("branches_debug", mlir_quantize(calibrated, enable_numeric_verify=True))
    left_out = ["net_1/down_1/convolution1"]
    save("branches_partly", mlir_quantize(calibrated, denylisted_nodes=left_out))


def dynamic_range() -> None:
    """Float activations and, in one layer of two, int8 weights."""
    network = keras.Sequential(
        [
            keras.Input((16,), name="x"),
            layers.Dense(64, activation="relu", name="large"),
            layers.Dense(4, name="small"),
        ],
        name="dense",
    )
    start = tf.lite.TFLiteConverter.from_keras_model
    save("dense_float", convert(start(network)))
    save("dense_dynamic", convert(quantizing(start(network), None)))


def any_size() -> None:
    """An image of any height and width."""
    image = keras.Input((None, None, 1), name="image")
    found = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    found = layers.GlobalAveragePooling2D(name="mean")(found)
    network = keras.Model(image, layers.Dense(3, name="out")(found), name="anysize")
    start = tf.lite.TFLiteConverter.from_keras_model
    save("anysize_float", convert(start(network)))
    save("anysize_int8", convert(quantizing(start(network), {"image": (1, 8, 8, 1)})))


class Signatures(tf.Module):
    """Two functions, of which the second has a loop."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        rng = np.random.default_rng(3)
        self.first = tf.Variable(rng.normal(size=(4, 6)).astype("f4"))
        self.second = tf.Variable(rng.normal(size=(4, 4)).astype("f4") / 2)

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])
    def widen(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """One layer."""
        return {"y": tf.nn.relu(x @ self.first)}

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])
    def repeat(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """One layer, then another four times."""
        start = tf.nn.relu(x @ self.second)
        _, end = tf.while_loop(
            lambda step, value: step < 4,
            lambda step, value: (step + 1, tf.tanh(value @ self.second)),
            (tf.constant(0), start),
        )
        return {"y": end @ self.second}


def signatures() -> None:
    """Two signatures, one with a loop."""
    module = Signatures()

    def start() -> Any:
        functions = [module.widen.get_concrete_function(), module.repeat.get_concrete_function()]
        return tf.lite.TFLiteConverter.from_concrete_functions(functions, module)

    save("signatures_float", convert(start()))
    converter = quantizing(start(), None)

    def dataset() -> Iterator[Any]:
        for name in ("widen", "repeat"):
            yield from calibration({"x": (1, 4)}, name)()

    converter.representative_dataset = dataset
    save("signatures_int8", convert(converter))


def main() -> None:
    """Make all models anew."""
    for make in (branches, dynamic_range, any_size, signatures):
        keras.utils.set_random_seed(1)
        make()


if __name__ == "__main__":
    main()
