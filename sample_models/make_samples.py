"""Make the sample files: a small real network, its int8 version, and pair files of both.

Trains a convolutional network on scikit-learn's handwritten digits, converts it to a float and a
full-integer model, runs both on held-out samples, and writes every weight, bias and activation as
a float/quantized pair. README.md in this folder says what each file is for.

Needs tensorflow-cpu, ai-edge-litert and scikit-learn:

    python sample_models/make_samples.py
"""

import contextlib
import copy
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # both are read when TensorFlow is imported
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # oneDNN adds in an order that depends on the machine

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = NDArray[Any]

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


# --- the graphs -------------------------------------------------------------------------------


def unpack(model: bytes) -> schema.ModelT:
    """Read a flatbuffer into objects that can be changed."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))


def pack(model: schema.ModelT) -> bytes:
    """Write the objects as a flatbuffer again."""
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@dataclass(frozen=True)
class Operator:
    """One operator of a graph; tensors are given by their index."""

    op: str
    constants: tuple[int, ...]
    activations: tuple[int, ...]
    output: int


def operators(model: bytes) -> list[Operator]:
    """List the operators in the order in which they run. Each has one output here."""
    op_names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    objects = unpack(model)
    graph = objects.subgraphs[0]
    found = []
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs]
        (output,) = (int(index) for index in operator.outputs)
        constant = {i: objects.buffers[graph.tensors[i].buffer].data is not None for i in inputs}
        found.append(
            Operator(
                op=op_names[objects.operatorCodes[operator.opcodeIndex].builtinCode],
                constants=tuple(i for i in inputs if constant[i]),
                activations=tuple(i for i in inputs if not constant[i]),
                output=output,
            )
        )
    return found


def match_tensors(float_model: bytes, int8_model: bytes) -> dict[int, int]:
    """Find the float partner of each int8 tensor by walking both graphs in step."""
    float_of: dict[int, int] = {}
    for ours, theirs in zip(operators(int8_model), operators(float_model), strict=True):
        if ours.op != theirs.op:
            raise ValueError(f"the graphs differ: {ours.op} in int8, {theirs.op} in float")
        for int8_indices, float_indices in (
            (ours.constants, theirs.constants),
            (ours.activations, theirs.activations),
            ((ours.output,), (theirs.output,)),
        ):
            for index, partner in zip(int8_indices, float_indices, strict=True):
                if float_of.setdefault(index, partner) != partner:
                    raise ValueError(f"int8 tensor {index} has two partners at {ours.op}")
    return float_of


def isolate_operators(float_model: bytes) -> tuple[bytes, dict[int, int]]:
    """Cut the float model into its single operators, all in one graph and each fed from outside.

    Every activation that an operator reads becomes a model input of its own, so what is fed there
    is not what the operator before has computed. Returns that model, and for each activation read
    the index of the input that stands for it. No tensor changes its index.
    """
    model = unpack(float_model)
    graph = model.subgraphs[0]
    input_of: dict[int, int] = {}
    for found, operator in zip(operators(float_model), graph.operators, strict=True):
        for index in found.activations:
            if index not in input_of:
                input_of[index] = len(graph.tensors)
                graph.tensors.append(copy.copy(graph.tensors[index]))
        operator.inputs = [input_of.get(int(index), int(index)) for index in operator.inputs]
    graph.inputs = list(input_of.values())
    graph.outputs = [int(operator.outputs[0]) for operator in graph.operators]
    model.signatureDefs = []  # they name the old inputs
    return pack(model), input_of


# --- running ----------------------------------------------------------------------------------


def open_model(model: bytes) -> Interpreter:
    """Open an interpreter that keeps the value of every tensor."""
    interpreter = Interpreter(model_content=model, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter


def run(model: bytes, inputs: Mapping[int, Array], wanted: Sequence[int]) -> dict[int, Array]:
    """Run sample by sample and stack the wanted tensors on the batch axis."""
    interpreter = open_model(model)
    values: dict[int, list[Array]] = {index: [] for index in wanted}
    for sample in range(len(next(iter(inputs.values())))):
        for index, stacked in inputs.items():
            interpreter.set_tensor(index, stacked[sample : sample + 1])
        interpreter.invoke()
        for index in wanted:
            values[index].append(interpreter.get_tensor(index))
    return {index: np.concatenate(rows) for index, rows in values.items()}


def quantize(x: Array, scale: Array, zero_point: Array) -> Array:
    """Round x to the nearest int8 codes."""
    codes: Array = np.rint(x.astype(np.float64) / scale) + zero_point
    return codes.clip(INT8_MIN, INT8_MAX).astype(np.int8)


def quantized_input(model: bytes, images: Array) -> Array:
    """Quantize the images as an int8 model wants them."""
    scale, zero_point = open_model(model).get_input_details()[0]["quantization"]
    return quantize(images, scale, zero_point)


def accuracy(model: bytes, images: Array, labels: Array) -> float:
    """Count the images whose largest output is the right digit, as a share of all."""
    interpreter = open_model(model)
    image = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    scores = run(model, {image: images}, [output])[output]
    return float(np.mean(scores.argmax(axis=1) == labels))


# --- pairs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One tensor in float and in codes, as a pair file holds it."""

    name: str
    kind: str
    float: Array
    quantized: Array
    scale: Array
    zero_point: Array
    op: str | None = None
    axis: int | None = None
    narrow_range: bool | None = None
    model_float: Array | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields that this pair has, by their key in the file."""
        return {
            f"{self.name}/{field}": value
            for field, value in vars(self).items()
            if field != "name" and value is not None
        }


def quantization(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tensor's scale, zero point and, if they are per channel, axis."""
    parameters = detail["quantization_parameters"]
    scale = parameters["scales"].astype(np.float32)
    zero_point = parameters["zero_points"].astype(np.int32)
    if scale.size == 1:
        return {"scale": scale[0], "zero_point": zero_point[0]}
    return {"scale": scale, "zero_point": zero_point, "axis": parameters["quantized_dimension"]}


def dequantize(codes: Array, detail: Mapping[str, Any]) -> Array:
    """Return the floats that the codes of a per-tensor quantized tensor stand for."""
    scale, zero_point = detail["quantization"]
    floats: Array = (codes.astype(np.float64) - zero_point) * scale
    return floats.astype(np.float32)


def make_pairs(float_model: bytes, int8_model: bytes, images: Array) -> list[Pair]:
    """Put every activation, weight and bias of the int8 model beside its float partner.

    An activation's `float` is what the float operator makes of the int8 model's own inputs, so
    that only this operator's error is in it; `model_float` is the same tensor in the float model.
    """
    float_of = match_tensors(float_model, int8_model)
    float_interpreter = open_model(float_model)
    int8_interpreter = open_model(int8_model)
    details = {detail["index"]: detail for detail in int8_interpreter.get_tensor_details()}
    image = int8_interpreter.get_input_details()[0]["index"]
    float_image = float_interpreter.get_input_details()[0]["index"]

    int8_operators = operators(int8_model)
    activations = [image, *(operator.output for operator in int8_operators)]
    codes = run(int8_model, {image: quantized_input(int8_model, images)}, activations)
    end_to_end = run(float_model, {float_image: images}, [float_of[i] for i in activations])

    isolated, input_of = isolate_operators(float_model)
    feeds = {
        input_of[float_of[index]]: dequantize(codes[index], details[index])
        for operator in int8_operators
        for index in operator.activations
    }
    local = run(isolated, feeds, [float_of[i] for i in activations if i != image])
    local[float_image] = images

    def activation(index: int, op: str | None = None) -> Pair:
        return Pair(
            name=details[index]["name"],
            op=op,
            kind="activation",
            float=local[float_of[index]],
            quantized=codes[index],
            model_float=end_to_end[float_of[index]],
            **quantization(details[index]),
        )

    def constant(index: int, op: str) -> Pair:
        is_weight = details[index]["dtype"] is np.int8
        return Pair(
            name=details[index]["name"],
            op=op,
            kind="weight" if is_weight else "bias",
            float=float_interpreter.get_tensor(float_of[index]),
            quantized=int8_interpreter.get_tensor(index),
            narrow_range=True if is_weight else None,  # int8 weights are -127..127 in TFLite
            **quantization(details[index]),
        )

    pairs = [activation(image)]
    for operator in int8_operators:
        for index in operator.constants:
            if details[index]["quantization_parameters"]["scales"].size:  # not axes or shapes
                pairs.append(constant(index, operator.op))
        pairs.append(activation(operator.output, operator.op))
    return pairs


# --- faults -----------------------------------------------------------------------------------


def requantize(pair: Pair, low: float, high: float) -> Pair:
    """Quantize the pair's floats anew, with codes that span low..high."""
    scale = np.array((high - low) / (INT8_MAX - INT8_MIN), dtype=np.float32)
    zero_point = np.array(np.rint(INT8_MIN - low / scale), dtype=np.int32)
    codes = quantize(pair.float, scale, zero_point)
    return replace(pair, quantized=codes, scale=scale, zero_point=zero_point)


def shift_zero_point(pair: Pair) -> Pair:
    """Leave the codes as they are and record a zero point that is 3 too high."""
    return replace(pair, zero_point=pair.zero_point + np.int32(3))


def widen_range(pair: Pair) -> Pair:
    """Take the range 2.5 times too wide, so that three codes in five are never used."""
    scale = np.array(2.5 * pair.scale, dtype=np.float32)
    return replace(pair, quantized=quantize(pair.float, scale, pair.zero_point), scale=scale)


def truncate(pair: Pair) -> Pair:
    """Round every code down instead of to the nearest."""
    codes = np.floor(pair.float.astype(np.float64) / pair.scale) + pair.zero_point
    return replace(pair, quantized=np.clip(codes, INT8_MIN, INT8_MAX).astype(np.int8))


def clip_range(pair: Pair) -> Pair:
    """Take a range that ends below the largest 4 % of the floats."""
    return requantize(pair, float(pair.float.min()), float(np.percentile(pair.float, 96)))


def add_outlier(pair: Pair) -> Pair:
    """Make the largest float OUTLIER times larger and take the range from minimum to maximum."""
    floats = pair.float.copy()
    floats.flat[floats.argmax()] *= OUTLIER
    return requantize(replace(pair, float=floats), float(floats.min()), float(floats.max()))


# The activation that a fault is put in, by the start of its name.
FAULTS: dict[str, Callable[[Pair], Pair]] = {
    "digits_1/stem_": shift_zero_point,
    "digits_1/block_dw_": widen_range,
    "digits_1/block_pw_": truncate,
    "digits_1/block_relu_": clip_range,
    "digits_1/tail_": add_outlier,
}


def make_faulty(pairs: Sequence[Pair]) -> list[Pair]:
    """Put one fault in each of a few activations, and leave `model_float` out."""
    faulty = [replace(pair, model_float=None) for pair in pairs]
    for prefix, break_pair in FAULTS.items():
        (place,) = (
            place
            for place, pair in enumerate(faulty)
            if pair.kind == "activation" and pair.name.startswith(prefix)
        )
        faulty[place] = break_pair(faulty[place])
        print(f"{break_pair.__name__:17} {faulty[place].name}")
    return faulty


# --- files ------------------------------------------------------------------------------------


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a pair file, the layers in the given order."""
    arrays: dict[str, Any] = {}
    for pair in pairs:
        arrays.update(pair.fields())
    if len({pair.name for pair in pairs}) < len(pairs):
        raise ValueError("two layers have the same name")
    np.savez_compressed(path, **arrays)


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

    images = data.test_images[:PAIR_SAMPLES]
    pairs = make_pairs(float_model, int8_model, images)
    (FOLDER / "digits_float.tflite").write_bytes(float_model)
    (FOLDER / "digits_int8.tflite").write_bytes(int8_model)
    np.savez_compressed(FOLDER / "digits_inputs.npz", image=images)
    write_pairs(FOLDER / "digits.npz", pairs)
    write_pairs(FOLDER / "digits_faulty.npz", make_faulty(pairs))
    for path in sorted(FOLDER.glob("digits*")):
        print(f"{path.name:20} {path.stat().st_size / 1000:7.1f} kB")


if __name__ == "__main__":
    main()
