"""Models that contradict themselves: beside a dump no runtime refuses them, so the replay must."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdebug
from qdebug.errors import QdebugError
from tests.sources.tflite.models import INT8, schema
from tests.sources.tflite.replay.device import LOGITS, POINTWISE, STEM, dumped, name_of

CONV, ADD, POOL, DENSE = 0, 3, 4, 7  # operators of the sample model, by index


def changed(path: Path, change: Callable[[Any, Any], None]) -> Path:
    """The sample model with its objects and first graph changed."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(INT8.read_bytes()))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    target = path / "broken.tflite"
    target.write_bytes(bytes(builder.Output()))
    return target


def option(place: int, name: str, value: int) -> Callable[[Any, Any], None]:
    return lambda model, graph: setattr(graph.operators[place].builtinOptions, name, value)


def without_options(model: Any, graph: Any) -> None:
    graph.operators[CONV].builtinOptions, graph.operators[CONV].builtinOptionsType = None, 0


def other_weights(model: Any, graph: Any) -> None:
    x, _, bias = graph.operators[CONV].inputs
    graph.operators[CONV].inputs = [x, graph.operators[DENSE].inputs[1], bias]


def scales(place: int, scale: float) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        output = graph.tensors[graph.operators[place].outputs[0]]
        output.quantization.scale = np.array([scale], np.float32)

    return change


def fewer_weights(model: Any, graph: Any) -> None:
    buffer = model.buffers[graph.tensors[graph.operators[DENSE].inputs[1]].buffer]
    buffer.data = buffer.data[:-3]


@pytest.mark.parametrize(
    ("change", "layer", "message"),
    [
        (option(CONV, "strideW", 0), STEM, "CONV_2D: its options and tensors contradict each"),
        (option(CONV, "strideW", 2), STEM, "CONV_2D: found codes of shape [1, 8, 8, 8], expected"),
        (option(CONV, "dilationHFactor", -1), STEM, "CONV_2D: its options and tensors contradict"),
        (option(POOL, "filterWidth", 0), "digits_1/pool_1/AvgPool", "AVERAGE_POOL_2D: its options"),
        (option(8, "beta", -1), "StatefulPartitionedCall_1:0", "field 'multiplier': found -"),
        (without_options, STEM, "CONV_2D: its options and tensors contradict each other"),
        (other_weights, STEM, "CONV_2D: its options and tensors contradict each other"),
        (fewer_weights, LOGITS, "field 'quantized': found 317 elements, expected 320"),
        (scales(DENSE, 1e-30), LOGITS, "field 'scale': found scales of multiplier 1.85e+26, "
         "expected a multiplier below 2^30"),
        (scales(ADD, 1e-38), "digits_1/block_relu_1/", "field 'scale': found scales of multiplier"),
    ],
)  # fmt: skip
def test_an_operator_that_contradicts_itself_is_one_line(
    change: Callable[[Any, Any], None], layer: str, message: str, tmp_path: Path
) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(QdebugError) as caught:
        qdebug.replay(path, outputs=dumped())
    assert str(caught.value).startswith(f"{path}: layer '{name_of(layer)}': {message}")
    assert "\n" not in str(caught.value)


def inputs(place: int, *tensors: int) -> Callable[[Any, Any], None]:
    """Take these of the operator's inputs; -1 for one left out."""

    def change(model: Any, graph: Any) -> None:
        operator = graph.operators[place]
        operator.inputs = [operator.inputs[t] if t >= 0 else -1 for t in tensors]

    return change


def two_outputs(model: Any, graph: Any) -> None:
    graph.operators[ADD].outputs = [*graph.operators[ADD].outputs] * 2


def unquantized(place: int, read: int) -> Callable[[Any, Any], None]:
    def change(model: Any, graph: Any) -> None:
        graph.tensors[graph.operators[place].inputs[read]].quantization = None

    return change


@pytest.mark.parametrize(
    ("change", "layer", "reason"),
    [
        (inputs(CONV, 0), STEM, "it has no input 1"),
        (inputs(CONV, 0, -1, 2), STEM, "it has no input 1"),
        (inputs(DENSE, 0, 1, 1), LOGITS, "its input 2 is int8, expected int32 or int64"),
        (inputs(ADD), "digits_1/block_relu_1/", "it has no input 0"),
        (two_outputs, "digits_1/block_relu_1/", "it has 2 outputs, expected 1"),
        (unquantized(DENSE, 1), LOGITS, "its input 1 is int8, not quantized"),
        (scales(2, 0.0), POINTWISE, "field 'scale': found 0.0, expected finite numbers above 0"),
    ],
)
def test_an_operator_without_what_it_takes_is_listed(
    change: Callable[[Any, Any], None], layer: str, reason: str, tmp_path: Path
) -> None:
    found = qdebug.replay(changed(tmp_path, change), outputs=dumped())
    reasons = {each.name: each.reason for each in found.unsupported}
    assert reasons[name_of(layer)] == reason
    assert len(found.operators) + len(found.unsupported) == 9


def test_a_multiplier_of_one_or_more_is_no_fault(tmp_path: Path) -> None:
    """A finer output scale: its codes are the clamped ones, and no operator is left out."""
    path = changed(tmp_path, scales(DENSE, 1e-9))
    found = qdebug.replay(path, outputs=dumped())
    dense = next(each for each in found.operators if each.op == "FULLY_CONNECTED")
    assert dense.first
    assert {each.computed for each in dense.first} <= {-128, 127}
