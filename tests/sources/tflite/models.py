"""LiteRT models of the tests: how they are opened, changed and read directly."""

import contextlib
import warnings

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer
from qdebug.sources.tflite.source import LitertModels
from tests.paths import DATA, SAMPLES
from tests.visits import blocks_of

schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="needs the extra: pip install 'qdebug[litert]'"
)
import flatbuffers  # noqa: E402 - comes with it
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

FLOAT, INT8 = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
INPUTS = SAMPLES / "digits_inputs.npz"


def edited(path, target, change):
    """The model at `path` as `change` leaves it, written to `target`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def source(floats, quantized, inputs=None, **options):
    return LitertModels([str(floats), str(quantized)], inputs and str(inputs), **options)


def digits(**options):
    return source(FLOAT, INT8, INPUTS, **options)


def branch_inputs(folder, samples=8):
    rng = np.random.default_rng(1)
    path = folder / "inputs.npz"
    np.savez(path, image=rng.normal(size=(samples, 6, 6, 3)), flags=rng.normal(size=(samples, 4)))
    return path


def branches(folder, quantized, floats="branches_float", **options):
    inputs = branch_inputs(folder)
    return source(DATA / f"{floats}.tflite", DATA / f"{quantized}.tflite", inputs, **options)


def refused(*models, inputs=None, **options):
    with pytest.raises(QdebugError) as caught:
        LitertModels([str(model) for model in models], inputs and str(inputs), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def arrays(models):
    """Layer name -> floats, codes and model floats of all samples, each (samples, elements)."""
    found = {}
    for part in models.parts([layer for layer in models.layers if isinstance(layer, Layer)]):
        for layer, block in blocks_of(part):
            floats, codes, model = found.setdefault(layer.name, ([], [], []))
            floats.append(block.floats.ravel())
            codes.append(block.codes.ravel())
            if block.model_float is not None:
                model.append(block.model_float.ravel())
    return {
        name: tuple(np.concatenate(kind) if kind else None for kind in kinds)
        for name, kinds in found.items()
    }


def layer(models, name):
    (found,) = (layer for layer in models.layers if layer.name == name)
    return found


def names(models, kind):
    return [layer.name for layer in models.layers if layer.kind == kind]


def interpreter(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    opened.allocate_tensors()
    return opened


def read_directly(path, inputs):
    """Tensor index -> its values, (samples, elements), in a run of the model as it is."""
    opened = interpreter(path)
    values = {}
    for sample in inputs:
        opened.set_tensor(opened.get_input_details()[0]["index"], sample[None])
        opened.invoke()
        for detail in opened.get_tensor_details():
            with contextlib.suppress(ValueError):
                value = opened.get_tensor(detail["index"])
                values.setdefault(detail["index"], []).append(value.ravel())
    return {index: np.stack(rows) for index, rows in values.items()}
