"""Layers of LiteRT models name those that feed them."""

from pathlib import Path

import numpy as np
import pytest

from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.run.session import run

TESTS = Path(__file__).parent.parent.parent
DATA, SAMPLES = TESTS / "data", TESTS.parent / "sample_models"
DIGITS = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]


def fed_by(source):
    return {layer.name: layer.inputs for layer in source.layers}


def short(name):
    """The name without what the converter writes around it: net_1/left_1/Relu6;... -> left."""
    return name.split("/")[1].removesuffix("_1") if name.startswith("net_1/") else name


@pytest.fixture
def litert(tmp_path):
    """Open two of the `branches` models, or one in debug mode, with inputs for them."""
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs qdebug[litert]")
    from qdebug.sources.tflite.source import LitertModels

    rng = np.random.default_rng(1)
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, image=rng.normal(size=(3, 6, 6, 3)), flags=rng.normal(size=(3, 4)))

    def open_models(*models, **options):
        paths = [str(m if isinstance(m, Path) else DATA / f"branches_{m}.tflite") for m in models]
        return LitertModels(paths, str(inputs), **options)

    return open_models


@pytest.fixture
def edited(tmp_path):
    """A `branches` model as a function leaves its flatbuffer objects."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    def edit(name, change):
        content = (DATA / f"branches_{name}.tflite").read_bytes()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        change(model.subgraphs[0].tensors)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / "edited.tflite"
        path.write_bytes(bytes(builder.Output()))
        return path

    return edit


def activations(source):
    """Operator and name of each activation -> the short names of the activations that feed it."""
    kinds = {layer.name: getattr(layer, "kind", "activation") for layer in source.layers}
    return {
        f"{layer.op} {short(layer.name)}": [
            short(name) for name in layer.inputs if kinds[name] == "activation"
        ]
        for layer in source.layers
        if isinstance(layer, Layer) and layer.kind == "activation"
    }


BRANCHES = {
    "CONV_2D left": ["image"],
    "CONV_2D right": ["image"],
    "CONCATENATION both": ["left", "right"],
    "MAX_POOL_2D pool": ["both"],
    "CONV_2D down": ["pool"],
    "RESHAPE flat": ["down"],
    "FULLY_CONNECTED gate": ["flags"],
    "TANH gate": ["gate"],
    "ADD add": ["flat", "gate"],
    "MUL mul": ["flat", "gate"],
    "FULLY_CONNECTED score": ["add"],
}
IMAGE, FLAGS = "serving_default_image:0", "serving_default_flags:0"


def has(found, expected):
    assert {key: found.get(key) for key in expected} == expected


def named(expected, image, flags):
    names = {"image": image, "flags": flags}
    return {key: [names.get(name, name) for name in fed] for key, fed in expected.items()}


@pytest.mark.parametrize("model", ["int8", "pertensor"])
def test_branches_of_a_litert_model_meet_again(litert, model):
    found = activations(litert("float", model))
    assert found == named(BRANCHES, IMAGE, FLAGS) | {
        f"None {IMAGE}": [],
        f"None {FLAGS}": [],
        "FULLY_CONNECTED StatefulPartitionedCall_1:1": ["mul"],
        "LOGISTIC StatefulPartitionedCall_1:0": ["score"],
    }


@pytest.mark.parametrize("model", ["mixed", "int16"])
def test_a_float_input_is_no_layer_and_its_codes_are_fed_by_nothing(litert, model):
    found = activations(litert("float", model))
    codes = [key.removeprefix("QUANTIZE ") for key, fed in found.items() if not fed]
    flags, image = sorted(codes)
    has(found, named(BRANCHES, image, flags))


def test_requantized_values_are_layers_of_their_own(litert):
    """A uint8 model takes uint8, computes in int8 and gives uint8."""
    found = activations(litert("float", "uint8"))
    has(found, named(BRANCHES, "tfl.quantize1", "tfl.quantize"))
    assert found["QUANTIZE tfl.quantize1"] == [IMAGE]
    assert found["QUANTIZE StatefulPartitionedCall_1:0"] == ["StatefulPartitionedCall_1:01"]
    assert found["LOGISTIC StatefulPartitionedCall_1:01"] == ["score"]


def test_operators_left_in_float_are_passed(litert):
    """The strided convolution is float: its float weights are no layers, its tensors neither."""
    found = activations(litert("float", "partly"))
    assert found["QUANTIZE tfl.quantize2"] == ["pool"]
    assert found["RESHAPE flat"] == ["tfl.quantize2"]


def test_a_debug_model_alone_has_the_same_graph(litert):
    found = activations(litert("debug"))
    has(found, named(BRANCHES, "tfl.quantize1", "tfl.quantize"))


@pytest.mark.parametrize("models", [("float", "int8"), ("float", "uint8"), ("debug",)])
def test_weights_and_biases_feed_their_operator_and_nothing_feeds_them(litert, models):
    source = litert(*models)
    kinds = {layer.name: layer.kind for layer in source.layers}
    for layer in source.layers:
        assert set(layer.inputs) <= kinds.keys()
        if layer.kind != "activation":
            assert layer.inputs == ()
        elif layer.op == "CONV_2D":
            assert [kinds[name] for name in layer.inputs] == ["activation", "weight", "bias"]
    readers = {name for layer in source.layers for name in layer.inputs}
    assert readers >= {name for name, kind in kinds.items() if kind != "activation"}


def test_without_inputs_weights_are_fed_by_nothing():
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs qdebug[litert]")
    from qdebug.sources.tflite.source import LitertModels

    assert set(fed_by(LitertModels([str(path) for path in DIGITS])).values()) == {()}


def test_a_skipped_tensor_is_passed(litert, edited):
    """The pool's quantization is of a kind that is not read: the convolution is fed by `both`."""

    def of_another_kind(tensors):
        from ai_edge_litert import schema_py_generated as schema

        (pool,) = (tensor for tensor in tensors if b"MaxPool" in tensor.name)
        pool.quantization.detailsType = schema.QuantizationDetails.CustomQuantization
        pool.quantization.details = schema.CustomQuantizationT()

    source = litert("float", edited("int8", of_another_kind))
    assert [name for name, _ in source.skipped] == ["net_1/pool_1/MaxPool2d"]
    assert activations(source)["CONV_2D down"] == ["both"]


def test_an_unreadable_layer_is_fed_all_the_same(litert, edited):
    def without_sense(tensors):
        (made,) = (tensor for tensor in tensors if tensor.name == b"StatefulPartitionedCall_1:1")
        made.quantization.zeroPoint = [1000]

    source = litert("float", edited("int8", without_sense), kernels="builtin")
    (broken,) = (layer for layer in source.layers if isinstance(layer, UnreadableLayer))
    assert [short(name) for name in broken.inputs] == ["mul", "level"]
    report = {layer.name: layer for layer in run(source).layers}
    assert report[broken.name].inputs == list(broken.inputs)


def test_names_are_the_unique_ones(litert, edited):
    def alike(tensors):
        for tensor in tensors:
            if tensor.name in (b"net_1/mul_1/Mul", b"net_1/add_1/Add", b"net_1/gate_1/MatMul1"):
                tensor.name = b"same"

    source = litert("float", edited("int8", alike))
    same = [layer for layer in source.layers if layer.name.startswith("same")]
    assert sorted(layer.op for layer in same) == ["ADD", "FULLY_CONNECTED", "MUL"]
    reads = {layer.op: layer.inputs for layer in source.layers if isinstance(layer, Layer)}
    by_op = {layer.op: layer.name for layer in same}
    assert reads["TANH"] == (by_op["FULLY_CONNECTED"],)
    assert set(fed_by(source)["StatefulPartitionedCall_1:1"]) >= {by_op["MUL"]}


def test_what_only_gives_its_size_does_not_feed():
    from qdebug.sources.tflite.graph import Graph, Operator

    operators = (
        Operator(0, "CONV_2D", (0, -1), (1,)),
        Operator(1, "SHAPE", (1,), (2,)),
        Operator(2, "RESHAPE", (0, 2), (3,)),
    )
    graph = Graph((), operators, (0,), (3,), (), ())
    assert graph.nearest(3, {0, 1}) == (0,)
    assert graph.nearest(0, {0, 1}) == ()


def test_a_circle_ends():
    from qdebug.sources.tflite.graph import Graph, Operator

    operators = (Operator(0, "ADD", (1, 0), (2,)), Operator(1, "ADD", (2, 2), (1,)))
    assert Graph((), operators, (0,), (1,), (), ()).nearest(1, {0, 1}) == (1, 0)
