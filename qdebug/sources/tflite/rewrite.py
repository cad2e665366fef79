"""TFLite models, rewritten for a run. Knows no interpreter.

The runtime gets only models that this module has written, so it always gets a valid flatbuffer,
even if the file was broken.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.sources.tflite.graph import Graph
from qdebug.sources.tflite.model import BROKEN, IDENTIFIER, Model

# One read: the operator's index and the index of the tensor that it reads.
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
    """A flatbuffer of `graph`: the model's own graph, or that graph without some operators.

    All tensors that operators compute become outputs, because delegates discard unread values.

    Args:
        model: the model that the graph is from.
        graph: the operators to keep.
        shapes: the shapes of the graph's inputs.
        constants: tensors that become constants; operators that compute nothing else are dropped.
        cuts: (operator, tensor that it reads) -> a key: the operator reads a fresh graph input
            instead, one for each tensor and key.
        fed: key -> the shape of these inputs.

    Returns:
        The flatbuffer, and (tensor, key) -> the fresh input. No other tensor changes its index.

    Raises:
        QdebugError: the flatbuffer would be larger than the format allows.
    """
    from ai_edge_litert import schema_py_generated as schema

    constants, cuts, fed = constants or {}, cuts or {}, fed or {}
    objects, subgraph = opened(model)

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
    return packed(model, objects, subgraph), fresh


def opened(model: Model) -> tuple[Any, Any]:
    """Copies of the model and of its chosen graph, to be changed and then `packed`."""
    objects = copy.copy(model._objects)
    objects.buffers = list(objects.buffers)
    objects.operatorCodes = list(objects.operatorCodes or [])
    objects.signatureDefs, objects.metadata = None, None
    objects.subgraphs = list(objects.subgraphs)
    subgraph = copy.copy(objects.subgraphs[model._place])
    subgraph.tensors = list(subgraph.tensors)
    return objects, subgraph


def packed(model: Model, objects: Any, subgraph: Any) -> bytes:
    """The flatbuffer of what `opened` gave, with `subgraph` as the graph that is run.

    Raises:
        QdebugError: it would be larger than the format allows.
    """
    import flatbuffers

    objects.subgraphs[model._place] = subgraph
    _bring_forward(objects, model._place)
    builder = flatbuffers.Builder(len(model.content))
    try:
        builder.Finish(objects.Pack(builder), IDENTIFIER)
    except (*BROKEN, RuntimeError) as error:  # more than 2 GB, for example
        raise QdebugError(
            f"{printable(model.path)}: cannot be rewritten for a run: {printable(str(error))}"
        ) from None
    return bytes(builder.Output())


def _bring_forward(objects: Any, place: int) -> None:
    """Make the graph at `place` the first, because an interpreter runs the first."""
    if not place:
        return
    objects.subgraphs[0], objects.subgraphs[place] = objects.subgraphs[place], objects.subgraphs[0]
    moved = {0: place, place: 0}
    for position, subgraph in enumerate(objects.subgraphs):
        changed = copy.copy(subgraph)
        changed.operators = [_redirected(operator, moved) for operator in subgraph.operators or []]
        objects.subgraphs[position] = changed


def _redirected(operator: Any, moved: Mapping[int, int]) -> Any:
    """The operator, with the new indices of the graphs that it calls."""
    redirected = copy.copy(operator)
    for field in ("builtinOptions", "builtinOptions2"):
        options = copy.copy(getattr(operator, field, None))
        for name, value in vars(options).items() if options is not None else ():
            if name == "subgraph" or name.endswith("SubgraphIndex"):
                setattr(options, name, moved.get(value, value))
        setattr(redirected, field, options)
    return redirected
