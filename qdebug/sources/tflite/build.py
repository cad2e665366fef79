"""Building an interpreter for a TFLite graph, all sizes known before the run. Knows no pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.sources.tflite.graph import PASSING, Graph
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.pairing import constant_values
from qdebug.sources.tflite.rewrite import Read, Shape, rewritten
from qdebug.sources.tflite.run import Kernels, Runner


@dataclass(frozen=True, eq=False)
class Built:
    """An interpreter, its kernels, operators and constants, and its new inputs (`fresh`)."""

    runner: Runner
    graph: Graph
    constants: Mapping[int, NDArray[Any]]
    fresh: Mapping[tuple[int, int], int]
    kernels: Kernels


def build(
    model: Model,
    graph: Graph,
    kernels: Kernels,
    inputs: Mapping[int, NDArray[Any]],
    *,
    reset: bool,
    notes: list[str],
    constants: Mapping[int, NDArray[Any]] | None = None,
    cuts: Mapping[Read, int] | None = None,
    fed: Mapping[int, Shape] | None = None,
) -> Built:
    """An interpreter for the graph, without the custom operators that LiteRT lacks.

    `inputs` are a sample's, `reset` is whether the graph has states; `constants`, `cuts` and `fed`
    are those of `rewritten`. What the user should know about the choice of kernels goes to `notes`.

    Raises:
        QdebugError: the runtime cannot run this graph.
    """
    try:
        return _build(model, graph, kernels, inputs, reset, notes, constants or {}, cuts, fed)
    except QdebugError:
        custom = {operator.index for operator in graph.operators if operator.custom}
        kept = graph.without(graph.after(custom))
        if not custom or not kept.operators:
            raise
        return _build(model, kept, kernels, inputs, reset, notes, constants or {}, cuts, fed)


def _build(
    model: Model,
    graph: Graph,
    kernels: Kernels,
    inputs: Mapping[int, NDArray[Any]],
    reset: bool,
    notes: list[str],
    constants: Mapping[int, NDArray[Any]],
    cuts: Mapping[Read, int] | None,
    fed: Mapping[int, Shape] | None,
) -> Built:
    """An interpreter for the graph, with all tensors that depend only on sizes made constant.

    A memory arena that grows during a run moves, but the XNNPACK delegate (LiteRT 2.3) keeps
    reading its inputs at the old address. All sizes must therefore be known before the run. A
    graph in which some are not is run without delegates.
    """
    shapes = {index: values.shape for index, values in inputs.items()}
    constants = dict(constants)
    if graph.sizes - constants.keys():
        flatbuffer, _ = rewritten(model, graph, shapes, constants)
        sizing = Runner(model.path, flatbuffer, "builtin")
        sizing.run(inputs, reset)
        sizes = {tensor: sizing.value(tensor) for tensor in graph.sizes}
        constants |= {tensor: size for tensor, size in sizes.items() if size is not None}
    flatbuffer, fresh = rewritten(model, graph, shapes, constants, cuts, fed)
    runner = Runner(model.path, flatbuffer, kernels)
    computed = (
        tensor
        for operator in graph.operators
        for tensor in operator.outputs
        if tensor not in constants and graph.tensors[tensor].dtype is not None
    )
    if kernels == "default" and any(runner.value(tensor) is None for tensor in computed):
        kernels = "builtin"
        runner = Runner(model.path, flatbuffer, kernels)
        note = (
            f"{printable(model.path)}: the sizes of some tensors are known only during a run; "
            "the builtin kernels are used, without the XNNPACK delegate"
        )
        notes += [note] if note not in notes else []
    return Built(runner, graph, constants, fresh, kernels)


def float_constants(graph: Graph) -> dict[int, NDArray[np.float32]]:
    """The quantized weights that operators of a float model read, dequantized."""
    read = {
        tensor
        for operator in graph.operators
        if operator.op not in PASSING
        for tensor in operator.inputs
        if graph.is_constant(tensor) and graph.is_quantized(tensor)
    }
    values = {tensor: constant_values(graph, tensor) for tensor in read}
    return {
        tensor: floats.astype(np.float32) for tensor, floats in values.items() if floats is not None
    }
