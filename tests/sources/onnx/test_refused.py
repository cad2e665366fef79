"""What ONNX models are refused, and in which words."""

import random

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.report.json import dumps
from qdebug.run import session
from qdebug.sources.onnx.source import OnnxModels
from tests.sources.onnx.models import (
    CONSTANTS,
    NODE,
    helper,
    made,
    message,
    network,
    numpy_helper,
    onnx,
    ort,
    renamed,
    report_of,
)


@pytest.mark.slow
def test_models_in_the_wrong_order_are_taken_the_right_way_round(opened):
    source = opened("float", "qdq-int8")
    assert "is the quantized model" in source.notes[0]
    assert report_of(source) == report_of(opened())


@pytest.mark.parametrize(
    ("floating", "quantized", "said"),
    [
        ("float", "float", "float.onnx: found the same file twice, with no quantized tensor"),
        ("qdq-int8", "qdq-int8", "qdq-int8.onnx: found the same file twice, with quantized"),
        ("qdq-int8", "qop-int8", "qop-int8.onnx: found quantized tensors in both; expected a"),
    ],
)
def test_two_models_of_one_kind_are_no_pair(opened, floating, quantized, said):
    assert said in message(opened, quantized, floating)


def test_one_model_or_three_are_no_pair(models):
    paths = [str(models / "float.onnx")] * 3
    assert "found 3 ONNX models" in message(OnnxModels, paths)
    assert "found 1 ONNX models" in message(OnnxModels, paths[:1])


@pytest.mark.parametrize("name", ["qdq-int8", "qdq-float-weights", "qop-int8", "qdq-int4-weights"])
def test_other_weights_are_another_network(opened, tmp_path, name):
    onnx.save(network(seed=1), tmp_path / "other.onnx")
    said = message(opened, name, tmp_path / "other.onnx")
    assert f"{name}.onnx: not the network of " in said
    assert "of 4 weights differ, 'w1' by" in said


def test_another_structure_is_another_network(opened, tmp_path):
    nodes = [NODE("Sigmoid", ["x"], ["h"]), NODE("Tanh", ["h"], ["out"])]
    onnx.save(made(nodes, {"x": ["N", 3, 8, 8]}, {"out": None}, []), tmp_path / "other.onnx")
    for name in ("qdq-int8", "qop-int8"):
        assert "not the network of" in message(opened, name, tmp_path / "other.onnx")


def test_another_structure_is_another_network_for_a_dynamic_model_too(opened, tmp_path):
    nodes = [NODE("Sigmoid", ["x"], ["h"]), NODE("Tanh", ["h"], ["out"])]
    onnx.save(made(nodes, {"x": ["N", 3, 8, 8]}, {"out": None}, []), tmp_path / "other.onnx")
    said = message(opened, "dynamic", tmp_path / "other.onnx")
    assert "dynamic.onnx: not the network of" in said
    assert said.endswith("none of its 4 quantized weights has a partner there")


def test_one_wrong_weight_is_for_the_report_to_show(models, opened, tmp_path):
    model = onnx.load(models / "qdq-int8.onnx")
    (codes,) = (t for t in model.graph.initializer if t.name == "w2_quantized")
    values = numpy_helper.to_array(codes)
    codes.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=1), codes.name))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx")
    assert report_of(source)["w2"].metrics.rmse_scale > 5
    assert any("'w2': far from the weights in" in note for note in source.notes)


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\x00" * 100, b"PK\x03\x04", b"TFL3" * 50, b"\n\x1b[2J"]
)
def test_what_is_no_onnx_model_is_one_line(opened, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "model.onnx: no ONNX model" in message(opened, path)
    assert "model.onnx: no ONNX model" in message(opened, "qdq-int8", path)


def test_files_that_are_not_there_are_one_line(opened, tmp_path):
    assert "No such file" in message(opened, tmp_path / "none.onnx")
    assert "No such file" in message(opened, inputs="none.npy")
    assert "directory" in message(opened, tmp_path).lower()


def test_an_operator_that_the_runtime_lacks_is_one_line(models, opened, tmp_path):
    model = onnx.load(models / "qdq-int8.onnx")
    model.graph.node.append(NODE("Unheard\x1b[2J", ["x"], ["new"], domain="of"))
    model.opset_import.append(helper.make_opsetid("of", 1))
    onnx.save(model, tmp_path / "q.onnx")
    said = message(opened, tmp_path / "q.onnx")
    assert "q.onnx: onnxruntime: " in said
    assert "Unheard" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((2, 3, 8, 7), np.float32), "found shape (2, 3, 8, 7), expected (samples, 3, 8"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "found nan, expected finite float32"),
        (np.zeros((0, 3, 8, 8), np.float32), "found 0 samples"),
        (np.array(["text"]), "expected float32"),
    ],
)
def test_wrong_inputs_are_one_line(opened, tmp_path, values, said):
    np.save(tmp_path / "x.npy", values)
    assert said in message(opened, inputs=tmp_path / "x.npy")


def test_a_sample_that_is_wrong_later_on_is_one_line(opened, tmp_path):
    values = np.zeros((3, 3, 8, 8), np.float32)
    values[2, 0, 0, 0] = np.inf
    np.save(tmp_path / "x.npy", values)
    source = opened(inputs=tmp_path / "x.npy")
    assert "sample 2" in message(session.run, source)


@pytest.mark.parametrize(
    ("scale", "zero_point", "said"),
    [
        (np.float32(0), np.int8(0), "field 'scale': found 0.0, expected finite numbers above 0"),
        (np.float32(np.nan), np.int8(0), "field 'scale': found nan"),
        (np.full(3, 0.1, np.float32), np.zeros(3, np.int8), "found 3 values, expected 1 or 8"),
    ],
)
def test_a_broken_scale_leaves_the_other_layers(models, opened, tmp_path, scale, zero_point, said):
    model = onnx.load(models / "qdq-int8.onnx")
    for tensor in model.graph.initializer:
        value = {"w2_scale": scale, "w2_zero_point": zero_point}.get(tensor.name)
        if value is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))
    onnx.save(model, tmp_path / "q.onnx")
    source = opened(tmp_path / "q.onnx", inputs=None)
    (broken,) = (layer for layer in source.layers if isinstance(layer, UnreadableLayer))
    assert broken.name == "w2"
    assert said in broken.reason
    assert "q.onnx: layer 'w2': " in broken.reason
    assert sum(isinstance(layer, Layer) for layer in source.layers) == len(CONSTANTS) - 1


def test_names_are_data(models, opened, tmp_path):
    evil = "\x1b[2J\n../../r"
    quantized = renamed(
        models / "qdq-int8.onnx", lambda n: n.replace("r1", evil), tmp_path / "q.onnx"
    )
    floating = renamed(models / "float.onnx", lambda n: n.replace("r1", evil), tmp_path / "f.onnx")
    source = opened(quantized, floating)
    assert evil in [layer.name for layer in source.layers]
    other = opened(quantized)
    assert not any("\n" in text or "\x1b" in text for text in other.notes)


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 28),
    reason="older runtimes abort on some broken models",
)
def test_models_changed_at_random_give_a_report_or_one_line(models, opened, tmp_path):
    stored = {name: onnx.load(models / f"{name}.onnx") for name in ("qdq-per-channel", "qop-int8")}
    for seed in range(80):
        rng = random.Random(seed)
        model = onnx.ModelProto()
        model.CopyFrom(stored[rng.choice(list(stored))])
        graph = model.graph
        names = [name for node in graph.node for name in (*node.input, *node.output)] + [""]
        for _ in range(rng.choice([1, 2, 4])):
            node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
            change = rng.randrange(7)
            if change == 0 and node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            elif change == 1 and node.input:
                del node.input[-1]
            elif change == 2:
                tensor.data_type = rng.choice([0, 1, 2, 3, 6, 10, 16, 17, 21, 22, 25, 99])
            elif change == 3:
                tensor.dims.append(rng.choice([0, 1, -1, 2**40]))
            elif change == 4:
                graph.node.remove(node)
            elif change == 5:
                node.op_type = rng.choice([other.op_type for other in graph.node])
            else:
                tensor.raw_data = tensor.raw_data[:-1]
        onnx.save(model, tmp_path / "q.onnx")
        try:
            report = session.run(opened(tmp_path / "q.onnx", samples=1))
        except QdebugError as error:
            lines = [str(error)]
        else:
            lines = report.complaints
            dumps(report)
        assert not any("\n" in line for line in lines)
