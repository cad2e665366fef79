"""Switchboard: an ONNX pair in QDQ form as one graph whose quantized tensors switch to float.

The graph is the quantized model's. After each DequantizeLinear of an activation, a Where chooses
between its output and the floats before QuantizeLinear. A ReLU or Clip that the quantizer dropped
is put back. Weights and biases become inputs, fed with float or quantized values. What cannot be
switched stays quantized.
"""

import math
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.arithmetic.affine import QuantParams, dequantize, quantize
from qdebug.errors import FieldError, QdebugError
from qdebug.names import printable, shown
from qdebug.run.board import BoardLayer, BoardOperator, Outputs
from qdebug.sources.inputs import Inputs, InputSpec
from qdebug.sources.onnx.converter import Converter
from qdebug.sources.onnx.feeds import Feeds
from qdebug.sources.onnx.graph import Graph, alone
from qdebug.sources.onnx.layers import quant_params
from qdebug.sources.onnx.network import Operator
from qdebug.sources.onnx.pairing import Partner, partners
from qdebug.sources.onnx.references import Match, clamp, constant_shape
from qdebug.sources.onnx.run import Session, Tensors
from qdebug.sources.onnx.source import OnnxModels

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Switch:
    """A quantized tensor as its readers get it: the output of one DequantizeLinear.

    Attributes:
        output: that tensor.
        codes: what is dequantized.
        scale: the constant that holds the scale; changes apply to all tensors that share it.
        match: its entry in the report.
        origin: the origin of its partner in the float model; empty if there is none.
        touching: float operators that make it or read it.
        flag: the input that switches it; empty for a constant, which is an input itself.
    """

    output: str
    codes: str
    scale: str
    match: Match
    origin: str
    touching: frozenset[Operator]
    flag: str = ""

    @property
    def is_constant(self) -> bool:
        """Whether it is a weight or a bias."""
        return not self.flag

    @property
    def is_bias(self) -> bool:
        """Whether it is a bias; a bias is quantized if its operator is."""
        return self.match.tensor.kind == "bias"


def board(names: Sequence[str], inputs: Inputs, *, samples: int | None = None) -> "OnnxBoard":
    """The switchboard of a float and a quantized .onnx.

    Args:
        names: both models.
        inputs: the samples, a file (.npz or .npy) or arrays.
        samples: how many samples to use, from the first; None for all.

    Raises:
        QdebugError: a file cannot be read or run, the models are not such a pair, or nothing in
            the quantized one can be switched.
    """
    return OnnxBoard(OnnxModels(names, inputs, samples=samples))


class OnnxBoard:
    """A `Board` of two ONNX models."""

    def __init__(self, models: OnnxModels) -> None:
        """Build the graph.

        Raises:
            QdebugError: nothing can be switched, or the runtime does not accept the graph.
        """
        assert models.samples is not None
        self._floating, self._quantized = models.floating, models.quantized
        self._samples = list(models.samples)
        self._feeds = Feeds(
            self._floating.graph, self._quantized.graph, [m.tensor for m in models.matches]
        )
        partner_of = partners(self._quantized, self._floating)
        found = _Switches(models, partner_of)
        self._switches = found.switches
        self.fixed: Sequence[tuple[str, str]] = found.fixed
        if not found.groups:
            name, reason = found.fixed[0] if found.fixed else ("", "no operator touches a switch")
            which = f"'{shown(name)}': " if name else ""
            raise QdebugError(
                f"{printable(self._quantized.graph.path)}: nothing can be switched to float: "
                f"{which}{reason}; expected a model in QDQ form"
            )
        self._converter = found.converter
        self._groups = found.groups
        self._place = {
            operator: place for place, group in enumerate(self._groups) for operator in group
        }
        always = self._converter.marked()
        self._by_rule = {s for s in self._switches if s.origin in always and not s.is_bias}
        self._sessions_for: dict[tuple[str, ...], Session] = {}
        self._on: dict[frozenset[int], frozenset[_Switch]] = {}
        self._values = _Values(self._switches, found.floats, self._quantized.graph)
        self.outputs, self._output_places = self._float_outputs()

    @cached_property
    def operators(self) -> Sequence[BoardOperator]:
        """The operators that can be left in float, in the order of execution."""
        activations: dict[str, str] = {}
        constants: dict[str, str] = {}
        for switch in self._switches:
            (constants if switch.is_constant else activations).setdefault(
                switch.origin, switch.match.name
            )
        result = []
        for group in self._groups:
            outputs = [tensor for operator in group for tensor in operator.outputs]
            reads = [tensor for tensor in group[0].inputs if tensor in constants]
            layer = next(
                (activations[tensor] for tensor in reversed(outputs) if tensor in activations),
                constants[reads[0]] if reads else outputs[-1],
            )
            nodes = tuple(operator.node.name for operator in group)
            result.append(BoardOperator(layer, nodes if all(nodes) else (), group[0].op))
        return result

    @cached_property
    def neighbours(self) -> Sequence[frozenset[int]]:
        """For each quantized activation, the operators that touch it."""
        return [self._touching(s) for s in self._switches if not s.is_constant]

    @cached_property
    def layers(self) -> Sequence[BoardLayer]:
        """The layers that can be changed."""
        found: dict[str, BoardLayer] = {}
        for switch in self._switches:
            name, kind = switch.match.name, switch.match.tensor.kind
            if name in found:
                layer = found[name]
                found[name] = replace(layer, operators=layer.operators | self._touching(switch))
            elif kind != "bias" and (params := self._values.params.get(switch)):
                axis = _channel_axis(switch) if kind == "weight" else None
                found[name] = BoardLayer(name, kind, params, self._touching(switch), axis)
        return list(found.values())

    @property
    def num_samples(self) -> int:
        """How many samples `run` can be asked for."""
        return len(self._samples)

    def float_outputs(self, sample: int) -> Outputs:
        """The outputs of the float model itself."""
        graph = self._floating.graph
        names = [graph.outputs[place] for place in self._output_places]
        values = self._float_session.run(self._feeds_of(sample)[0], names)
        return [values[name] for name in names]

    def quantized_outputs(self, sample: int) -> Outputs:
        """The outputs of the quantized model itself."""
        values = self._quantized_session.run(self._feeds_of(sample)[1], self._output_names)
        return [values[name] for name in self._output_names]

    def run(
        self,
        sample: int,
        left: Collection[int] = (),
        changes: Mapping[str, QuantParams | None] | None = None,
    ) -> Outputs:
        """The outputs with the operators `left` in float, by ONNX Runtime's own rule.

        Weights that ONNX Runtime quantizes again when it loads such a model stay quantized.

        Args:
            sample: which sample to run on.
            left: places in `operators`.
            changes: layers to quantize with other parameters; None for exact. Tensors that share
                a changed activation's scale change with it.

        Raises:
            QdebugError: the runtime fails, or the codes' type would change.
        """
        on = self._switched_on(frozenset(left))
        feeds = dict(self._feeds_of(sample)[1])
        changed = self._changed(changes or {})
        for switch in self._switches:
            if switch.is_constant:
                params = changed.get(switch.match.name, _AS_IS)
                feeds[switch.output] = self._values.of(switch, switch in on, params)
            else:
                params = changed.get(switch.scale, _AS_IS)
                feeds[switch.flag] = np.asarray(switch in on and params is not None)
                if isinstance(params, QuantParams):
                    feeds |= self._values.overridden(switch, params)
        values = self._session.run(feeds, self._output_names)
        return [values[name] for name in self._output_names]

    def quantized(self, left: Collection[int] = ()) -> set[str]:
        """The layers that stay quantized with the operators `left` in float."""
        return {switch.match.name for switch in self._switched_on(frozenset(left))}

    def floats(self, names: Collection[str], sample: int) -> Mapping[str, Array]:
        """The floats of layers in a run of the float model."""
        wanted = {s.match.name: s for s in self._switches if s.match.name in names}
        made = sorted({s.origin for s in wanted.values() if not s.is_constant and s.origin})
        key = tuple(made)
        if key not in self._sessions_for:
            self._sessions_for = {key: Session(self._floating.graph, made)}
        feeds = self._feeds_of(sample)[0]
        values = self._sessions_for[key].run(feeds, made) if made else {}
        return {
            name: self._values.floats[switch.output]
            if switch.is_constant
            else values[switch.origin]
            for name, switch in wanted.items()
            if switch.is_constant or switch.origin
        }

    def _feeds_of(self, sample: int) -> tuple[Tensors, Tensors]:
        """The inputs of the float model, and of the quantized one."""
        whereabouts.at_sample(sample)
        return self._feeds.of(self._samples[sample])

    @cached_property
    def _float_session(self) -> Session:
        return Session(self._floating.graph, self._floating.graph.outputs)

    @cached_property
    def _quantized_session(self) -> Session:
        return Session(self._quantized.graph, self._output_names)

    @cached_property
    def _session(self) -> Session:
        return Session(_with_switches(self._quantized.graph, self._switches, self._values,
                                      self._floating.graph), self._output_names)  # fmt: skip

    @property
    def _output_names(self) -> list[str]:
        return [self._quantized.graph.outputs[place] for place in self._output_places]

    def _float_outputs(self) -> tuple[Sequence[str], Sequence[int]]:
        """Names and places of the outputs that are floats.

        Raises:
            QdebugError: there is none, the models have different numbers of outputs, or the
                quantized model's are codes.
        """
        ours, theirs = self._quantized.graph, self._floating.graph
        shown_path = printable(ours.path)
        if len(ours.outputs) != len(theirs.outputs):
            raise QdebugError(
                f"{shown_path}: found {len(ours.outputs)} outputs, expected "
                f"{len(theirs.outputs)}, as {printable(theirs.path)} has"
            )
        values = self._float_session.run(self._feeds_of(0)[0], theirs.outputs)
        places = [p for p, name in enumerate(theirs.outputs) if values[name].dtype.kind == "f"]
        if not places:
            raise QdebugError(
                f"{printable(theirs.path)}: found no float among {len(theirs.outputs)} outputs, "
                "expected at least one"
            )
        for place in places:
            kind = ours.model.graph.output[place].type.tensor_type.elem_type
            if kind not in (0, *_FLOAT_TYPES):
                raise QdebugError(
                    f"{shown_path}: output '{printable(ours.outputs[place])}': found ONNX type "
                    f"{kind}, expected floats"
                )
        return [theirs.outputs[place] for place in places], places

    def _touching(self, switch: _Switch) -> frozenset[int]:
        return frozenset(self._place[o] for o in switch.touching if o in self._place)

    def _switched_on(self, left: frozenset[int]) -> frozenset[_Switch]:
        """The switches that stay on."""
        if left not in self._on:
            operators = {operator for place in left for operator in self._groups[place]}
            marked = self._converter.marked(operators)
            self._on[left] = frozenset(
                switch
                for switch in self._switches
                if switch.origin in marked
                or (
                    switch not in self._by_rule
                    and (not switch.touching or not switch.touching <= operators)
                )
            )
        return self._on[left]

    def _changed(self, changes: Mapping[str, QuantParams | None]) -> dict[str, QuantParams | None]:
        """The changes by constant's layer, and by the scale of activations.

        Raises:
            QdebugError: no such layer.
        """
        known = {switch.match.name: switch for switch in self._switches}
        found = {}
        for name, params in changes.items():
            if name not in known:
                raise QdebugError(f"no layer '{shown(name)}' that can be changed")
            switch = known[name]
            found[name if switch.is_constant else switch.scale] = params
        return found


_FLOAT_TYPES = (1, 10, 11)  # TensorProto.FLOAT, FLOAT16 and DOUBLE


class _AsIs:
    """Stands for the model's own parameters."""


_AS_IS = _AsIs()


def _channel_axis(switch: _Switch) -> int | None:
    """The axis of a weight's output channels."""
    operator = switch.match.tensor.operator
    if operator is None or switch.match.tensor.place != 1:
        return None
    if operator.op == "Gemm":
        return 0 if operator.node.attributes.get("transB") else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(operator.op)


class _Switches:
    """Finds what can be switched, and which operators decide about it."""

    def __init__(self, models: OnnxModels, partner_of: Mapping[str, Partner]) -> None:
        self._floating, self._quantized = models.floating, models.quantized
        self._partner_of = partner_of
        self._by_key = {match.tensor.key: match for match in models.matches}
        self.fixed: list[tuple[str, str]] = list(models.skipped)
        self._twin, absorbed, merged = self._twins()
        self._merged = merged
        self.floats: dict[str, Array] = {}
        self.switches = self._found()
        quantized = {switch.origin for switch in self.switches if switch.origin}
        self.converter = Converter(self._floating, quantized, merged, absorbed)
        always = self.converter.marked()
        decides = set(self.converter.operators)
        for switch in self.switches:
            if switch.origin not in always or switch.is_bias:
                decides |= switch.touching
        after: dict[Operator, tuple[Operator, ...]] = {
            partner.operator: tuple(reversed(partner.absorbed))
            for partner in partner_of.values()
            if partner.operator and partner.absorbed
        }
        self.groups = [
            (operator, *after.get(operator, ()))
            for operator in self._floating.operators
            if operator in decides
        ]

    def _twins(self) -> tuple[dict[Operator, Operator], set[Operator], dict[str, str]]:
        """Quantized operator -> float one; the absorbed operators; tensors before them -> after."""
        twin: dict[Operator, Operator] = {}
        absorbed: set[Operator] = set()
        merged: dict[str, str] = {}
        graph = self._floating.graph
        for origin, partner in self._partner_of.items():
            made = self._quantized.producer.get(origin)
            if made is None or partner.operator is None:
                continue
            twin[made] = partner.operator
            absorbed.update(partner.absorbed)
            for operator in partner.absorbed:
                for tensor in operator.inputs:
                    if tensor and not graph.is_constant(tensor):
                        merged[tensor] = partner.tensor
        return twin, absorbed, merged

    def _found(self) -> list[_Switch]:
        graph = self._quantized.graph
        maker = {output: node for node in graph.nodes for output in node.outputs}
        switches: list[_Switch] = []
        switched: set[str] = set()
        reasons: dict[str, str] = {}
        for node in graph.nodes:
            if node.op != "DequantizeLinear" or len(node.inputs) < 2 or not node.outputs:
                continue
            codes = node.inputs[0]
            quantizer = maker.get(codes)
            floats = quantizer.inputs[0] if quantizer and quantizer.op == "QuantizeLinear" else ""
            source = self._quantized.origin.get(codes, codes)
            is_constant = graph.is_constant(source)
            match = self._by_key.get(
                (source if is_constant else floats or codes, node.inputs[1], node.input(2))
            )
            if match is None:
                continue
            if is_constant:
                try:
                    self.floats[node.outputs[0]] = _floats_of(match, self._floating.graph, graph)
                except FieldError as error:
                    reasons[match.name] = str(error)
                    continue
            elif not floats:
                continue
            partner = self._partner_of.get(source)
            tensor = partner.tensor if partner else ""
            switched.add(match.name)
            switches.append(
                _Switch(
                    output=node.outputs[0],
                    codes=codes,
                    scale=node.inputs[1],
                    match=match,
                    origin=self._merged.get(tensor, tensor),
                    touching=self._touching(source),
                    flag="" if is_constant else _unused(f"{node.outputs[0]}/flag", maker),
                )
            )
        for name in (match.name for match in self._by_key.values()):
            if name not in switched:
                self.fixed.append((name, reasons.get(name, "it is not in QDQ form")))
        return switches

    def _touching(self, source: str) -> frozenset[Operator]:
        """The float operators that make or read a tensor of the quantized network."""
        operators = [operator for operator, _ in self._quantized.consumers.get(source, ())]
        if source in self._quantized.producer:
            operators.append(self._quantized.producer[source])
        return frozenset(self._twin[o] for o in operators if o in self._twin)


def _floats_of(match: Match, floating: Graph, quantized: Graph) -> Array:
    """The float values of a weight or bias, as the quantized model has its axes.

    Raises:
        FieldError: the float model has none of this shape.
    """
    tensor, partner = match.tensor, match.partner
    if tensor.floats:
        return quantized.constant(tensor.floats, "float")
    if partner is None:
        raise FieldError("float", found="no partner in the float model", expected="one")
    constant_shape(match, quantized, floating)
    values = floating.constant(partner.tensor, "float")
    if values.dtype.kind != "f":
        raise FieldError("float", found=str(values.dtype), expected="floats")
    return np.ascontiguousarray(values.T if partner.transposed else values)


def _unused(name: str, taken: Container[str]) -> str:
    while name in taken:
        name += "_"
    return name


class _Values:
    """What weights and biases are in float and quantized, and how tensors are quantized.

    Attributes:
        params: of each switch whose codes can be changed.
        floats: by the switch's output.
    """

    def __init__(
        self, switches: Sequence[_Switch], floats: Mapping[str, Array], graph: Graph
    ) -> None:
        self.floats = floats
        self.params: dict[_Switch, QuantParams] = {}
        constants = [switch for switch in switches if switch.is_constant]
        for switch in switches:
            tensor = switch.match.tensor
            if tensor.block or (not switch.is_constant and not tensor.zero_point):
                continue
            shape = floats[switch.output].shape if switch.is_constant else ()
            with suppress(FieldError):
                self.params[switch] = quant_params(graph, tensor, shape)
        self._rounded = _dequantized(graph, [switch.output for switch in constants])
        self._scale = {switch: graph.constant(switch.scale, "scale") for switch in self.params}
        self._changed: dict[_Switch, tuple[QuantParams, Array]] = {}

    def rounded(self, switch: _Switch) -> Array:
        """The dequantized values of a constant."""
        return self._rounded[switch.output]

    def of(self, switch: _Switch, is_on: bool, params: "QuantParams | _AsIs | None") -> Array:
        """The values to feed for a constant."""
        floats = self.floats[switch.output].astype(self._rounded[switch.output].dtype, copy=False)
        if not is_on or params is None:
            return floats
        if isinstance(params, _AsIs):
            return self._rounded[switch.output]
        cached = self._changed.get(switch)
        if cached is None or cached[0] is not params:
            values = dequantize(quantize(floats, params), params).astype(floats.dtype)
            cached = self._changed[switch] = params, values
        return cached[1]

    def overridden(self, switch: _Switch, params: QuantParams) -> Tensors:
        """The inputs that give an activation another scale and zero point.

        Raises:
            QdebugError: its codes would be of another type, or have a scale for each channel.
        """
        ours = self.params.get(switch)
        if ours is None or (ours.dtype, ours.bits) != (params.dtype, params.bits):
            found = f"{params.bits}-bit {params.dtype}"
            expected = f"{ours.bits}-bit {ours.dtype}" if ours else "no change"
            raise QdebugError(
                f"layer '{shown(switch.match.name)}': found {found}, expected {expected}"
            )
        if params.channels > 1:
            raise QdebugError(f"layer '{shown(switch.match.name)}': expected one scale")
        scale = self._scale[switch]
        return {
            _scale_input(switch): params.scale.astype(scale.dtype).reshape(scale.shape),
            _zero_input(switch): params.zero_point.astype(params.dtype).reshape(scale.shape),
        }


def _scale_input(switch: _Switch) -> str:
    return f"{switch.codes}/scale"


def _zero_input(switch: _Switch) -> str:
    return f"{switch.codes}/zero_point"


def _dequantized(graph: Graph, outputs: Sequence[str]) -> Tensors:
    """The values of tensors that are dequantized from constants, as the runtime computes them."""
    if not outputs:
        return {}
    maker = {output: node for node in graph.model.graph.node for output in node.output}
    nodes: dict[str, onnx.NodeProto] = {}
    for output in outputs:
        node = maker[output]
        behind = maker.get(node.input[0])
        if behind is not None and behind.op_type == "QuantizeLinear":
            nodes[behind.output[0]] = behind
        nodes[output] = node
    return Session(alone(graph, list(nodes.values())), outputs).run({}, outputs)


def _with_switches(
    graph: Graph, switches: Sequence[_Switch], values: _Values, floating: Graph
) -> Graph:
    """The quantized graph with its switches."""
    from onnx import ModelProto, TensorProto, helper

    model = ModelProto()
    model.CopyFrom(graph.model)
    by_output = {switch.output: switch for switch in switches}
    tuned = {switch.codes: switch for switch in switches if not switch.is_constant}
    kept: list[onnx.NodeProto] = []
    added: list[onnx.ValueInfoProto] = []
    constants: list[onnx.TensorProto] = []
    inputs: dict[str, InputSpec] = dict(graph.inputs)

    def declare(name: str, kind: int, shape: Sequence[int]) -> None:
        added.append(helper.make_tensor_value_info(name, kind, shape))
        inputs[name] = InputSpec(name, tuple(shape), helper.tensor_dtype_to_np_dtype(kind))

    quantizer = {node.output[0]: node for node in graph.model.graph.node if node.output}
    for node in model.graph.node:
        switch = by_output.get(node.output[0]) if node.output else None
        if node.op_type == "QuantizeLinear" and node.output[0] in tuned:
            switch = tuned[node.output[0]]
            if switch in values.params:
                for place, name in ((1, _scale_input(switch)), (2, _zero_input(switch))):
                    proto = graph.constant_proto(node.input[place])
                    proto.name = name
                    constants.append(proto)
                    declare(name, proto.data_type, proto.dims)
                    node.input[place] = name
            kept.append(node)
        elif switch is None or node.op_type != "DequantizeLinear":
            kept.append(node)
        elif switch.is_constant:
            rounded = values.rounded(switch)
            declare(switch.output, helper.np_dtype_to_tensor_dtype(rounded.dtype), rounded.shape)
        else:
            if switch in values.params:
                node.input[1], node.input[2] = _scale_input(switch), _zero_input(switch)
            node.output[0] = f"{switch.output}/rounded"
            floats = quantizer[switch.codes].input[0]
            low, high = clamp(
                switch.match.partner.absorbed if switch.match.partner else (), floating
            )
            kept.append(node)
            if (low, high) != (-math.inf, math.inf):
                kind = graph.code_type(switch.scale)
                clipped = f"{switch.output}/clipped"
                bounds = []
                for side, bound in (("low", low), ("high", high)):
                    bounds.append(f"{clipped}/{side}" if math.isfinite(bound) else "")
                    if bounds[-1]:
                        constants.append(helper.make_tensor(bounds[-1], kind, [], [bound]))
                kept.append(helper.make_node("Clip", [floats, *bounds], [clipped]))
                floats = clipped
            declare(switch.flag, TensorProto.BOOL, [])
            kept.append(
                helper.make_node("Where", [switch.flag, node.output[0], floats], [switch.output])
            )
    read = {name for node in kept for name in node.input} | set(graph.outputs)
    read |= {name for node in graph.nodes for name in node.inner_inputs}
    kept = [node for node in kept if node.op_type != "QuantizeLinear" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.input.extend(added)
    model.graph.initializer.extend(constants)
    held = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(held)
    return replace(graph, model=model, inputs=inputs)
