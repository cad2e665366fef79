"""Make the sample files: a small real network, its int8 version, and pair files of both.

Trains a convolutional network on scikit-learn's handwritten digits, converts it to a float and a
full-integer model, runs both on held-out samples, and writes every weight, bias and activation as
a float/quantized pair. README.md in this folder says what each file is for.

Needs tensorflow-cpu, scikit-learn and qdebug[litert]:

    python sample_models/make_samples.py
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # both are read when TensorFlow is imported
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # oneDNN adds in an order that depends on the machine

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from qdebug.cli import main as qdebug

Array = NDArray[Any]
Layer = dict[str, Array]  # the fields of a layer, as a pair file has them

FOLDER = Path(__file__).resolve().parent
SEED = 20
EPOCHS = 30
CALIBRATION_SAMPLES = 200
PAIR_SAMPLES = 40
INT8_MIN, INT8_MAX = -128, 127
OUTLIER = 40


# --- the data and the network -----------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """8x8 images with values 0..1 (sample, row, column, 1), and the digit on each."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_data() -> Digits:
    """Load scikit-learn's digits, a fifth of them held out, every digit with its share in both."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16.0).astype(np.float32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def build_network() -> keras.Model:
    """Build a stem, a depthwise-separable residual block and a classifier: 3066 parameters.

    Every convolution has a batch normalization, which the converter folds away and remembers in
    the long `a;b;c` names of its tensors.
    """
    image = keras.Input((8, 8, 1), name="image")
    stem = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem_conv")(image)
    stem = layers.BatchNormalization(name="stem_bn")(stem)
    stem = layers.ReLU(6.0, name="stem_relu6")(stem)

    block = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="block_dw")(stem)
    block = layers.BatchNormalization(name="block_dw_bn")(block)
    block = layers.ReLU(6.0, name="block_dw_relu6")(block)
    block = layers.Conv2D(8, 1, use_bias=False, name="block_pw")(block)
    block = layers.BatchNormalization(name="block_pw_bn")(block)
    block = layers.Add(name="block_add")([stem, block])
    block = layers.ReLU(name="block_relu")(block)

    tail = layers.AveragePooling2D(2, name="pool")(block)
    tail = layers.Conv2D(32, 3, padding="same", use_bias=False, name="tail_conv")(tail)
    tail = layers.BatchNormalization(name="tail_bn")(tail)
    tail = layers.ReLU(name="tail_relu")(tail)
    tail = layers.GlobalAveragePooling2D(name="gap")(tail)
    logits = layers.Dense(10, name="logits")(tail)
    return keras.Model(image, layers.Softmax(name="probabilities")(logits), name="digits")


def train(data: Digits) -> keras.Model:
    """Train the network, the same way every time."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    network = build_network()
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    network.fit(data.train_images, data.train_labels, batch_size=32, epochs=EPOCHS, verbose=0)
    return network


# --- conversion -------------------------------------------------------------------------------


def convert(converter: tf.lite.TFLiteConverter) -> bytes:
    """Convert, without the list of all variables that the converter prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return bytes(converter.convert())


def convert_float(network: keras.Model) -> bytes:
    """Convert the network to a float `.tflite`."""
    return convert(tf.lite.TFLiteConverter.from_keras_model(network))


def convert_int8(network: keras.Model, calibration: Array) -> bytes:
    """Convert the network to int8, its input and output too; weights are per channel."""

    def representative_dataset() -> Iterator[list[Array]]:
        for sample in calibration:
            yield [sample[np.newaxis]]

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return convert(converter)


# --- running ----------------------------------------------------------------------------------


def quantize(x: Array, scale: Array, zero_point: Array) -> Array:
    """Round x to the nearest int8 codes."""
    codes: Array = np.rint(x.astype(np.float64) / scale) + zero_point
    return codes.clip(INT8_MIN, INT8_MAX).astype(np.int8)


def quantized_input(model: bytes, images: Array) -> Array:
    """Quantize the images as an int8 model wants them."""
    scale, zero_point = Interpreter(model_content=model).get_input_details()[0]["quantization"]
    return quantize(images, scale, zero_point)


def accuracy(model: bytes, images: Array, labels: Array) -> float:
    """Count the images whose largest output is the right digit, as a share of all."""
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    right = 0
    for sample, label in enumerate(labels):
        interpreter.set_tensor(image, images[sample : sample + 1])
        interpreter.invoke()
        right += int(interpreter.get_tensor(output).argmax() == label)
    return right / len(labels)


# --- faults -----------------------------------------------------------------------------------


def requantize(layer: Layer, low: float, high: float) -> Layer:
    """Quantize the layer's floats anew, with codes that span low..high."""
    scale = np.array((high - low) / (INT8_MAX - INT8_MIN), dtype=np.float32)
    zero_point = np.array(np.rint(INT8_MIN - low / scale), dtype=np.int32)
    codes = quantize(layer["float"], scale, zero_point)
    return {**layer, "quantized": codes, "scale": scale, "zero_point": zero_point}


def shift_zero_point(layer: Layer) -> Layer:
    """Leave the codes as they are and record a zero point that is 3 too high."""
    return {**layer, "zero_point": layer["zero_point"] + 3}


def widen_range(layer: Layer) -> Layer:
    """Take the range 2.5 times too wide, so that three codes in five are never used."""
    scale = np.array(2.5 * layer["scale"], dtype=np.float32)
    codes = quantize(layer["float"], scale, layer["zero_point"])
    return {**layer, "quantized": codes, "scale": scale}


def truncate(layer: Layer) -> Layer:
    """Round every code down instead of to the nearest."""
    codes = np.floor(layer["float"].astype(np.float64) / layer["scale"]) + layer["zero_point"]
    return {**layer, "quantized": np.clip(codes, INT8_MIN, INT8_MAX).astype(np.int8)}


def clip_range(layer: Layer) -> Layer:
    """Take a range that ends below the largest 4 % of the floats."""
    x = layer["float"]
    return requantize(layer, float(x.min()), float(np.percentile(x, 96)))


def add_outlier(layer: Layer) -> Layer:
    """Make the largest float OUTLIER times larger and take the range from minimum to maximum."""
    floats = layer["float"].copy()
    floats.flat[floats.argmax()] *= OUTLIER
    return requantize({**layer, "float": floats}, float(floats.min()), float(floats.max()))


# The activation that a fault is put in, by the start of its name.
FAULTS: dict[str, Callable[[Layer], Layer]] = {
    "digits_1/stem_": shift_zero_point,
    "digits_1/block_dw_": widen_range,
    "digits_1/block_pw_": truncate,
    "digits_1/block_relu_": clip_range,
    "digits_1/tail_": add_outlier,
}


OF_THE_MODEL = ("model_float", "weights_float", "slice_axis")


def make_faulty(layers: dict[str, Layer]) -> dict[str, Layer]:
    """Put one fault in each of a few activations; what is known of the whole model is left out."""
    faulty = {
        name: {field: layer[field] for field in layer if field not in OF_THE_MODEL}
        for name, layer in layers.items()
    }
    for prefix, break_layer in FAULTS.items():
        (name,) = (
            name
            for name, layer in faulty.items()
            if layer["kind"] == "activation" and name.startswith(prefix)
        )
        faulty[name] = break_layer(faulty[name])
        print(f"{break_layer.__name__:17} {name}")
    return faulty


# --- files ------------------------------------------------------------------------------------


def read_pairs(path: Path) -> dict[str, Layer]:
    """Read a pair file: layer -> field -> array. The model's outputs are left out."""
    layers: dict[str, Layer] = {}
    with np.load(path) as pairs:
        for key in pairs.files:
            name, _, field = key.rpartition("/")
            if field != "output_sums":
                layers.setdefault(name, {})[field] = pairs[key]
    return layers


def write_pairs(path: Path, layers: dict[str, Layer]) -> None:
    """Write a pair file, the layers in the given order."""
    arrays = {f"{name}/{field}": v for name, layer in layers.items() for field, v in layer.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def main() -> None:
    """Make all the files anew."""
    data = load_data()
    network = train(data)
    float_model = convert_float(network)
    int8_model = convert_int8(network, data.train_images[:CALIBRATION_SAMPLES])
    test_codes = quantized_input(int8_model, data.test_images)
    print(f"parameters        {network.count_params()}")
    print(f"held-out samples  {len(data.test_labels)}")
    print(f"accuracy, float   {accuracy(float_model, data.test_images, data.test_labels):.4f}")
    print(f"accuracy, int8    {accuracy(int8_model, test_codes, data.test_labels):.4f}")

    models = [FOLDER / "digits_float.tflite", FOLDER / "digits_int8.tflite"]
    inputs, pairs = FOLDER / "digits_inputs.npz", FOLDER / "digits.npz"
    for path, model in zip(models, (float_model, int8_model), strict=True):
        path.write_bytes(model)
    np.savez_compressed(inputs, image=data.test_images[:PAIR_SAMPLES])
    capture = ["capture", *models, "--inputs", inputs, "-o", pairs, "--compress"]
    qdebug(list(map(str, capture)), standalone_mode=False)
    write_pairs(FOLDER / "digits_faulty.npz", make_faulty(read_pairs(pairs)))
    for path in sorted(FOLDER.glob("digits*")):
        print(f"{path.name:20} {path.stat().st_size / 1000:7.1f} kB")


if __name__ == "__main__":
    main()
