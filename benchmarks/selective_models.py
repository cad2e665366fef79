"""Train larger models for selective.py on scikit-learn's digits, and write them to build/selective.

`mlp.onnx`, an ONNX network of five Gemm nodes trained by scikit-learn, needs nothing else. With
TensorFlow installed (tensorflow-cpu 2.21.0, in its own virtual environment, like that of `make
samples`), it also makes `blocks-SEED.tflite`, five inverted residual blocks as in MobileNetV2, and
`chain-SEED.tflite`, eight 3x3 convolutions in a row. Both end in logits.
"""

import contextlib
import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

FOLDER = Path(__file__).resolve().parent.parent / "build/selective"
SEED = 20  # as sample_models/make_samples.py splits the data
SEEDS = (1, 2, 3)
EPOCHS = 25


def load_data() -> Any:
    """Training images and labels, then held-out ones, which training never sees."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16.0).astype(np.float32)
    train, test, labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    return train, labels, test, test_labels


def make_mlp(path: Path) -> None:
    """Train five dense layers and write them as Flatten, Gemm and Relu nodes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    train, labels, test, test_labels = load_data()
    network = MLPClassifier((64, 48, 32, 24), max_iter=300, random_state=SEED)
    network.fit(train.reshape(len(train), -1), labels)
    score = network.score(test.reshape(len(test), -1), test_labels)
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], name="flatten")]
    constants = []
    last = len(network.coefs_) - 1
    tensor = "flat"
    for i, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        for name, values in ((f"w{i}", weights), (f"b{i}", bias)):
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        output = "logits" if i == last else f"dense{i}"
        nodes.append(
            helper.make_node("Gemm", [tensor, f"w{i}", f"b{i}"], [output], name=f"gemm{i}")
        )
        if i != last:
            nodes.append(helper.make_node("Relu", [output], [f"relu{i}"], name=f"act{i}"))
        tensor = f"relu{i}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8, 8, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    print(f"{path.name}: accuracy {score:.4f}")


def make_convolutional(kind: str, seed: int, path: Path) -> None:
    """Train a convolutional network and convert it to a float .tflite."""
    import keras
    import tensorflow as tf
    from keras import layers

    def convolution(x: Any, channels: int, kernel: int, stride: int = 1, relu: bool = True) -> Any:
        convolve = (
            layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False)
            if channels
            else layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False)
        )
        x = layers.BatchNormalization()(convolve(x))
        return layers.ReLU(6.0)(x) if relu else x

    train, labels, test, test_labels = load_data()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    image = keras.Input((8, 8, 1), name="image")
    if kind == "blocks":
        x = convolution(image, 8, 3)
        for channels, stride in ((8, 1), (8, 1), (16, 2), (16, 1), (16, 1)):
            y = convolution(x, 4 * x.shape[-1], 1)
            y = convolution(convolution(y, 0, 3, stride), channels, 1, relu=False)
            x = layers.Add()([x, y]) if stride == 1 else y
        x = convolution(x, 32, 1)
    else:
        x = image
        for channels, stride in zip(
            (8, 8, 16, 16, 24, 24, 32, 32), (1, 1, 2, 1, 1, 1, 2, 1), strict=True
        ):
            x = convolution(x, channels, 3, stride)
    logits = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))
    network = keras.Model(image, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
    network.fit(train, labels, batch_size=32, epochs=EPOCHS, verbose=0)
    accuracy = network.evaluate(test, test_labels, verbose=0)[1]
    with contextlib.redirect_stdout(io.StringIO()):
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    print(f"{path.name}: {network.count_params()} parameters, accuracy {accuracy:.4f}")


def main() -> None:
    """Make the models that the installed packages allow."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("onnx"):
        make_mlp(FOLDER / "mlp.onnx")
    if importlib.util.find_spec("tensorflow"):
        for kind in ("blocks", "chain"):
            for seed in SEEDS:
                make_convolutional(kind, seed, FOLDER / f"{kind}-{seed}.tflite")


if __name__ == "__main__":
    main()
