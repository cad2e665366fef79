"""Layers of ONNX models name those that feed them."""

from pathlib import Path

import numpy as np
import pytest

from qdebug.measure.layer import UnreadableLayer
from qdebug.run.session import run

TESTS = Path(__file__).parent.parent.parent
DATA, SAMPLES = TESTS / "data", TESTS.parent / "sample_models"
DIGITS = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]


def fed_by(source):
    return {layer.name: layer.inputs for layer in source.layers}


def short(name):
    """The name without what the converter writes around it: net_1/left_1/Relu6;... -> left."""
    return name.split("/")[1].removesuffix("_1") if name.startswith("net_1/") else name


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
