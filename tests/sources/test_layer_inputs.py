"""`Layer.inputs`: the layers that feed each layer, by name, of every kind of source."""

import json
from pathlib import Path

import numpy as np
import pytest

from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.report.json import dumps, loads
from qdebug.run.session import run
from qdebug.sources.pair_file.read import PairFiles

TESTS = Path(__file__).parent.parent
DATA, SAMPLES = TESTS / "data", TESTS.parent / "sample_models"
DIGITS = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]


def fed_by(source):
    return {layer.name: layer.inputs for layer in source.layers}


def short(name):
    """The name without what the converter writes around it: net_1/left_1/Relu6;... -> left."""
    return name.split("/")[1].removesuffix("_1") if name.startswith("net_1/") else name


# --- LiteRT ---------------------------------------------------------------------------------------


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


# --- ONNX -----------------------------------------------------------------------------------------


class Network:
    """A float ONNX model and its QDQ twin, written side by side."""

    def __init__(self):
        self.onnx = pytest.importorskip("onnx", reason="needs qdebug[onnx]")
        pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")
        self.rng = np.random.default_rng(3)
        self.floats, self.quantized = ([], []), ([], [])

    def constant(self, name, values, *models):
        for _, constants in models or (self.floats, self.quantized):
            constants.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name, *shape):
        """Float in the one, codes in the other; the name of what is read there."""
        codes = self.rng.integers(-100, 100, shape).astype(np.int8)
        self.constant(name, (codes * 0.01 + 0.002).astype(np.float32), self.floats)
        self.constant(f"{name}_codes", codes, self.quantized)
        return self.dequantized(f"{name}_codes", 0.01)

    def quantize(self, tensor, scale, again=""):
        """A QuantizeLinear and a DequantizeLinear; the name of what comes out."""
        self._scale(scale)
        codes = f"{tensor}{again}_codes"
        inputs = [tensor, f"scale{scale}", "zero"]
        self.quantized[0].append(self.onnx.helper.make_node("QuantizeLinear", inputs, [codes]))
        return self.dequantized(codes, scale)

    def dequantized(self, codes, scale):
        self._scale(scale)
        inputs, output = [codes, f"scale{scale}", "zero"], f"{codes}_float"
        self.quantized[0].append(self.onnx.helper.make_node("DequantizeLinear", inputs, [output]))
        return output

    def _scale(self, scale):
        known = {constant.name for constant in self.quantized[1]}
        if f"scale{scale}" not in known:
            self.constant(f"scale{scale}", np.float32(scale), self.quantized)
        if "zero" not in known:
            self.constant("zero", np.int8(0), self.quantized)

    def node(self, op, inputs, output, **attributes):
        """One operator in both; an input is one name, or the float and the quantized one."""
        pairs = [given if isinstance(given, tuple) else (given, given) for given in inputs]
        for (nodes, _), place in ((self.floats, 0), (self.quantized, 1)):
            names = [pair[place] for pair in pairs]
            nodes.append(
                self.onnx.helper.make_node(op, names, [output], f"node_{output}", **attributes)
            )
        return output

    def opened(self, folder, output, shape=(1, 4), quantized_output=None):
        from qdebug.sources.onnx.source import OnnxModels

        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        paths = []
        for name, (nodes, constants), made in (
            ("float", self.floats, output),
            ("quantized", self.quantized, quantized_output or output),
        ):
            graph = helper.make_graph(
                nodes,
                "network",
                [helper.make_tensor_value_info("x", float32, [1, 4])],
                [helper.make_tensor_value_info(made, float32, shape)],
                constants,
            )
            opset = [helper.make_opsetid("", 21)]
            paths.append(str(folder / f"{name}.onnx"))
            self.onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), paths[-1])
        inputs = folder / "x.npy"
        np.save(inputs, self.rng.normal(size=(3, 4)).astype(np.float32))
        return OnnxModels(paths, str(inputs))


@pytest.fixture
def net():
    return Network()


def test_branches_of_a_qdq_model_meet_again(net, tmp_path):
    """A residual Add; a Reshape without a layer is passed; a Shape hands nothing on."""
    x = net.quantize("x", 0.03)
    w1, w2, w3 = (net.weight(name, 4, 4) for name in ("w1", "w2", "w3"))
    net.node("MatMul", [("x", x), ("w1", w1)], "h")
    a = net.quantize(net.node("Relu", ["h"], "a"), 0.04)
    b = net.quantize(net.node("MatMul", [("a", a), ("w2", w2)], "b"), 0.05)
    c = net.quantize(net.node("Add", [("a", a), ("b", b)], "c"), 0.06)
    net.node("Shape", [("x", x)], "size")
    net.node("Reshape", [("c", c), "size"], "same")
    y = net.quantize(net.node("MatMul", ["same", ("w3", w3)], "y"), 0.07)
    assert fed_by(net.opened(tmp_path, "y", quantized_output=y)) == {
        "x": (),
        "w1": (),
        "w2": (),
        "w3": (),
        "a": ("x", "w1"),
        "b": ("a", "w2"),
        "c": ("a", "b"),
        "y": ("c", "w3"),
    }


def test_a_value_quantized_twice_is_two_layers_each_with_its_readers(net, tmp_path):
    """`a` has one scale for the MatMul, another for the Add, the first once more for a Sub."""
    a = net.node("Relu", [("x", net.quantize("x", 0.03))], "a")
    first, second, third = (
        net.quantize(a, scale, again) for scale, again in ((0.04, "1"), (0.05, "2"), (0.04, "3"))
    )
    b = net.quantize(net.node("MatMul", [("a", first), ("w", net.weight("w", 4, 4))], "b"), 0.06)
    c = net.quantize(net.node("Add", [("a", second), ("b", b)], "c"), 0.07)
    d = net.quantize(net.node("Sub", [("c", c), ("a", third)], "d"), 0.08)
    found = fed_by(net.opened(tmp_path, "d", quantized_output=d))
    assert found["a"] == found["a:2"] == ("x",)
    assert found["b"] == ("a", "w")
    assert found["c"] == ("a:2", "b")
    assert found["d"] == ("c", "a")


def test_codes_quantized_again_are_fed_by_those_before(net, tmp_path):
    """The model's input in one scale, then in another: no operator between."""
    coarse = net.quantize(net.quantize("x", 0.02), 0.1)
    y = net.quantize(net.node("Relu", [("x", coarse)], "y"), 0.05)
    found = fed_by(net.opened(tmp_path, "y", quantized_output=y))
    (again,) = found.keys() - {"x", "y"}
    assert found == {"x": (), again: ("x",), "y": (again,)}


def test_an_unreadable_layer_of_a_qdq_model_keeps_its_place(net, tmp_path):
    a = net.quantize(net.node("Relu", [("x", net.quantize("x", 0.03))], "a"), -0.04)
    b = net.quantize(net.node("Neg", [("a", a)], "b"), 0.05)
    source = net.opened(tmp_path, "b", quantized_output=b)
    assert [layer.name for layer in source.layers if isinstance(layer, UnreadableLayer)] == ["a"]
    assert fed_by(source) == {"x": (), "a": ("x",), "b": ("a",)}
    assert run(source).layers[1].inputs == ["x"]


def test_a_weight_shared_by_two_operators_feeds_both(net, tmp_path):
    w = net.weight("w", 4, 4)
    a = net.quantize(net.node("MatMul", [("x", net.quantize("x", 0.03)), ("w", w)], "a"), 0.04)
    b = net.quantize(net.node("MatMul", [("a", a), ("w", w)], "b"), 0.05)
    found = fed_by(net.opened(tmp_path, "b", quantized_output=b))
    assert found["a"] == ("x", "w")
    assert found["b"] == ("a", "w")


def test_what_a_branch_of_control_flow_reads_feeds_it(net, tmp_path):
    x = net.quantize("x", 0.03)
    a = net.quantize(net.node("Relu", [("x", x)], "a"), 0.04)
    net.constant("condition", np.bool_(True))
    helper, float32 = net.onnx.helper, net.onnx.TensorProto.FLOAT
    output = [helper.make_tensor_value_info("inner", float32, [1, 4])]
    for (nodes, _), tensor in ((net.floats, "a"), (net.quantized, a)):
        inner = [helper.make_node("Neg", [tensor], ["inner"])]
        branch = helper.make_graph(inner, "branch", [], output)
        branches = {"then_branch": branch, "else_branch": branch}
        nodes.append(helper.make_node("If", ["condition"], ["b"], "if", **branches))
    b = net.quantize("b", 0.05)
    assert fed_by(net.opened(tmp_path, "b", quantized_output=b)) == {
        "x": (),
        "a": ("x",),
        "b": ("a",),
    }


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_both_forms_of_onnxruntime_have_one_graph(form, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs qdebug[onnx]")
    pytest.importorskip("onnxruntime", reason="needs qdebug[onnx]")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from qdebug.sources.onnx.source import OnnxModels

    class Samples(CalibrationDataReader):
        def __init__(self):
            self.left = iter(np.load(tmp_path / "x.npy"))

        def get_next(self):
            sample = next(self.left, None)
            return None if sample is None else {"x": sample[None]}

    rng = np.random.default_rng(3)
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], "one", pads=[1] * 4),
        node("Conv", ["a", "w2"], ["b"], "two"),
        node("Add", ["a", "b"], ["c"], "add"),
        node("Concat", ["c", "a"], ["d"], "concat", axis=1),
        node("GlobalAveragePool", ["d"], ["y"], "mean"),
    ]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1)}
    constants = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [info("x", float32, [1, 3, 5, 5])],
        [info("y", float32, [1, 8, 1, 1])],
        constants,
    )
    opset = [onnx.helper.make_opsetid("", 21)]
    models = [str(tmp_path / name) for name in ("float.onnx", "quantized.onnx")]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), models[0])
    np.save(tmp_path / "x.npy", rng.normal(size=(4, 3, 5, 5)).astype(np.float32))
    quantize_static(*models, Samples(), quant_format=QuantFormat[form])
    assert fed_by(OnnxModels(models, str(tmp_path / "x.npy"))) == {
        "x": (),
        "w1": (),
        "b1": (),
        "w2": (),
        "a": ("x", "w1", "b1"),
        "b": ("a", "w2"),
        "c": ("a", "b"),
        "d": ("c", "a"),
        "y": ("d",),
    }
    assert set(fed_by(OnnxModels(models)).values()) == {()}


# --- pair files and reports -----------------------------------------------------------------------


def test_a_pair_file_and_a_saved_report_keep_them(qdebug, tmp_path):
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs qdebug[litert]")
    pairs, saved = tmp_path / "pairs.npz", tmp_path / "report.json"
    live = (*DIGITS, "--inputs", SAMPLES / "digits_inputs.npz")
    assert qdebug("capture", *live, "-o", pairs).exit_code == 0
    assert qdebug("report", *live, "-o", saved).exit_code == 0
    report = loads(saved.read_text(), "report.json")
    assert all(layer.inputs is not None for layer in report.layers)
    captured = run(PairFiles([str(pairs)]))
    assert [layer.inputs for layer in captured.layers] == [layer.inputs for layer in report.layers]
    assert loads(dumps(report), "again").layers == report.layers
    with np.load(pairs) as arrays:
        (nothing,) = {arrays[key].size for key in arrays if key == "serving_default_image:0/inputs"}
    assert nothing == 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (np.array(["a", "b/c"]), ("a", "b/c")),
        (np.array("a"), ("a",)),
        (np.array([], dtype=np.str_), ()),
        (np.array([""]), ("",)),
    ],
)
def test_a_pair_files_inputs_are_a_name_or_a_list(written, read, write_pairs, healthy):
    path = write_pairs({"a": healthy, "z": healthy | {"inputs": written}})
    assert fed_by(PairFiles([str(path)])) == {"a": None, "z": read}


@pytest.mark.parametrize("inputs", [np.array([1, 2]), np.array([["a"]]), np.array(b"a")])
def test_a_pair_files_inputs_are_texts(inputs, qdebug, write_pairs, healthy):
    result = qdebug("report", write_pairs({"a": healthy | {"inputs": inputs}, "b": healthy}))
    assert result.exit_code == 2
    assert "layer 'a': field 'inputs': found" in result.stderr
    assert "expected text: one, or a list" in result.stderr


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"inputs": np.array(["c"])}, "found ['c']"),
        ({"inputs": np.array(["c", "b"])}, "found ['c', 'b']"),
        ({"inputs": np.array([], dtype=np.str_)}, "found []"),
        ({}, "found nothing"),
    ],
)
def test_shards_must_agree_on_them(other, found, qdebug, write_pairs, healthy):
    one = write_pairs({"a": healthy | {"inputs": np.array(["b", "c"])}, "b": healthy}, "1.npz")
    two = write_pairs({"a": healthy | other, "b": healthy}, "2.npz")
    result = qdebug("report", one, two)
    assert result.exit_code == 2
    expected = f"layer 'a': field 'inputs': {found}, expected ['b', 'c'], as in {one}"
    assert expected in result.stderr


def test_shards_that_agree_are_one_layer(write_pairs, healthy):
    shards = [write_pairs({"a": healthy | {"inputs": np.array(["b"])}}, n) for n in ("1.npz", "2")]
    assert fed_by(PairFiles([str(path) for path in shards])) == {"a": ("b",)}


def test_a_report_without_them_still_loads(write_pairs, healthy):
    report = run(PairFiles([str(write_pairs({"a": healthy | {"inputs": "b"}}))]))
    values = json.loads(dumps(report))
    assert values["layers"][0].pop("inputs") == ["b"]
    (layer,) = loads(json.dumps(values), "old.json").layers
    assert layer.inputs is None
    assert layer.metrics == report.layers[0].metrics
