"""The graph of an ONNX model: its operators and its constants. Runs nothing, judges nothing.

The onnx package is imported only when a model is read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError, MissingExtraError, QdebugError
from qdebug.names import printable
from qdebug.sources.inputs import InputSpec
from qdebug.sources.onnx.attributes import check_attributes

if TYPE_CHECKING:
    import onnx

# Domains whose operators are known by their plain name. onnxruntime has copies of the standard ones
# in its own domain, for types that an older operator set does not have.
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")

# onnx.TensorProto's number of a code type -> the NumPy type that holds the codes, bits in use.
CODE_TYPES = {
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    21: ("uint8", 4),
    22: ("int8", 4),
    25: ("uint8", 2),
    26: ("int8", 2),
}

# Most elements in one byte, or in one number of a list: four of 2 bits each.
_MOST_IN_ONE = 4

# Bytes of decoded constants that are cached.
_KEPT_BYTES = 1 << 28

# A protobuf file cannot be larger.
_PROTOBUF_LIMIT = 2**31


@dataclass(frozen=True, eq=False)
class Node:
    """One operator; an omitted input is an empty string.

    If the operator has subgraphs (control flow), `inner_quantizers` are the tensors that are
    quantized there, and `inner_inputs` all tensors that are read there, also those of the main
    graph.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    inner_quantizers: tuple[str, ...] = ()
    inner_inputs: tuple[str, ...] = ()

    def input(self, index: int) -> str:
        """The tensor at this place, an empty string if there is none."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a model, without the subgraphs of control flow.

    Attributes:
        path: the user's name for the file.
        model: the protobuf message, without external data.
        nodes: in the order of execution.
        inputs: the inputs to feed, with their type and shape.
        outputs: names.
    """

    path: str
    model: "onnx.ModelProto"
    nodes: Sequence[Node]
    inputs: Mapping[str, InputSpec]
    outputs: Sequence[str]
    _constants: Mapping[str, "onnx.TensorProto"]
    _decoded: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of external data."""
        return str(Path(self.path).parent)

    def is_constant(self, tensor: str) -> bool:
        """Whether the model holds the tensor's values."""
        return tensor in self._constants

    def code_type(self, tensor: str) -> int:
        """The protobuf number of a constant's type."""
        return self._constants[tensor].data_type

    def constant_proto(self, tensor: str) -> "onnx.TensorProto":
        """A copy of a constant as stored, under its name as a tensor."""
        proto = type(self._constants[tensor])()
        proto.CopyFrom(self._constants[tensor])
        proto.name = tensor
        return proto

    def constant_shape(self, tensor: str) -> tuple[int, ...]:
        """The declared shape of a constant."""
        return tuple(self._constants[tensor].dims)

    def constant(self, tensor: str, field: str) -> NDArray[Any]:
        """A constant's values, read-only; narrow integers in the next wider type.

        Decoded values are cached, up to `_KEPT_BYTES` in total.

        Raises:
            FieldError: they cannot be decoded; `field` is for the message.
        """
        if tensor not in self._decoded:
            values = self._decode(tensor, field)
            values.flags.writeable = False
            if sum(kept.nbytes for kept in self._decoded.values()) + values.nbytes > _KEPT_BYTES:
                return values
            self._decoded[tensor] = values
        return self._decoded[tensor]

    def _decode(self, tensor: str, field: str) -> NDArray[Any]:
        import onnx

        proto = self.constant_proto(tensor)  # external data is loaded into the copy only
        try:
            values = onnx.numpy_helper.to_array(proto, self.folder)
        except Exception as error:  # the type depends on the version and the storage form
            raise FieldError(
                field, found=f"'{printable(tensor)}': {one_line(error)}", expected="an array"
            ) from None
        if proto.data_type in CODE_TYPES:
            return values.astype(CODE_TYPES[proto.data_type][0])
        if values.dtype.kind == "V" or proto.data_type == onnx.TensorProto.BFLOAT16:
            return values.astype(np.float32)
        return values


@dataclass(frozen=True)
class Additions:
    """What to run in a graph in addition to its own nodes."""

    nodes: Sequence["onnx.NodeProto"] = ()
    constants: Sequence["onnx.TensorProto"] = ()


def read_graph(path: str) -> Graph:
    """The model in a file.

    Raises:
        QdebugError: no such file, the file is not an ONNX model, or the onnx package is missing.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise MissingExtraError("ONNX models need", "onnx") from None
    shown = printable(path)
    try:
        size = Path(path).stat().st_size
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror or error}") from None
    except Exception as error:  # protobuf's own types, which qdebug cannot import
        if size >= _PROTOBUF_LIMIT:
            raise QdebugError(
                f"{shown}: found {size:,} bytes, expected less than 2 GB, which is all that ONNX "
                "can read in one file: save the model with external data"
            ) from None
        raise QdebugError(f"{shown}: no ONNX model: {one_line(error)}") from None
    if not model.graph.node:
        raise QdebugError(f"{shown}: no ONNX model: it has no operator")
    if model.functions:
        model = inliner.inline_local_functions(model)
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise QdebugError(f"{shown}: no ONNX model: it has a name that is no text")
    for tensor in model.graph.initializer:
        _check_size(tensor, shown)
    check_attributes(model, shown)
    nodes = [_node(node) for node in model.graph.node]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        if node.op == "Constant" and node.outputs:
            value = _constant_value(node)
            if value is not None:
                _check_size(value, shown)
                constants[node.outputs[0]] = value
    return Graph(
        path=path,
        model=model,
        nodes=nodes,
        inputs={
            value.name: _spec(value, shown)
            for value in model.graph.input
            if value.name not in constants
        },
        outputs=[value.name for value in model.graph.output],
        _constants=constants,
    )


def with_operator_only(graph: Graph, output: str, first_input: str) -> Graph:
    """The operator that makes `output`, alone with constants; `first_input` is one of them."""
    proto = next(node for node in graph.model.graph.node if output in node.output)
    node = type(proto)()
    node.CopyFrom(proto)
    node.input[0] = first_input
    return alone(graph, [node])


def alone(graph: Graph, nodes: Sequence["onnx.NodeProto"]) -> Graph:
    """Operators that depend on constants only, and these constants."""
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    held = [graph.constant_proto(name) for name in read if name not in made]
    model = helper.make_model(
        helper.make_graph(nodes, "constants", [], [], held),
        opset_imports=graph.model.opset_import,
        ir_version=graph.model.ir_version,
    )
    return replace(graph, model=model, nodes=[_node(node) for node in nodes], inputs={}, outputs=[])


def one_line(error: BaseException) -> str:
    """Another package's error message, on one line and safe to show."""
    said = printable(" ".join(str(error).split())) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:299]}…"


def _check_size(tensor: "onnx.TensorProto", shown: str) -> None:
    """Check that a constant has enough data for its shape; without it, some runtimes crash.

    Raises:
        QdebugError: it does not.
    """
    if tensor.external_data:
        return
    lists = (tensor.float_data, tensor.int32_data, tensor.string_data, tensor.int64_data,
             tensor.double_data, tensor.uint64_data)  # fmt: skip
    held = max(len(tensor.raw_data), *map(len, lists))
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MOST_IN_ONE * held:
        raise QdebugError(
            f"{shown}: constant '{printable(tensor.name)}': found {held} bytes or numbers, "
            f"expected enough for shape {tuple(tensor.dims)}"
        )


def _names(graph: "onnx.GraphProto") -> Iterator[Any]:
    """All names in the graph and its subgraphs; protobuf returns one that is no text as bytes."""
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)
    for values in (graph.initializer, graph.input, graph.output):
        yield from (value.name for value in values)


def _node(proto: "onnx.NodeProto") -> Node:
    from onnx.helper import get_attribute_value

    known = proto.domain in _KNOWN_DOMAINS
    return Node(
        op=proto.op_type if known else f"{proto.domain}.{proto.op_type}",
        name=proto.name,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={
            attribute.name: get_attribute_value(attribute)
            for attribute in proto.attribute
            if not attribute.ref_attr_name
        },
        inner_quantizers=tuple(
            inner.input[0]
            for attribute in proto.attribute
            for inner in attribute.g.node
            if inner.op_type == "QuantizeLinear" and inner.input
        ),
        inner_inputs=tuple(_inner_inputs(proto)),
    )


def _inner_inputs(proto: "onnx.NodeProto") -> Iterator[str]:
    """The tensors that operators in the subgraphs of one operator read."""
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _inner_inputs(inner)


def _constant_value(node: Node) -> "onnx.TensorProto | None":
    """The value of a Constant operator, if it is a tensor of numbers."""
    import onnx

    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, onnx.TensorProto):
            return value
        if name in ("value_float", "value_floats"):
            return onnx.numpy_helper.from_array(np.asarray(value, np.float32))
        if name in ("value_int", "value_ints"):
            return onnx.numpy_helper.from_array(np.asarray(value, np.int64))
    return None


def _spec(value: "onnx.ValueInfoProto", shown: str) -> InputSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    where = f"{shown}: model input '{printable(value.name)}'"
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise QdebugError(f"{where}: found no shape, expected a tensor of a known number of axes")
    try:
        dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        raise QdebugError(
            f"{where}: found type {tensor.elem_type}, expected one that NumPy has"
        ) from None
    # An axis of variable length has no number, a name, or, from some exporters, 0 or -1.
    shape = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return InputSpec(value.name, shape, dtype)
