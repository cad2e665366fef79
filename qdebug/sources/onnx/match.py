"""A quantized ONNX tensor and its float twin: the arrays of both, brought into one shape."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import dequantize
from qdebug.errors import FieldError
from qdebug.sources.onnx.graph import CODE_TYPES, Graph, with_operator_only
from qdebug.sources.onnx.layers import Quantized, quant_params, rows_of_blocks
from qdebug.sources.onnx.network import Operator
from qdebug.sources.onnx.pairing import Partner
from qdebug.sources.onnx.run import Session

Array = NDArray[Any]

# Weights disagree when they are more than a step apart for half of the elements (rounding, or a
# coarse type, explains less) and with an error power above a tenth of the signal's (less may be a
# wrong scale, which is for the report to say). So many elements are looked at.
_DISAGREE_STEPS = 1.0
_DISAGREE_POWER = 0.1
_LOOKED_AT = 1 << 16


class UnlikeTwinError(FieldError):
    """A twin of another type or shape: not a twin after all."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A quantized tensor under its layer's name, and its twin in the float model, if any.

    `nodes` are the float model's nodes that do the work of the tensor's operator, by their names.
    """

    name: str
    tensor: Quantized
    twin: Partner | None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Arrays:
    """The data of one pair, from one run: all of one shape."""

    floats: Array
    codes: Array
    model_float: Array | None


def constant_shape(pair: Pair, quantized: Graph, floating: Graph) -> tuple[int, ...]:
    """The shape of a weight or bias, nothing being read.

    Raises:
        UnlikeTwinError: the float one's is another.
    """
    shape = quantized.constant_shape(pair.tensor.floats or pair.tensor.codes)
    if pair.twin and not pair.tensor.floats:
        theirs = floating.constant_shape(pair.twin.tensor)
        theirs = theirs[::-1] if pair.twin.transposed else theirs
        if theirs != shape:
            raise UnlikeTwinError("float", found=f"shape {theirs}", expected=f"{shape}")
    return shape


def constant_arrays(pair: Pair, quantized: Graph, floating: Graph) -> Arrays:
    """A weight or bias.

    Where a block of elements shares a scale, the arrays are of shape (blocks, elements).

    Raises:
        FieldError: values that cannot be had.
        QdebugError: the runtime fails.
    """
    tensor = pair.tensor
    if tensor.floats:
        floats = quantized.constant(tensor.floats, "float")
        codes = _codes_of_stored(tensor, quantized)
    else:
        floats = _twin_values(pair, floating)
        codes = quantized.constant(tensor.codes, "quantized")
    _check_alike(floats, codes, "float")
    if tensor.block:
        floats, codes = (rows_of_blocks(v, tensor.axis, tensor.block) for v in (floats, codes))
    return Arrays(floats, codes, None)


def _codes_of_stored(tensor: Quantized, graph: Graph) -> Array:
    """What the model's own QuantizeLinear makes of floats that it holds."""
    alone = with_operator_only(graph, tensor.codes, tensor.floats)
    session = Session(alone, [tensor.codes], narrow_codes([tensor]))
    return session.run({}, [tensor.codes])[tensor.codes]


def narrow_codes(tensors: Iterable[Quantized]) -> dict[str, str]:
    """Codes whose type NumPy does not have -> the type that holds them."""
    return {
        tensor.codes: CODE_TYPES[tensor.code_type][0]
        for tensor in tensors
        if CODE_TYPES[tensor.code_type][1] < 8
    }


def _twin_values(pair: Pair, floating: Graph) -> Array:
    """The float model's own weight or bias."""
    assert pair.twin is not None
    values = floating.constant(pair.twin.tensor, "float")
    return values.T if pair.twin.transposed else values


def activation_arrays(
    pair: Pair, quantized: Mapping[str, Array], floating: Mapping[str, Array], graph: Graph
) -> Arrays:
    """An activation, from what both models computed; `graph` is the float one.

    The float model's ReLU may be gone from the quantized one because the codes' range does its
    work; then it is applied to the local reference, which is what comes before it.

    Raises:
        UnlikeTwinError: the float model's tensor is of another type or shape.
        FieldError: what was quantized is.
    """
    tensor, twin = pair.tensor, pair.twin
    codes = quantized[tensor.codes]
    model = floating[twin.tensor] if twin else None
    if model is not None:
        _check_alike(model, codes, "model_float", UnlikeTwinError)
    floats = quantized[tensor.floats] if tensor.floats else model
    assert floats is not None
    if twin and tensor.floats:
        low, high = _clamp(twin.absorbed, graph)
        if (low, high) != (-math.inf, math.inf):
            floats = np.clip(floats, low, high)
    _check_alike(floats, codes, "float")
    return Arrays(floats, codes, model)


def _check_alike(
    floats: Array, codes: Array, field: str, kind: type[FieldError] = FieldError
) -> None:
    if floats.dtype.kind != "f":
        raise kind(field, found=str(floats.dtype), expected="floats")
    if floats.shape != codes.shape:
        raise kind(
            field, found=f"shape {floats.shape}", expected=f"{codes.shape}, as the codes have"
        )


def _clamp(absorbed: Iterable[Operator], graph: Graph) -> tuple[float, float]:
    """The range that the last of the absorbed operators leave: ReLU's and Clip's."""
    low, high = -math.inf, math.inf
    for operator in absorbed:
        if operator.op == "Relu":
            low = max(low, 0.0)
        elif operator.op == "Clip":
            low = max(low, _bound(operator, 1, "min", -math.inf, graph))
            high = min(high, _bound(operator, 2, "max", math.inf, graph))
        else:
            break
    return low, high


def _bound(operator: Operator, place: int, name: str, default: float, graph: Graph) -> float:
    """One bound of a Clip: an attribute, or since operator set 11 an input."""
    if name in operator.node.attributes:
        return float(operator.node.attributes[name])
    tensor = operator.inputs[place] if place < len(operator.inputs) else ""
    if not graph.is_constant(tensor):
        return default
    values = graph.constant(tensor, name)
    return float(values.reshape(-1)[0]) if values.size else default


def disagreement(pair: Pair, quantized: Graph, floating: Graph) -> float | None:
    """How many steps apart, in the middle, weights are that are not the same; None if they are."""
    tensor = pair.tensor
    try:
        theirs = _twin_values(pair, floating)
        ours = quantized.constant(tensor.floats or tensor.codes, "quantized")
        params = quant_params(quantized, tensor, ours.shape)
        if theirs.shape != ours.shape:
            return math.inf
        if tensor.block:
            theirs, ours = (rows_of_blocks(v, tensor.axis, tensor.block) for v in (theirs, ours))
    except FieldError:
        return None  # the layer itself will say so
    steps = np.broadcast_to(params.along(ours.ndim)[0], ours.shape)
    values = ours if tensor.floats else dequantize(ours, params)
    x, d, s = (v.reshape(-1)[:: max(1, v.size // _LOOKED_AT)] for v in (theirs, values, steps))
    error = np.abs(d - x)
    middle = float(np.median(error / s)) if error.size else 0.0
    differ = middle > _DISAGREE_STEPS and np.vdot(error, error) > _DISAGREE_POWER * np.vdot(x, x)
    return middle if differ else None
