"""Layers of a quantized TFLite graph: their names, parameters and constants. Runs nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Decoded, Grid
from qdebug.errors import FieldError
from qdebug.measure.layer import Layer
from qdebug.sources.tflite.blocks import decoded, grid_of
from qdebug.sources.tflite.graph import (
    FLOATS,
    PACKED_BITS,
    PASSING,
    VERIFY,
    Graph,
    Operator,
    Tensor,
)

_BIAS_TYPES = ("INT32", "INT64")
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Skipped:
    """A quantized tensor that is not a layer, and the reason: one line for the user."""

    tensor: int
    reason: str


@dataclass(frozen=True)
class Broken:
    """A quantized tensor whose parameters or codes are invalid."""

    tensor: int
    error: FieldError


@dataclass(frozen=True, eq=False)
class Constant:
    """A weight or bias, its partner in the float graph, and the layer of both."""

    tensor: int
    partner: int
    layer: Layer

    def arrays(self, quantized: Graph, floats: Graph) -> tuple[NDArray[Any], NDArray[Any]]:
        """The floats and the codes."""
        values = floats.tensors[self.partner].constant()
        return values, codes_of_constant(quantized.tensors[self.tensor])

    def rows(self, quantized: Graph, floats: Graph) -> tuple[NDArray[Any], Decoded]:
        """The floats of a layer with a grid, and what its codes stand for, by channel."""
        grid = self.layer.quantization
        assert isinstance(grid, Grid)
        values, codes = self.arrays(quantized, floats)
        found = decoded(quantized, quantized.tensors[self.tensor], codes)
        return grid.rows(values), found.mapped(grid.rows)


def unique_names(graph: Graph) -> dict[int, str]:
    """A name for each tensor: its own, with its index appended if the name is taken.

    >>> rest = ("INT8", (), (), None, None, False)
    >>> tensors = tuple(Tensor(index, name, *rest) for index, name in enumerate("aab"))
    >>> list(unique_names(Graph(tensors, (), (), (), (), ())).values())
    ['a', 'a#1', 'b']
    """
    taken = {tensor.name for tensor in graph.tensors}
    names: dict[int, str] = {}
    first: set[str] = {""}
    for tensor in graph.tensors:
        name = tensor.name
        if name in first:
            name = f"{name}#{tensor.index}"
            while name in taken:
                name += "'"
            taken.add(name)
        first.add(tensor.name)
        names[tensor.index] = name
    return names


def feeders(graph: Graph, layers: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Layer -> the layers nearest upstream, in its operator's input order.

    `layers` are name -> tensor.
    """
    names = {tensor: name for name, tensor in layers.items()}
    return {
        name: tuple(names[read] for read in graph.nearest(tensor, names.keys()))
        for name, tensor in layers.items()
    }


def nodes_of(
    operator: Operator | None, operators: Mapping[int, Operator], floats: Graph
) -> tuple[str, ...]:
    """Quantizers' names for the float partner of an operator: those of its output tensors."""
    partner = None if operator is None else operators.get(operator.index)
    names = [floats.tensors[output].name for output in partner.outputs] if partner else []
    return tuple(names) if all(names) else ()


def params_of(tensor: Tensor, narrow_range: bool = False) -> QuantParams:
    """How the tensor is quantized. Codes of less than a byte become int8, int64 codes int32.

    Raises:
        FieldError: its type is not a type of codes, or its parameters are invalid.
    """
    found = tensor.quantization
    assert found is not None
    bits = PACKED_BITS.get(tensor.type)
    dtype = tensor.type.lower()
    if bits is not None:
        dtype = "uint8" if dtype.startswith("u") else "int8"
    params = QuantParams.of(
        found.scale,
        found.zero_point if found.zero_point.size else 0,
        "int32" if dtype == "int64" else dtype,
        axis=found.axis,
        bits=bits,
        narrow_range=narrow_range,
    )
    if params.axis is not None:
        if not 0 <= params.axis < len(tensor.shape):
            raise FieldError(
                "axis",
                found=str(params.axis),
                expected=f"an axis of a tensor of {len(tensor.shape)} axes",
            )
        if tensor.shape[params.axis] != params.channels:
            raise FieldError(
                "scale",
                found=f"{params.channels} values",
                expected=f"1 or {tensor.shape[params.axis]}, the length of axis {params.axis}",
            )
    return params


def codes_of_constant(tensor: Tensor) -> NDArray[Any]:
    """A constant's codes, in the type that `params_of` gives.

    Raises:
        FieldError: their number does not match the shape, or one does not fit int32.
    """
    codes = tensor.constant()
    if tensor.type == "INT64":
        if codes.size and not (_INT32.min <= codes.min() and codes.max() <= _INT32.max):
            raise FieldError(
                "quantized", found="int64 codes beyond 32 bits", expected="codes that int32 holds"
            )
        return codes.astype(np.int32)
    return codes


def _is_readable(tensor: Tensor) -> bool:
    """Whether a float constant can be read."""
    try:
        tensor.constant()
    except FieldError:
        return False
    return tensor.type in FLOATS


@dataclass(frozen=True)
class _Use:
    """A use of a constant: by which operator, at which of its inputs."""

    operator: Operator
    position: int


def constants(
    quantized: Graph,
    floats: Graph,
    operators: Mapping[int, Operator],
    names: Mapping[int, str],
) -> list[tuple[int, Constant | Broken | Skipped]]:
    """The quantized graph's weights and biases, each with the operator that first reads it."""
    uses: dict[int, list[_Use]] = {}
    for operator in quantized.operators:
        if operator.op not in (*PASSING, VERIFY):
            for position, tensor in enumerate(operator.inputs):
                root = quantized.root[tensor] if tensor >= 0 else -1
                if quantized.is_constant(root) and quantized.is_quantized(root):
                    uses.setdefault(root, []).append(_Use(operator, position))
    return [
        (found[0].operator.index, _constant(quantized, floats, operators, names, tensor, found))
        for tensor, found in uses.items()
    ]


def _constant(
    quantized: Graph,
    floats: Graph,
    operators: Mapping[int, Operator],
    names: Mapping[int, str],
    index: int,
    uses: Sequence[_Use],
) -> Constant | Broken | Skipped:
    tensor, op = quantized.tensors[index], uses[0].operator.op
    assert tensor.quantization is not None
    if tensor.quantization.unread and tensor.quantization.blocks is None:
        return Skipped(index, tensor.quantization.unread)
    paired = [use for use in uses if use.operator.index in operators]
    if not paired:
        return Skipped(index, f"the float model has no partner of its operator {op}")
    reads = operators[paired[0].operator.index].inputs
    position = paired[0].position
    partner = floats.root[reads[position]] if position < len(reads) and reads[position] >= 0 else -1
    if partner < 0:
        return Skipped(index, f"the float model's {op} has no such input")
    if not floats.is_constant(partner):
        return Skipped(index, f"the float model's {op} computes this input")
    theirs = floats.tensors[partner]
    if theirs.shape != tensor.shape:
        return Skipped(
            index,
            f"its shape is {list(tensor.shape)}, and {list(theirs.shape)} in the float model",
        )
    if theirs.quantization is not None:
        return Skipped(index, "in the float model it is quantized too: there is no float reference")
    if not _is_readable(theirs):
        return Skipped(
            index, f"in the float model it is {theirs.type} that cannot be read as floats"
        )
    kind = "bias" if tensor.type in _BIAS_TYPES else "weight"
    try:
        codes = codes_of_constant(tensor)
        params: QuantParams | Grid
        if tensor.quantization.blocks is not None:
            params = grid_of(quantized, tensor)
        else:
            params = _params_of_codes(tensor, codes, kind)
    except FieldError as error:
        return Broken(index, error)
    nodes = nodes_of(paired[0].operator, operators, floats)
    return Constant(index, partner, Layer(names[index], params, tensor.shape, op, kind, nodes))


def _params_of_codes(tensor: Tensor, codes: NDArray[Any], kind: str) -> QuantParams:
    """How a constant is quantized.

    By TFLite's specification symmetric weights do not use the lowest code. A model that uses it
    nevertheless has the full range.
    """
    params = params_of(tensor)
    if kind == "weight" and codes.size and not params.zero_point.any():
        return params_of(tensor, narrow_range=params.qmin < 0 and codes.min() > params.qmin)
    return params
