"""Recipes that ``suggest`` writes, given to ai-edge-quantizer."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.advise.suggest import suggestions
from qdebug.render.suggestions import written
from tests.paths import SAMPLES
from tests.reports import figures, layer, report

pytest.importorskip("ai_edge_quantizer")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the packages' own

Run = Callable[..., Result]
Recipe = list[dict[str, Any]]

DIGITS = SAMPLES / "digits.npz"
IMAGES = np.load(SAMPLES / "digits_inputs.npz")["image"]
ADD = "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"
SOFTMAX = "StatefulPartitionedCall_1:0"


def quantized(recipe: Recipe, model: Path) -> Any:
    """The model that it makes, in an interpreter."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer.quantizer import Quantizer

    made = Quantizer(str(model))
    made.load_quantization_recipe(recipe)
    ranges = made.calibrate({"serving_default": [{"image": IMAGES}]}, num_threads=1)
    content = made.quantize(ranges, enable_progress_report=False).quantized_model
    interpreter = Interpreter(model_content=bytes(content))
    interpreter.allocate_tensors()
    return interpreter


def types(interpreter: Any) -> dict[str, str]:
    return {t["name"]: np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}


def sqnr(interpreter: Any) -> float:
    """Of the last output against the float model's, in dB."""
    from ai_edge_litert.interpreter import Interpreter

    def run(model: Any) -> Any:
        (given,) = model.get_input_details()
        made = model.get_output_details()[-1]
        scale, zero_point = given["quantization"]
        values = np.rint(IMAGES / scale) + zero_point if scale else IMAGES
        found = []
        for image in np.clip(values, -128, 127) if scale else values:
            model.set_tensor(given["index"], image[np.newaxis].astype(given["dtype"]))
            model.invoke()
            found.append(model.get_tensor(made["index"]).astype(np.float64))
        scale, zero_point = made["quantization"]
        return (np.stack(found) - zero_point) * scale if scale else np.stack(found)

    reference = Interpreter(str(SAMPLES / "digits_float.tflite"))
    reference.allocate_tensors()
    expected, found = run(reference), run(interpreter)
    return float(10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2)))


def suggested(qdebug: Run, *options: Any) -> Recipe:
    result = qdebug("suggest", DIGITS, "--for", "ai-edge-quantizer", *options)
    recipe: Recipe = json.loads(result.stdout)
    return recipe


def test_the_model_that_it_makes_has_this_operator_in_float(qdebug: Run, tmp_path: Path) -> None:
    found = types(quantized(suggested(qdebug, "--top", "1"), SAMPLES / "digits_float.tflite"))
    (name,) = qdebug("suggest", DIGITS, "--for", "names", "--top", "1").stdout.splitlines()
    assert found[name] == "float32"
    assert found[ADD] == "int8"


def test_an_input_that_only_operators_in_float_read_is_in_float(qdebug: Run) -> None:
    """The first convolution gains 2.5 dB with it; without it, rounding its input costs that."""
    recipe = suggested(qdebug, "--top", "1")
    assert recipe[-1] == {"regex": ".*", "operation": "INPUT", "algorithm_key": "no_quantize"}
    with_it = quantized(recipe, SAMPLES / "digits_float.tflite")
    without = quantized(recipe[:-1], SAMPLES / "digits_float.tflite")
    assert sqnr(with_it) > sqnr(without) + 2


@pytest.fixture
def two_outputs(tmp_path: Path) -> Path:
    """The sample model with its convolution's output as a second output, first of the two."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(SAMPLES / "digits_float.tflite"))
    (graph,) = model.subgraphs
    (tensor,) = (i for i, t in enumerate(graph.tensors) if t.name.decode() == ADD)
    graph.outputs = [tensor, *graph.outputs]
    (signature,) = model.signatureDefs
    second = copy.copy(signature.outputs[0])
    second.name, second.tensorIndex = b"features", tensor
    signature.outputs = [second, *signature.outputs]
    path = tmp_path / "two.tflite"
    flatbuffer_utils.write_model(model, str(path))
    return path


def test_the_last_operator_of_several_outputs_is_not_quantized_again(two_outputs: Path) -> None:
    """Without the entry, the first one of the recipe rounds what the softmax makes in float."""
    on = report(
        layer("x", op=None, **figures(0.3, 0.3, 0.0)),
        layer("conv", **figures(0.3, 0.3, 0.1)),
        layer(SOFTMAX, nodes=[SOFTMAX], op="SOFTMAX", **figures(0.3, 0.3, 0.1)),
    )
    kept = suggestions(on).candidates
    recipe: Recipe = json.loads(written("ai-edge-quantizer", on, kept))
    assert recipe[-1] == {"regex": ".*", "operation": "OUTPUT", "algorithm_key": "no_quantize"}
    with_it, without = quantized(recipe, two_outputs), quantized(recipe[:-1], two_outputs)
    ends = [
        [np.dtype(o["dtype"]).name for o in made.get_output_details()]
        for made in (with_it, without)
    ]
    assert ends[0] == ["float32", "float32"]
    assert ends[1] == ["int8", "int8"]
