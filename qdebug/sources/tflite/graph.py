"""TFLite graphs: read from a flatbuffer, and rewritten for a run. Knows no interpreter.

Models are only ever run as this module writes them again: what reaches the runtime is then a sound
flatbuffer, whatever the file was.
"""

import copy
import math
import struct
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError, MissingExtraError, QdebugError
from qdebug.names import nearest, printable

# Operators that change how a value is written, not the value.
PASSING = ("QUANTIZE", "DEQUANTIZE", "FAKE_QUANT")
VERIFY = "NumericVerify"

_IDENTIFIER = b"TFL3"

# Operators whose result is a matter of their input's shape; those that reckon with sizes.
_SHAPES = ("SHAPE", "RANK")
_ARITHMETIC = frozenset(
    """ADD SUB MUL DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM NEG CAST STRIDED_SLICE SLICE PACK UNPACK
    CONCATENATION GATHER RESHAPE SQUEEZE EXPAND_DIMS REDUCE_PROD REDUCE_MAX REDUCE_MIN SUM FILL
    RANGE EQUAL NOT_EQUAL LESS GREATER SELECT SELECT_V2 BROADCAST_ARGS""".split()  # noqa: SIM905
)
# Operators whose result's size is a matter of values: always; where all but the first input are not
# constant.
_DATA_SIZED = frozenset(
    """WHERE UNIQUE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 WHILE IF CALL STABLEHLO_WHILE
    STABLEHLO_CASE RANGE FILL""".split()  # noqa: SIM905
)
_SIZED = frozenset(
    """RESHAPE SLICE STRIDED_SLICE TILE PAD PADV2 MIRROR_PAD BROADCAST_TO EXPAND_DIMS TOPK_V2
    ONE_HOT RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND
    RANDOM_UNIFORM RANDOM_STANDARD_NORMAL""".split()  # noqa: SIM905
)

# What reading a flatbuffer raises that is not what its offsets say.
_BROKEN = (
    struct.error,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
    KeyError,
    OverflowError,
    MemoryError,
    RecursionError,
)

_DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "FLOAT64": "<f8",
    "BFLOAT16": "<u2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "BOOL": "?",
}
# Types of which several codes share a byte, the first in the lowest bits.
PACKED_BITS = {"INT4": 4, "INT2": 2, "UINT4": 4}
CODES = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", *PACKED_BITS)
FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")


@dataclass(frozen=True, eq=False)
class Quantization:
    """How a tensor is quantized; `axis` is the quantized dimension.

    `unread` says why the codes cannot be read, where the model has a scheme of another kind.
    """

    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int
    unread: str | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a graph; `open_shape` has None for a length that the model leaves open."""

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    open_shape: tuple[int | None, ...]
    quantization: Quantization | None
    data: NDArray[np.uint8] | None
    variable: bool

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of its elements as NumPy has it, where it does."""
        named = _DTYPES.get(self.type)
        return None if named is None or self.type == "BFLOAT16" else np.dtype(named)

    def constant(self) -> NDArray[Any]:
        """Its elements as the file has them, not copied; those of less than a byte in one each.

        Raises:
            FieldError: more or fewer than its shape says, or a type that NumPy does not have.
        """
        assert self.data is not None
        size = math.prod(self.shape)
        if self.type in PACKED_BITS:
            bits = PACKED_BITS[self.type]
            shifts = np.arange(0, 8, bits, dtype=np.uint8)
            spread = (self.data[:, None] >> shifts) & (2**bits - 1)
            codes = np.asarray(spread, np.uint8).reshape(-1)
            if not size <= codes.size < size + len(shifts):
                raise self._wrong_size(codes.size)
            codes = codes[:size]
            if self.type.startswith("U"):
                return codes.reshape(self.shape)
            high = 8 - bits  # move the sign to the top and back, so that it is extended
            signed = (codes << high).view(np.int8) >> high
            return np.asarray(signed, np.int8).reshape(self.shape)
        if self.type not in _DTYPES:
            raise FieldError("quantized", found=self.type, expected="a type of numbers")
        dtype = np.dtype(_DTYPES[self.type])
        if self.data.size != size * dtype.itemsize:
            raise self._wrong_size(self.data.size // dtype.itemsize)
        values = np.ascontiguousarray(self.data).view(dtype).reshape(self.shape)
        if self.type == "BFLOAT16":
            return np.asarray(values.astype(np.uint32) << 16, np.uint32).view(np.float32)
        return values

    def _wrong_size(self, found: int) -> FieldError:
        return FieldError(
            "quantized" if self.quantization else "float",
            found=f"{found} elements",
            expected=f"{math.prod(self.shape)}, as its shape {list(self.shape)} says",
        )


@dataclass(frozen=True)
class Operator:
    """One operator; `inputs` and `outputs` are tensors by index, -1 for an input left out."""

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A subgraph of a model: tensors, and operators in the order in which they run.

    `input_names` and `output_names` are the signature's, or the tensors' own.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @cached_property
    def producer(self) -> dict[int, Operator]:
        """Tensor -> the operator that computes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    @cached_property
    def root(self) -> tuple[int, ...]:
        """Tensor -> the first that has its value: that before QUANTIZE and DEQUANTIZE."""
        root = list(range(len(self.tensors)))
        for operator in self.operators:
            if operator.op in PASSING and operator.inputs and operator.inputs[0] >= 0:
                for tensor in operator.outputs:
                    root[tensor] = root[operator.inputs[0]]
        return tuple(root)

    def is_constant(self, tensor: int) -> bool:
        """Whether the tensor's value is in the file."""
        return tensor >= 0 and self.tensors[tensor].data is not None

    def is_computed(self, tensor: int) -> bool:
        """Whether the tensor's value comes from the model's inputs: no constant and no state."""
        return tensor >= 0 and (tensor in self.producer or tensor in self.inputs)

    def is_quantized(self, tensor: int) -> bool:
        """Whether the tensor holds codes."""
        return tensor >= 0 and self.tensors[tensor].quantization is not None

    @cached_property
    def sizes(self) -> frozenset[int]:
        """Computed tensors that depend on nothing but the shapes of the graph's inputs."""
        sizes, unsized = set[int](), set[int]()
        for operator in self.operators:
            reads = [tensor for tensor in operator.inputs if tensor >= 0]
            unknown = [t for t in reads if not self.is_constant(t) and t not in sizes]
            known = operator.op in _ARITHMETIC and reads and not unknown
            if known or (operator.op in _SHAPES and not unsized.intersection(reads)):
                sizes.update(operator.outputs)
            elif (
                operator.custom
                or operator.op in _DATA_SIZED
                or unsized.intersection(reads)
                or (operator.op in _SIZED and set(unknown).intersection(reads[1:]))
            ):
                unsized.update(operator.outputs)
        return frozenset(sizes)

    def without(self, dropped: Set[int]) -> "Graph":
        """The same without the operators of these indices."""
        kept = tuple(operator for operator in self.operators if operator.index not in dropped)
        return replace(self, operators=kept)

    def after(self, operators: Set[int]) -> set[int]:
        """These operators, by index, and all that need what they compute."""
        found, computed = set(operators), set[int]()
        for operator in self.operators:
            if operator.index in found or computed.intersection(operator.inputs):
                found.add(operator.index)
                computed.update(operator.outputs)
        return found

    def needed(self, tensors: Sequence[int]) -> set[int]:
        """Indices of the operators that these tensors come from, however far back."""
        wanted, needed = set(tensors), set()
        for operator in reversed(self.operators):
            if wanted.intersection(operator.outputs):
                needed.add(operator.index)
                wanted.update(operator.inputs)
        return needed


@dataclass(frozen=True, eq=False)
class Model:
    """A TFLite file: the graph that is looked at, and all that is needed to write it again.

    Attributes:
        path: by the name the user gave it.
        content: the file's bytes.
        graph: of the chosen signature, or the first.
        others: name and number of quantized tensors of the other graphs that have some.
        notes: what the user should know of the choice: a line each.
    """

    path: str
    content: bytes
    graph: Graph
    others: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    _objects: Any
    _place: int


def read_model(path: str, signature: str | None = None) -> Model:
    """Read a .tflite file: the graph of `signature`, or the first.

    Raises:
        QdebugError: no such file or signature, no TFLite model, or ai-edge-litert is missing.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise MissingExtraError("LiteRT models need", "litert") from None
    shown = printable(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror or error}") from None
    if content[4:8] != _IDENTIFIER:
        raise QdebugError(f"{shown}: found no TFLite model, expected a .tflite file")
    try:
        objects = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        _embed(objects, content)
        graphs = [_graph(objects, subgraph, schema) for subgraph in objects.subgraphs]
        signatures = {
            _text(found.signatureKey): found
            for found in objects.signatureDefs or []
            if 0 <= found.subgraphIndex < len(graphs)
        }
        if not graphs:
            raise ValueError("it has no graph")
        place, notes = 0, []
        if signature is not None and signature not in signatures:
            raise QdebugError(
                f"{shown}: no signature '{printable(signature)}'; {nearest(signature, signatures)}"
            )
        if signature is None and signatures:
            first = {found.subgraphIndex: key for key, found in reversed(signatures.items())}
            signature = first.get(0)
            if len(first) > 1:
                notes.append(
                    f"{shown}: found {len(signatures)} signatures, took "
                    f"'{printable(signature or 'the first graph')}'; "
                    "--signature names another"
                )
        graph = graphs[0]
        if signature is not None:
            chosen = signatures[signature]
            place = chosen.subgraphIndex
            graph = _named(graphs[place], chosen)
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise QdebugError(
            f"{shown}: found a broken TFLite model ({printable(said)[:200]}), expected a sound one"
        ) from None
    others = [
        (_text(objects.subgraphs[index].name) or f"subgraph {index}", count)
        for index, other in enumerate(graphs)
        if index != place and (count := sum(t.quantization is not None for t in other.tensors))
    ]
    return Model(path, content, graph, tuple(others), tuple(notes), objects, place)


def _embed(objects: Any, content: bytes) -> None:
    """Bring in what large models keep behind the flatbuffer itself."""
    for buffer in objects.buffers or []:
        if buffer.offset > 1:
            data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.data, buffer.offset, buffer.size = data, 0, 0


def _text(text: Any) -> str:
    """A name in the file: bytes that are no UTF-8 stay apart as escapes."""
    if text is None:
        return ""
    return text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)


def _integers(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _graph(objects: Any, subgraph: Any, schema: Any) -> Graph:
    """A subgraph as plain data, every index checked."""
    types = _names(schema.TensorType)
    tensors = tuple(
        _tensor(objects, index, tensor, types)
        for index, tensor in enumerate(subgraph.tensors or [])
    )
    ops = _names(schema.BuiltinOperator)
    custom = schema.BuiltinOperator.CUSTOM
    operators = []
    for index, operator in enumerate(subgraph.operators or []):
        if not 0 <= operator.opcodeIndex < len(objects.operatorCodes or []):
            raise ValueError(f"operator {index} has no code {operator.opcodeIndex}")
        code = objects.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _text(code.customCode) if number == custom else ops.get(number, f"BUILTIN_{number}")
        inputs, outputs = _integers(operator.inputs), _integers(operator.outputs)
        operators.append(Operator(index, name, inputs, outputs, number == custom))
        _check(f"operator {index}", [*inputs, *_integers(operator.intermediates)], tensors, -1)
        _check(f"operator {index}", outputs, tensors, 0)
    inputs, outputs = _integers(subgraph.inputs), _integers(subgraph.outputs)
    _check("the graph's inputs", inputs, tensors, 0)
    _check("the graph's outputs", outputs, tensors, 0)
    return Graph(
        tensors,
        tuple(operators),
        inputs,
        outputs,
        tuple(tensors[index].name for index in inputs),
        tuple(tensors[index].name for index in outputs),
    )


def _check(what: str, indices: Sequence[int], tensors: Sequence[Tensor], least: int) -> None:
    for index in indices:
        if not least <= index < len(tensors):
            raise ValueError(f"{what}: there is no tensor {index}")


def _tensor(objects: Any, index: int, tensor: Any, types: Mapping[int, str]) -> Tensor:
    if not 0 <= tensor.buffer < len(objects.buffers or []):
        raise ValueError(f"tensor {index} has no buffer {tensor.buffer}")
    shape = _integers(tensor.shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"tensor {index} has shape {list(shape)}")
    signature = _integers(tensor.shapeSignature)
    open_shape = tuple(None if length < 0 else length for length in signature) or shape
    data = objects.buffers[tensor.buffer].data
    type_name = types.get(tensor.type, f"TYPE_{tensor.type}")
    return Tensor(
        index,
        _text(tensor.name),
        type_name,
        shape,
        open_shape if len(open_shape) == len(shape) else shape,
        _quantization(tensor) if type_name in CODES else None,
        data if data is not None and len(data) else None,
        bool(tensor.isVariable),
    )


def _quantization(tensor: Any) -> Quantization | None:
    found = tensor.quantization
    if found is None:
        return None
    unread = None
    if found.details is not None:
        unread = f"its quantization is of another kind: {type(found.details).__name__[:-1]}"
    elif tensor.sparsity is not None:
        unread = "it is stored as a sparse tensor"
    scale = np.array([] if found.scale is None else found.scale, np.float64)
    zero_point = np.array([] if found.zeroPoint is None else found.zeroPoint, np.int64)
    if not scale.size and unread is None:
        return None
    return Quantization(scale, zero_point, int(found.quantizedDimension), unread)


def _named(graph: Graph, signature: Any) -> Graph:
    """The graph with its inputs and outputs under the signature's names."""

    def names(maps: Any, indices: Sequence[int]) -> tuple[str, ...]:
        of = {entry.tensorIndex: _text(entry.name) for entry in maps or []}
        return tuple(of.get(index, graph.tensors[index].name) for index in indices)

    return replace(
        graph,
        input_names=names(signature.inputs, graph.inputs),
        output_names=names(signature.outputs, graph.outputs),
    )


# What one operator reads, by operator and tensor.
Read = tuple[int, int]
Shape = tuple[int, ...]


def rewritten(
    model: Model,
    graph: Graph,
    shapes: Mapping[int, Shape],
    constants: Mapping[int, NDArray[Any]] | None = None,
    cuts: Mapping[Read, int] | None = None,
    fed: Mapping[int, Shape] | None = None,
) -> tuple[bytes, dict[tuple[int, int], int]]:
    """A flatbuffer of `graph`, which is the model's own or that without some operators.

    All that an operator computes is an output: delegates keep no value that nobody reads.

    Args:
        model: where the graph is from.
        graph: the operators to keep.
        shapes: the shapes of the graph's inputs.
        constants: tensors that become constants; operators that compute nothing else are left out.
        cuts: (operator, tensor that it reads) -> a key: the operator reads a fresh graph input
            instead, one for each tensor and key.
        fed: key -> the shape of what these inputs are fed with.

    Returns:
        The flatbuffer, and (tensor, key) -> the fresh input. No other tensor changes its index.

    Raises:
        QdebugError: the flatbuffer would be larger than there can be.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    constants, cuts, fed = constants or {}, cuts or {}, fed or {}
    objects = copy.copy(model._objects)
    objects.buffers = list(objects.buffers)
    objects.signatureDefs, objects.metadata = None, None
    objects.subgraphs = list(objects.subgraphs)
    subgraph = copy.copy(objects.subgraphs[model._place])
    subgraph.tensors = list(subgraph.tensors)

    def shaped(index: int, shape: Shape) -> Any:
        tensor = copy.copy(subgraph.tensors[index])
        tensor.shape, tensor.shapeSignature = list(shape), None
        return tensor

    for index, shape in shapes.items():
        subgraph.tensors[index] = shaped(index, shape)
    for index, values in constants.items():
        tensor = shaped(index, values.shape)
        tensor.type = getattr(schema.TensorType, values.dtype.name.upper())
        tensor.quantization, tensor.buffer = None, len(objects.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        objects.buffers.append(buffer)
        subgraph.tensors[index] = tensor

    fresh: dict[tuple[int, int], int] = {}
    operators: list[Any] = []
    outputs: list[int] = []
    for kept in graph.operators:
        if kept.outputs and constants.keys() >= set(kept.outputs):
            continue
        operator = copy.copy(subgraph.operators[kept.index])
        reads = list(kept.inputs)
        for position, index in enumerate(reads):
            key = cuts.get((kept.index, index))
            if key is None:
                continue
            if (index, key) not in fresh:
                fresh[index, key] = len(subgraph.tensors)
                subgraph.tensors.append(shaped(index, fed[key]))
            reads[position] = fresh[index, key]
        operator.inputs = reads
        operators.append(operator)
        outputs += kept.outputs
    subgraph.operators = operators
    subgraph.inputs = [*graph.inputs, *fresh.values()]
    subgraph.outputs = list(dict.fromkeys(outputs))
    objects.subgraphs[model._place] = subgraph
    _bring_forward(objects, model._place)

    builder = flatbuffers.Builder(len(model.content))
    try:
        builder.Finish(objects.Pack(builder), _IDENTIFIER)
    except (*_BROKEN, RuntimeError) as error:  # beyond 2 GB, for one
        raise QdebugError(
            f"{printable(model.path)}: cannot be rewritten for a run: {printable(str(error))}"
        ) from None
    return bytes(builder.Output()), fresh


def _bring_forward(objects: Any, place: int) -> None:
    """Make the graph at `place` the first, which is the one that an interpreter runs."""
    if not place:
        return
    objects.subgraphs[0], objects.subgraphs[place] = objects.subgraphs[place], objects.subgraphs[0]
    moved = {0: place, place: 0}
    for position, subgraph in enumerate(objects.subgraphs):
        changed = copy.copy(subgraph)
        changed.operators = [_redirected(operator, moved) for operator in subgraph.operators or []]
        objects.subgraphs[position] = changed


def _redirected(operator: Any, moved: Mapping[int, int]) -> Any:
    """The operator with the graphs that it calls at their new places."""
    redirected = copy.copy(operator)
    for field in ("builtinOptions", "builtinOptions2"):
        options = copy.copy(getattr(operator, field, None))
        for name, value in vars(options).items() if options is not None else ():
            if name == "subgraph" or name.endswith("SubgraphIndex"):
                setattr(options, name, moved.get(value, value))
        setattr(redirected, field, options)
    return redirected
