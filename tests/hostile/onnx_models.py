"""Hostile ONNX models: a float model that is sound, and a quantized one that is not."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Build, Cases

# Needs the extra `onnx`; imported where a model is made.
ONNX = Cases(
    "ONNX model", "x.onnx", ["report", "{folder}/float.onnx", "{}", "--inputs", "{folder}/x.npy"]
)

Change = Callable[[Any], object]

_LINEAR = ["x", "x_scale", "x_zero"]


@cache
def pair() -> tuple[bytes, bytes]:
    """A dense layer and its quantized form, as files."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3)).astype(np.float32)
    scale = np.abs(weights).max(0) / 127

    def model(nodes: list[Any], constants: dict[str, Any]) -> bytes:
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "dense",
            [info("x", TensorProto.FLOAT, ["N", 4])],
            [info("y", TensorProto.FLOAT, ["N", 3])],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        )
        opset = [helper.make_opsetid("", 21)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=10)
        return bytes(made.SerializeToString())

    node = helper.make_node
    floating = model([node("MatMul", ["x", "w"], ["y"], "dense")], {"w": weights})
    quantized = model(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
            node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
            node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], "dw", axis=1),
            node("MatMul", ["xd", "wd"], ["m"], "dense"),
            node("QuantizeLinear", ["m", "ys", "z"], ["mq"], "qm"),
            node("DequantizeLinear", ["mq", "ys", "z"], ["y"], "dm"),
        ],
        {
            "s": np.float32(1 / 127),
            "z": np.int8(0),
            "ys": np.float32(0.05),
            "wq": np.rint(weights / scale).astype(np.int8),
            "ws": scale.astype(np.float32),
            "wz": np.zeros(3, np.int8),
        },
    )
    return floating, quantized


def write(path: Path, change: Change = lambda model: None) -> None:
    """The pair and its inputs; `path` is the quantized model as `change` leaves it."""
    import onnx

    floating, quantized = pair()
    path.with_name("float.onnx").write_bytes(floating)
    np.save(path.with_name("x.npy"), np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4))
    model = onnx.ModelProto.FromString(quantized)
    change(model)
    path.write_bytes(model.SerializeToString())


def _declare(name: str, why: str, change: Change, said: str) -> None:
    def build(path: Path) -> None:
        write(path, change)

    build.__doc__, build.__name__ = why, name
    (ONNX.refused(said) if said else ONNX.read())(build)


def _node(model: Any, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def _constant(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _attribute(node: str, name: str, value: Any) -> Change:
    """Set an attribute; of bytes, it is text, and `None` stands for a graph."""

    def change(model: Any) -> None:
        from onnx import AttributeProto, helper

        kept = [a for a in _node(model, node).attribute if a.name != name]
        if value is None:
            kept.append(AttributeProto(name=name, type=AttributeProto.GRAPH, g=model.graph))
        else:
            kept.append(helper.make_attribute(name, value))
        del _node(model, node).attribute[:]
        _node(model, node).attribute.extend(kept)

    return change


def _untyped(model: Any) -> None:
    _node(model, "dw").attribute[0].ClearField("type")


_declare("sound", "Nothing: the model that the others spoil.", lambda model: None, "")
for _name, _value in {
    "axis_of_text": b"1",
    "axis_of_a_list": [1, 2],
    "axis_of_a_number": 1.5,
    "axis_of_a_graph": None,
}.items():
    _declare(
        _name,
        "An attribute of another type than the operator's schema gives it.",
        _attribute("dw", "axis", _value),
        "x.onnx: no ONNX model: operator 'dw': attribute 'axis': found type .*, expected INT",
    )
_declare(
    "axis_of_a_graph_without_versions",
    "An attribute of another type, in a model without a list of operator sets: no schema tells.",
    lambda model: (_attribute("dw", "axis", None)(model), model.ClearField("opset_import")),
    "attribute 'axis': found type GRAPH, expected INT",
)
for _name in ("block_size", "output_dtype"):
    _declare(
        f"{_name}_of_a_graph",
        "An attribute that is the model itself.",
        _attribute("q", _name, None),
        f"operator 'q': attribute '{_name}': found type GRAPH, expected INT",
    )
_declare(
    "attribute_of_no_type",
    "An attribute that does not say what it holds.",
    _untyped,
    "operator 'dw': attribute 'axis': found type UNDEFINED, expected INT",
)
for _name, _value in {"axis_beyond": 2**62, "axis_least": -(2**63)}.items():
    _declare(_name, "An axis that no tensor has.", _attribute("dw", "axis", _value), "x.onnx: ")
_declare(
    "block_of_2_to_62",
    "Blocks longer than any tensor.",
    _attribute("dw", "block_size", 2**62),
    "x.onnx: ",
)
for _name, _dims in {
    "elements_10_to_18": [10**9, 10**9],
    "elements_that_overflow": [2**62, 4],
    "negative_length": [-4, 3],
}.items():
    _declare(
        _name,
        "A constant that claims more than it holds.",
        lambda model, dims=_dims: _constant(model, "wq").dims.__setitem__(slice(None), dims),
        "x.onnx: constant 'wq': found 12 bytes or numbers, expected enough for shape",
    )
for _name, _place in {
    "data_beside": "secret.bin",
    "data_upward": "../../../../../../etc/passwd",
    "data_anywhere": "/etc/passwd",
    "data_of_a_device": "/dev/zero",
}.items():

    def _external(model: Any, place: str = _place) -> None:
        tensor = _constant(model, "wq")
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        for key, value in (("location", place), ("offset", "0"), ("length", "12")):
            tensor.external_data.add(key=key, value=value)

    _declare(_name, "A weight that lies in another file.", _external, "x.onnx: ")
_declare(
    "type_unknown",
    "A constant of a type that does not exist.",
    lambda model: setattr(_constant(model, "wq"), "data_type", 99),
    "x.onnx: ",
)
_declare(
    "scale_of_text",
    "A scale that is text.",
    lambda model: setattr(_constant(model, "s"), "data_type", 8),
    "x.onnx: ",
)
_declare(
    "operator_that_feeds_itself",
    "A loop in the graph: an order of execution does not exist.",
    lambda model: _node(model, "q").input.__setitem__(0, "y"),
    "x.onnx: ",
)
_declare(
    "operator_of_nowhere",
    "An input that nobody makes.",
    lambda model: _node(model, "q").input.__setitem__(0, "nobody"),
    "x.onnx: ",
)
_declare(
    "operator_without_inputs",
    "A quantizer of nothing.",
    lambda model: _node(model, "q").ClearField("input"),
    "x.onnx: ",
)
_declare(
    "two_of_one_name",
    "Two operators that make one tensor.",
    lambda model: _node(model, "d").output.__setitem__(0, "wd"),
    "x.onnx: ",
)
_declare(
    "terminal_in_the_names",
    "Names that want to move the cursor.",
    lambda model: setattr(_node(model, "q"), "name", "\x1b[2J\n"),
    "",
)
_declare(
    "operator_set_of_2_to_62",
    "An operator set that does not exist.",
    lambda model: setattr(model.opset_import[0], "version", 2**62),
    "x.onnx: ",
)
_declare(
    "no_operators",
    "A model without an operator.",
    lambda model: model.graph.ClearField("node"),
    "x.onnx: no ONNX model: it has no operator",
)


@ONNX.refused("x.onnx: no ONNX model: it has a name that is no text")
def name_in_a_subgraph_that_is_no_text(path: Path) -> None:
    """A quantizer within control flow reads a tensor whose name is not UTF-8."""
    from onnx import GraphProto, helper

    def branch(model: Any) -> None:
        inner = helper.make_node("QuantizeLinear", ["inner name", "s", "z"], ["i"])
        graph = GraphProto(name="then", node=[inner])
        condition = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)
        model.graph.node.append(condition)

    write(path, branch)
    path.write_bytes(path.read_bytes().replace(b"inner name", b"inner\xffname"))


def _of_bytes(name: str, content: bytes) -> Build:
    def build(path: Path) -> None:
        """Bytes that are no model."""
        write(path)
        path.write_bytes(content)

    build.__name__ = name
    return ONNX.refused("x.onnx: no ONNX model")(build)


_of_bytes("empty", b"")
_of_bytes("text", b"no model")
_of_bytes("long_length", b"\x3a\xff\xff\xff\xff\x7f")
_of_bytes("deep", b"\x0b" * 100_000)
