"""References: what a quantized ONNX model computes, and the floats to compare it with.

QDQ models hold their own reference: the input of QuantizeLinear. QOperator nodes hold none. For
each of them the float operator is added, with the float model's weights and the dequantized inputs
of the quantized node, as TFLite's NumericVerify does.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import dequantize
from qdebug.errors import FieldError
from qdebug.sources.onnx.blocks import decoded
from qdebug.sources.onnx.graph import CODE_TYPES, Additions, Graph, with_operator_only
from qdebug.sources.onnx.layers import Quantized, quant_params
from qdebug.sources.onnx.network import Network, Operator, form_of
from qdebug.sources.onnx.pairing import Partner
from qdebug.sources.onnx.run import Session

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

# Two weights disagree if half of their elements differ by more than `_DISAGREE_STEPS` (rounding or
# a coarse type explains less) and the error power exceeds `_DISAGREE_POWER` of the signal power (a
# smaller error may be a wrong scale, which the report shows). At most `_LOOKED_AT` elements are
# compared.
_DISAGREE_STEPS = 1.0
_DISAGREE_POWER = 0.1
_LOOKED_AT = 1 << 16


class UnlikePartnerError(FieldError):
    """A partner with another type or shape, so it is not a partner."""


@dataclass(frozen=True, eq=False)
class Match:
    """A quantized tensor under its layer's name, and its partner in the float model, if any.

    `nodes` are the float model's nodes that do the work of the tensor's operator, by their names.
    `weighted` is the tensor of the local reference with the quantized weights; None if there is no
    local reference.
    """

    name: str
    tensor: Quantized
    partner: Partner | None
    nodes: tuple[str, ...] = ()
    weighted: str | None = None


@dataclass(frozen=True, eq=False)
class Arrays:
    """The tensors of one match from one run, all with the same shape."""

    floats: Array
    codes: Array
    model_float: Array | None
    weights_float: Array | None = None


def constant_shape(match: Match, quantized: Graph, floating: Graph) -> tuple[int, ...]:
    """The shape of a weight or bias, without reading its values.

    Raises:
        UnlikePartnerError: the float one has another shape.
    """
    shape = quantized.constant_shape(match.tensor.floats or match.tensor.codes)
    if match.partner and not match.tensor.floats:
        theirs = floating.constant_shape(match.partner.tensor)
        theirs = theirs[::-1] if match.partner.transposed else theirs
        if theirs != shape:
            raise UnlikePartnerError("float", found=f"shape {theirs}", expected=f"{shape}")
    return shape


def constant_arrays(match: Match, quantized: Graph, floating: Graph) -> Arrays:
    """A weight or bias.

    Raises:
        FieldError: the values cannot be decoded.
        QdebugError: the runtime fails.
    """
    tensor = match.tensor
    if tensor.floats:
        floats = quantized.constant(tensor.floats, "float")
        codes = _codes_of_stored(tensor, quantized)
    else:
        floats = _partner_values(match, floating)
        codes = quantized.constant(tensor.codes, "quantized")
    _check_alike(floats, codes, "float")
    return Arrays(floats, codes, None)


def _codes_of_stored(tensor: Quantized, graph: Graph) -> Array:
    """The codes that the model's own QuantizeLinear computes from float constants."""
    alone = with_operator_only(graph, tensor.codes, tensor.floats)
    session = Session(alone, [tensor.codes], narrow_codes([tensor]))
    return session.run({}, [tensor.codes])[tensor.codes]


def narrow_codes(tensors: Iterable[Quantized]) -> dict[str, str]:
    """Codes of a type that NumPy does not have -> the type that holds them."""
    return {
        tensor.codes: CODE_TYPES[tensor.code_type][0]
        for tensor in tensors
        if CODE_TYPES[tensor.code_type][1] < 8
    }


def _partner_values(match: Match, floating: Graph) -> Array:
    """The float model's own weight or bias."""
    assert match.partner is not None
    values = floating.constant(match.partner.tensor, "float")
    return values.T if match.partner.transposed else values


def activation_arrays(
    match: Match, quantized: Mapping[str, Array], floating: Mapping[str, Array], graph: Graph
) -> Arrays:
    """An activation, from the values of both models; `graph` is the float one.

    If the code range does the work of the float model's ReLU, the quantized model has no ReLU. The
    local reference is then the value before the ReLU, so the ReLU is applied to it here.

    Raises:
        UnlikePartnerError: the float model's tensor has another type or shape.
        FieldError: the tensor that was quantized has.
    """
    tensor, partner = match.tensor, match.partner
    codes = quantized[tensor.codes]
    model = floating[partner.tensor] if partner else None
    if model is not None:
        _check_alike(model, codes, "model_float", UnlikePartnerError)
    floats = quantized[tensor.floats] if tensor.floats else model
    assert floats is not None
    weights = quantized[match.weighted] if match.weighted else None
    if ends := clamp_of(match, graph):
        floats = np.clip(floats, *ends)
        weights = None if weights is None else np.clip(weights, *ends)
    if match.weighted and match.weighted == tensor.floats:
        weights = floats
    _check_alike(floats, codes, "float")
    return Arrays(floats, codes, model, weights)


def clamp_of(match: Match, graph: Graph) -> tuple[float, float] | None:
    """The range that the codes have to keep for a dropped ReLU or Clip; None if there is none.

    `graph` is the float one.
    """
    if match.partner is None or not match.tensor.floats or match.tensor.is_constant:
        return None
    ends = clamp(match.partner.absorbed, graph)
    return None if ends == (-math.inf, math.inf) else ends


def _check_alike(
    floats: Array, codes: Array, field: str, kind: type[FieldError] = FieldError
) -> None:
    if floats.dtype.kind != "f":
        raise kind(field, found=str(floats.dtype), expected="floats")
    if floats.shape != codes.shape:
        raise kind(
            field, found=f"shape {floats.shape}", expected=f"{codes.shape}, as the codes have"
        )


def clamp(absorbed: Iterable[Operator], graph: Graph) -> tuple[float, float]:
    """The range of values that the trailing absorbed ReLU and Clip operators allow."""
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


def disagreement(match: Match, quantized: Graph, floating: Graph) -> float | None:
    """The median distance in steps of weights that disagree; None if they agree."""
    tensor = match.tensor
    try:
        theirs = _partner_values(match, floating)
        ours = quantized.constant(tensor.floats or tensor.codes, "quantized")
        if theirs.shape != ours.shape:
            return math.inf
        values, steps = dequantized(tensor, quantized, ours)
    except FieldError:
        return None  # reading the layer will raise the same error
    values = ours if tensor.floats else values
    x, d, s = (v.reshape(-1)[:: max(1, v.size // _LOOKED_AT)] for v in (theirs, values, steps))
    error = np.abs(d - x)
    with np.errstate(divide="ignore", invalid="ignore"):  # the scale of a block may be 0
        middle = float(np.median(error / s)) if error.size else 0.0
    differ = middle > _DISAGREE_STEPS and np.vdot(error, error) > _DISAGREE_POWER * np.vdot(x, x)
    return middle if differ else None


def dequantized(tensor: Quantized, graph: Graph, codes: Array) -> tuple[Array, Array]:
    """The floats that codes stand for, and the step of each.

    Raises:
        FieldError: the constants are not a valid scale and zero point for these codes.
    """
    if tensor.block:
        found = decoded(graph, tensor, codes)
        assert found.below is not None
        return found.values, np.broadcast_to(2 * found.below, codes.shape)
    params = quant_params(graph, tensor, codes.shape)
    return dequantize(codes, params), np.broadcast_to(params.along(codes.ndim)[0], codes.shape)


# Attributes of quantized operators that a float operator does not need if they have this value.
_IDLE_ATTRIBUTES = {"channels_last": 0}

# Since this operator set, Softmax works on one axis; before, on all axes from its axis on.
_SOFTMAX_SET = 13


def with_local_references(
    net: Network, floating: Graph, matches: Sequence[Match]
) -> tuple[list[Match], Additions]:
    """The matches, each with a float tensor in the graph, and the nodes that compute it."""
    import onnx

    builder = _Builder(net, floating, matches)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    extended = []
    for match in matches:
        operator = match.tensor.operator
        if operator and match.tensor.floats and not match.tensor.is_constant:
            match = replace(match, weighted=match.tensor.floats)  # QDQ: its weights are quantized
        elif operator and not match.tensor.is_constant:
            ends = []
            for dequantized in (False, True):
                made = builder.beside(operator, dequantized)
                if made and (made.constants or not dequantized):
                    nodes += made.nodes
                    constants |= {tensor.name: tensor for tensor in made.constants}
                    ends.append(made.nodes[-1].output[0])
            if ends:
                tensor = replace(match.tensor, floats=ends[0])
                match = replace(match, tensor=tensor, weighted=ends[-1])
        extended.append(match)
    return extended, Additions(nodes, list(constants.values()))


class _Builder:
    """Builds float operators for quantized ones."""

    def __init__(self, net: Network, floating: Graph, matches: Sequence[Match]) -> None:
        self._graph = net.graph
        self._floating = floating
        self._constants = {
            match.tensor.codes: match for match in matches if match.tensor.is_constant
        }
        self._origin = net.origin
        self._taken = set(net.origin)

    def beside(self, operator: Operator, dequantized: bool = False) -> Additions | None:
        """The float operator and its inputs; None if there is no such operator.

        Its weights are the float model's, or the `dequantized` ones.
        """
        from onnx import helper, numpy_helper

        form = form_of(operator.node)
        attributes = self._attributes(operator)
        if form is None or attributes is None:
            return None
        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.TensorProto] = []
        inputs: list[str] = []
        for index in form.operands:
            codes = operator.node.input(index)
            if not codes:
                inputs.append("")
                continue
            name = self._new(codes)
            inputs.append(name)
            if self._graph.is_constant(self._origin.get(codes, codes)):
                values = self._values(self._origin.get(codes, codes), dequantized)
                if values is None:
                    return None
                constants.append(numpy_helper.from_array(values, name))
            else:
                parts = [codes, operator.node.input(index + 1), operator.node.input(index + 2)]
                nodes.append(helper.make_node("DequantizeLinear", parts, [name]))
        output = self._new(operator.outputs[0])
        return Additions(
            [*nodes, helper.make_node(form.op, inputs, [output], **attributes)], constants
        )

    def _values(self, codes: str, rounded: bool) -> NDArray[np.float32] | None:
        """A weight or bias: the float model's own, or its dequantized codes."""
        match = self._constants.get(codes)
        if match is None:
            return None
        try:
            constant_shape(match, self._graph, self._floating)
            arrays = constant_arrays(match, self._graph, self._floating)
            floats = arrays.floats
            if rounded:
                floats, _ = dequantized(match.tensor, self._graph, arrays.codes)
        except FieldError:
            return None
        return np.ascontiguousarray(floats, np.float32)

    def _attributes(self, operator: Operator) -> dict[str, Any] | None:
        """The float operator's attributes; None if it lacks one that matters."""
        from onnx import defs

        version = next(
            (o.version for o in self._graph.model.opset_import if o.domain in ("", "ai.onnx")), 0
        )
        try:
            known = defs.get_schema(operator.op, version).attributes
        except defs.SchemaError:
            return None
        kept = dict(operator.node.attributes)
        for name, value in _IDLE_ATTRIBUTES.items():
            if kept.get(name) == value:
                del kept[name]
        softmax_version = kept.pop("opset", version) if operator.op == "Softmax" else version
        if (softmax_version < _SOFTMAX_SET) != (version < _SOFTMAX_SET):
            return None
        return kept if kept.keys() <= known.keys() else None

    def _new(self, tensor: str) -> str:
        """A name that is not in use yet."""
        name = f"{tensor}/float"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
