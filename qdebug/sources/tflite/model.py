"""TFLite files: a model and its chosen graph. Runs nothing."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import nearest, printable
from qdebug.sources.tflite.graph import CODES, Blocks, Graph, Operator, Quantization, Tensor

IDENTIFIER = b"TFL3"

# Exceptions from reading a flatbuffer whose offsets are wrong.
BROKEN = (
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


@dataclass(frozen=True, eq=False)
class Model:
    """A TFLite file: its chosen graph, and everything that is needed to write it again.

    Attributes:
        path: the user's name for the file.
        content: the file's bytes.
        graph: of the chosen signature, or the first.
        others: name and number of quantized tensors of each other graph that has some.
        notes: what the user should know about the choice, one line each.
    """

    path: str
    content: bytes
    graph: Graph
    others: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    _objects: Any
    _place: int

    def options(self, operator: Operator) -> Any:
        """An operator's options, as its flatbuffer has them; None if it has none."""
        return self._objects.subgraphs[self._place].operators[operator.index].builtinOptions


def read_model(path: str, signature: str | None = None) -> Model:
    """Read a .tflite file: the graph of `signature`, or the first.

    Raises:
        QdebugError: no such file or signature, the file is not a TFLite model, or ai-edge-litert
            is missing.
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
    if content[4:8] != IDENTIFIER:
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
    except BROKEN as error:
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
    """Load the buffers that large models store after the flatbuffer itself."""
    for buffer in objects.buffers or []:
        if buffer.offset > 1:
            data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.data, buffer.offset, buffer.size = data, 0, 0


def _text(text: Any) -> str:
    """A name in the file; bytes that are not UTF-8 become escapes, so names stay different."""
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
    unread = blocks = None
    if found.details is not None:
        unread = f"its quantization is of another kind: {type(found.details).__name__[:-1]}"
        blocks = _blocks(found.details)
    elif tensor.sparsity is not None:
        unread = "it is stored as a sparse tensor"
    scale = np.array([] if found.scale is None else found.scale, np.float64)
    zero_point = np.array([] if found.zeroPoint is None else found.zeroPoint, np.int64)
    if not scale.size and unread is None:
        return None
    return Quantization(scale, zero_point, int(found.quantizedDimension), unread, blocks)


def _blocks(details: Any) -> Blocks | None:
    """Scales of blocks along one axis, the only ones that quantizers write so far."""
    several = getattr(details, "blockShape", None)
    if type(details).__name__ != "BlockwiseQuantizationT" or (several is not None and len(several)):
        return None
    return Blocks(int(details.scales), int(details.zeroPoints), int(details.blockSize))


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
