"""What LiteRT models are refused, and in which words."""

import contextlib

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.run import session
from tests.paths import DATA
from tests.sources.tflite.models import (
    FLOAT,
    INPUTS,
    INT8,
    edited,
    refused,
    schema,
    source,
)


def test_one_model_twice():
    assert "are the same model" in refused(FLOAT, FLOAT)
    assert "are the same model" in refused(INT8, INT8)


def test_one_model_alone():
    message = refused(INT8, inputs=INPUTS)
    assert "found 1 model, expected a float and a quantized one" in message


def test_two_float_or_two_quantized_models():
    floats = DATA / "branches_float.tflite"
    assert "found no quantized tensor in either" in refused(FLOAT, floats)
    assert "both quantized" in refused(INT8, DATA / "branches_int8.tflite")


def test_two_networks():
    assert "are not the same network" in refused(DATA / "anysize_float.tflite", INT8)


def test_two_trainings_of_one_network(tmp_path):
    def retrain(model):
        rng = np.random.default_rng(0)
        for tensor in model.subgraphs[0].tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.type == schema.TensorType.FLOAT32 and data is not None:
                values = rng.permutation(np.asarray(data).view("<f4"))
                model.buffers[tensor.buffer].data = values.view(np.uint8)

    message = refused(edited(FLOAT, tmp_path / "f.tflite", retrain), INT8, inputs=INPUTS)
    assert "are not the same network: 5 of 5 weights do not agree" in message


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"PK\x03\x04TFL3", b"\x1c\0\0\0TFL3" + b"\xff" * 50]
)
def test_other_files(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    message = refused(FLOAT, path)
    assert message.startswith(str(path))
    assert "expected a" in message


def test_missing_files(tmp_path):
    assert "No such file" in refused(FLOAT, tmp_path / "none.tflite")
    assert "No such file" in refused(FLOAT, INT8, inputs=tmp_path / "none.npz")


def test_inputs_that_do_not_fit(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))
    message = refused(FLOAT, INT8, inputs=tmp_path / "x.npy")
    assert "found shape (3, 8, 8), expected (samples, 8, 8, 1) for model input 'image'" in message


def test_operators_that_the_runtime_lacks(tmp_path):
    def future(model):
        for code in model.operatorCodes:
            code.version = 99

    paths = [edited(path, tmp_path / path.name, future) for path in (FLOAT, INT8)]
    message = refused(*paths, inputs=INPUTS)
    assert "cannot be loaded by LiteRT: " in message
    assert "version '99'" in message


def test_a_scale_that_is_none_makes_an_unreadable_layer(tmp_path):
    def spoil(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.name == b"digits_1/logits_1/MatMul":
                tensor.quantization.scale = np.asarray(tensor.quantization.scale) * -1

    path = edited(INT8, tmp_path / "q.tflite", spoil)
    report = session.run(source(FLOAT, path))
    (row,) = (row for row in report.layers if row.name == "digits_1/logits_1/MatMul")
    assert row.metrics is None
    assert "field 'scale': found -0.0" in row.diagnosis.evidence
    assert str(path) in row.diagnosis.evidence


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_broken_models_are_refused_or_reported_never_worse(tmp_path, kind):
    content = (FLOAT if kind == "float" else INT8).read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(100):
        broken = bytearray(content)
        # In the tables, not the weights; no run, for the runtime itself aborts now and then.
        for place in rng.integers(len(content) - 9000, len(content), rng.integers(1, 5)):
            broken[place] = rng.integers(256)
        path = tmp_path / "broken.tflite"
        path.write_bytes(bytes(broken))
        pair = (path, INT8) if kind == "float" else (FLOAT, path)
        with contextlib.suppress(QdebugError):
            session.run(source(*pair))
