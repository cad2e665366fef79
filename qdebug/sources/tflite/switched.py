"""A float TFLite graph, rewritten so that each of its gates can be opened. Runs nothing."""

import copy
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.sources.tflite.gates import Gate, Gates
from qdebug.sources.tflite.graph import Graph, Operator
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.rewrite import Read, Shape, opened, packed

# How far halves are moved from code 0, in steps: more than float32 loses in 128 steps (1e-5), less
# than the distance of other means of some thousand codes.
_NUDGE = 1e-4


@dataclass(frozen=True)
class Flag:
    """When an input of a switched graph is true: while one of these operators is quantized.

    With `every`, while all of them are.
    """

    operators: frozenset[int]
    every: bool = False

    def given(self, left: Set[int]) -> bool:
        """Its value with the operators `left` in float."""
        return self.operators.isdisjoint(left) if self.every else not self.operators <= left


@dataclass(frozen=True, eq=False)
class Switched:
    """The rewritten graph: a flatbuffer, and the new inputs of its first graph, by tensor.

    Attributes:
        flatbuffer: the whole model.
        flags: flag -> its scalar BOOL input.
        weights: (float operator, position) -> the input for the constant that is read there.
        outputs: output of the float graph -> the tensor that holds it.
    """

    flatbuffer: bytes
    flags: Mapping[Flag, int]
    weights: Mapping[Read, int]
    outputs: Mapping[int, int]


def switched(
    model: Model,
    graph: Graph,
    gates: Gates,
    params: Mapping[str, QuantParams | None],
    outputs: Iterable[int],
    shapes: Mapping[int, Shape],
    constants: Mapping[int, NDArray[Any]],
    rounded: Mapping[Read, NDArray[Any]],
    quantized: Model,
    lifts: Mapping[int, Operator],
) -> Switched:
    """The float graph with its gates.

    Args:
        model: the model that the graph is from.
        graph: the operators to keep.
        gates: of this graph.
        params: layer -> how it is quantized; None for exact.
        outputs: the graph's outputs to compute.
        shapes: the shapes of the graph's inputs.
        constants: tensors that become constants.
        rounded: the gates' constants, as they are quantized; float32.
        quantized: the quantized model.
        lifts: float operator -> the operator of the quantized model that runs beside it.

    Raises:
        QdebugError: the flatbuffer would be larger than the format allows.
    """
    writer = _Writer(model, gates, params, quantized, lifts)
    return writer.written(graph, outputs, shapes, constants, rounded)


class _Writer:
    """Copies of a model and its graph, written operator by operator."""

    def __init__(
        self,
        model: Model,
        gates: Gates,
        params: Mapping[str, QuantParams | None],
        quantized: Model,
        lifts: Mapping[int, Operator],
    ) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model, self._gates, self._params = model, gates, params
        self._objects, self._subgraph = opened(model)
        self._lifts, self._lifted = lifts, _Lifted(quantized, self._objects, self._subgraph)
        self._codes: dict[str, int] = {}
        self._given: frozenset[int] = frozenset()
        self._rounded_weights: Mapping[Read, NDArray[Any]] = {}
        self._operators: list[Any] = []
        self._flags: dict[Flag, int] = {}
        self._behind: dict[int, int] = {}  # value -> the tensor behind the gate of its operator
        self._raw: dict[int, int] = {}  # value of a lifted operator -> the same tensor
        self._rounded: dict[tuple[int, str], tuple[int, int]] = {}  # -> codes, floats
        self._chosen: dict[tuple[Flag, int, int], int] = {}

    def written(
        self,
        graph: Graph,
        outputs: Iterable[int],
        shapes: Mapping[int, Shape],
        constants: Mapping[int, NDArray[Any]],
        rounded: Mapping[Read, NDArray[Any]],
    ) -> Switched:
        """The whole graph."""
        self._rounded_weights = rounded
        tensors = self._subgraph.tensors
        for index, shape in shapes.items():
            tensors[index] = self._like(index, shape)
        for index, values in constants.items():
            tensors[index] = self._constant(index, values)
        weights: dict[Read, int] = {}
        self._given = frozenset(graph.inputs)
        for tensor in graph.inputs:
            self._close(tensor)
        for kept in graph.operators:
            if kept.outputs and constants.keys() >= set(kept.outputs):
                continue
            operator = copy.copy(self._subgraph.operators[kept.index])
            operator.inputs = list(kept.inputs)
            if kept.index in self._lifts:
                self._lift(kept, operator)
                continue
            for position, tensor in enumerate(kept.inputs):
                read = kept.index, position
                weight = self._gates.weights.get(read)
                if weight and weight.switch is None:
                    operator.inputs[position] = self._add(self._constant(tensor, rounded[read]))
                elif weight:
                    shape = graph.tensors[weight.partner].shape
                    weights[read] = self._add(self._like(tensor, shape, computed=True))
                    operator.inputs[position] = weights[read]
                elif read in self._gates.reads:
                    operator.inputs[position] = self._gated(tensor, self._gates.reads[read])
                else:
                    operator.inputs[position] = self._behind.get(tensor, tensor)
            self._operators.append(operator)
            for tensor in kept.outputs:
                self._close(tensor)
        found = {tensor: self._end(tensor) for tensor in outputs}
        self._subgraph.outputs = list(dict.fromkeys(found.values()))
        self._subgraph.operators = _needed(self._operators, self._subgraph.outputs)
        self._subgraph.inputs = [*graph.inputs, *self._flags.values(), *weights.values()]
        flatbuffer = packed(self._model, self._objects, self._subgraph)
        return Switched(flatbuffer, self._flags, weights, found)

    # --- gates ---

    def _close(self, tensor: int) -> None:
        """Put the gate behind a value's operator."""
        gate = self._gates.made.get(tensor)
        if gate:
            self._behind[tensor] = self._gated(tensor, gate)

    def _end(self, tensor: int) -> int:
        gate = self._gates.ends.get(tensor)
        return self._gated(tensor, gate) if gate else self._behind.get(tensor, tensor)

    def _gated(self, tensor: int, gate: Gate) -> int:
        """The tensor behind a gate."""
        left = self._taken(tensor, gate.leaves_raw)
        if gate.switch is None:
            return self._closed(tensor, gate)
        return (
            self._choice(Flag(gate.switch), self._closed(tensor, gate), left)
            if gate.switch
            else left
        )

    def _closed(self, tensor: int, gate: Gate) -> int:
        """The tensor behind a gate while it quantizes."""
        taken = self._taken(tensor, gate.takes_raw)
        rounded = self._rounded_by(gate.layer, taken, gate)
        if not gate.own or self._params[gate.layer] is not self._gates.params[gate.layer]:
            return rounded
        own = self._rounded_by(gate.own, taken, gate)
        return self._choice(Flag(gate.relaxed, every=True), rounded, own)

    def _taken(self, tensor: int, raw: bool) -> int:
        """One of a value's two forms."""
        return (self._raw if raw else self._behind).get(tensor, tensor)

    def _rounded_by(self, layer: str, tensor: int, gate: Gate) -> int:
        """The value, quantized by the parameters of a layer."""
        params = self._params[layer]
        return tensor if params is None else self._quantized(tensor, layer, params, gate)[1]

    def _quantized(
        self, tensor: int, layer: str, params: QuantParams, gate: Gate
    ) -> tuple[int, int]:
        """QUANTIZE and DEQUANTIZE: the codes and the floats that they stand for."""
        if (tensor, layer) not in self._rounded:
            codes = self._like(tensor)
            codes.type = getattr(self._schema.TensorType, params.dtype.upper())
            codes.quantization = self._schema.QuantizationParametersT()
            codes.quantization.scale = params.scale.tolist()
            codes.quantization.zeroPoint = params.zero_point.tolist()
            codes.quantization.quantizedDimension = params.axis or 0
            middle, floats = self._add(codes), self._add(self._like(tensor))
            nudged = self._nudged(tensor, params) if gate.from_code_zero else tensor
            self._append("QUANTIZE", [nudged], middle)
            self._append("DEQUANTIZE", [middle], floats)
            self._rounded[tensor, layer] = middle, floats
        return self._rounded[tensor, layer]

    def _nudged(self, tensor: int, params: QuantParams) -> int:
        """The value, moved a little from code 0, so that halves are rounded away from it."""
        scale, zero_point = float(params.scale[0]), float(params.zero_point[0])
        codes, side, nudge, moved = (self._add(self._like(tensor)) for _ in range(4))
        self._append("MUL", [tensor, self._scalar(1 / scale)], codes)
        self._append("ADD", [codes, self._scalar(zero_point)], side)
        options = self._schema.AddOptionsT()
        options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU_N1_TO_1
        self._operators[-1].builtinOptions = options
        self._operators[-1].builtinOptionsType = self._schema.BuiltinOptions.AddOptions
        self._append("MUL", [side, self._scalar(_NUDGE * scale)], nudge)
        self._append("ADD", [tensor, nudge], moved)
        return moved

    def _scalar(self, value: float) -> int:
        like = next(iter(self._gates.made))
        return self._add(self._constant(like, np.array(value, np.float32)))

    def _choice(self, flag: Flag, quantized: int, left: int) -> int:
        """SELECT_V2, where there is a choice."""
        if quantized == left:
            return quantized
        if (flag, quantized, left) not in self._chosen:
            if flag not in self._flags:
                tensor = self._schema.TensorT()
                tensor.shape, tensor.type = [], self._schema.TensorType.BOOL
                tensor.name, tensor.buffer = f"qdebug/switch{len(self._flags)}", 0
                self._flags[flag] = self._add(tensor)
            output = self._add(self._like(left))
            self._append("SELECT_V2", [self._flags[flag], quantized, left], output)
            self._chosen[flag, quantized, left] = output
        return self._chosen[flag, quantized, left]

    def _lift(self, kept: Operator, operator: Any) -> None:
        """A float operator, its partner of the quantized model, and the choice between the two.

        Between two such operators, the values of the codes are quantized again without a change.
        """
        twin, reads = self._lifts[kept.index], list(kept.inputs)
        eased = self._eased(kept, operator)
        for position, tensor in enumerate(kept.inputs):
            gate, codes = self._gates.reads.get((kept.index, position)), twin.inputs[position]
            constant = self._lifted.constant(codes) if codes >= 0 else None
            # A graph's input is float for operators in float.
            given = tensor in self._given
            operator.inputs[position] = tensor if given else self._behind.get(tensor, tensor)
            if constant is not None:
                reads[position] = constant
            elif gate:
                params = self._params[gate.layer]
                assert params is not None
                taken = self._taken(tensor, gate.takes_raw)
                reads[position] = self._quantized(taken, gate.layer, params, gate)[0]
            else:
                reads[position] = self._behind.get(tensor, tensor)
        self._operators.append(operator)
        outputs = [self._lifted.tensor(tensor) for tensor in twin.outputs]
        self._operators.append(self._lifted.operator(twin, reads, outputs))
        place = frozenset({self._gates.places[kept.index]})
        for tensor, codes in zip(kept.outputs, outputs, strict=True):
            floats = codes
            if tensor in self._gates.made:
                floats = self._add(self._like(tensor))
                self._append("DEQUANTIZE", [codes], floats)
            if tensor in eased:
                floats = self._choice(eased[tensor][0], floats, eased[tensor][1])
            chosen = self._choice(Flag(place), floats, tensor)
            self._behind[tensor] = self._raw[tensor] = chosen

    def _eased(self, kept: Operator, operator: Any) -> dict[int, tuple[Flag, int]]:
        """The outputs of an operator where a value around it has its own range, and when not.

        They are computed in float arithmetic, because the operator's own bias and kernel are for
        the recorded scales.
        """
        reads = {
            position: self._gates.reads[kept.index, position]
            for position in range(len(kept.inputs))
            if (kept.index, position) in self._gates.reads
        }
        made = [self._gates.made[t] for t in kept.outputs if t in self._gates.made]
        groups = [gate.relaxed for gate in (*reads.values(), *made) if gate.own]
        if not groups:
            return {}
        flag = Flag(frozenset[int]().union(*groups), every=True)
        copied = copy.copy(operator)
        copied.inputs = [self._behind.get(tensor, tensor) for tensor in kept.inputs]
        for position, gate in reads.items():
            copied.inputs[position] = self._closed(kept.inputs[position], gate)
        for position, tensor in enumerate(kept.inputs):
            if (kept.index, position) in self._rounded_weights:
                values = self._rounded_weights[kept.index, position]
                copied.inputs[position] = self._add(self._constant(tensor, values))
        copied.outputs = [self._add(self._like(tensor)) for tensor in kept.outputs]
        self._operators.append(copied)
        found = {}
        for tensor, floats in zip(kept.outputs, copied.outputs, strict=True):
            behind = self._gates.made.get(tensor)
            found[tensor] = flag, self._closed(floats, behind) if behind else floats
        return found

    # --- flatbuffer objects ---

    def _like(self, index: int, shape: Shape | None = None, computed: bool = False) -> Any:
        """A tensor like another, without its data; `computed` also without its type."""
        tensor = copy.copy(self._subgraph.tensors[index])
        if shape is not None:
            tensor.shape, tensor.shapeSignature = list(shape), None
        if computed:
            tensor.type = self._schema.TensorType.FLOAT32
        if shape is None or computed:
            tensor.buffer, tensor.quantization, tensor.isVariable = 0, None, False
        return tensor

    def _constant(self, index: int, values: NDArray[Any]) -> Any:
        tensor = self._like(index, values.shape)
        tensor.type = getattr(self._schema.TensorType, values.dtype.name.upper())
        tensor.quantization, tensor.buffer = None, len(self._objects.buffers)
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._objects.buffers.append(buffer)
        return tensor

    def _add(self, tensor: Any) -> int:
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def _append(self, op: str, inputs: list[int], output: int) -> None:
        """Append an operator without options."""
        if op not in self._codes:
            number = getattr(self._schema.BuiltinOperator, op)
            code = self._schema.OperatorCodeT()
            code.builtinCode, code.version = number, 1
            code.deprecatedBuiltinCode = min(number, 127)
            self._codes[op] = len(self._objects.operatorCodes)
            self._objects.operatorCodes.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes[op]
        operator.inputs, operator.outputs = inputs, [output]
        self._operators.append(operator)


class _Lifted:
    """What is copied from the quantized model into another one's objects."""

    def __init__(self, quantized: Model, objects: Any, subgraph: Any) -> None:
        self._from, self._graph = quantized._objects, quantized._objects.subgraphs[quantized._place]
        self._into, self._subgraph = objects, subgraph
        self._codes: dict[int, int] = {}
        self._constants: dict[int, int] = {}

    def operator(self, twin: Operator, inputs: list[int], outputs: list[int]) -> Any:
        """The operator, with other tensors."""
        operator = copy.copy(self._graph.operators[twin.index])
        code = operator.opcodeIndex
        if code not in self._codes:
            self._codes[code] = len(self._into.operatorCodes)
            self._into.operatorCodes.append(self._from.operatorCodes[code])
        operator.opcodeIndex = self._codes[code]
        operator.inputs, operator.outputs = inputs, outputs
        return operator

    def tensor(self, index: int) -> int:
        """A computed tensor."""
        tensor = copy.copy(self._graph.tensors[index])
        tensor.buffer = 0
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def constant(self, index: int) -> int | None:
        """A constant; None if the tensor is computed."""
        data = self._from.buffers[self._graph.tensors[index].buffer]
        if data.data is None or not len(data.data):
            return None
        if index not in self._constants:
            tensor = copy.copy(self._graph.tensors[index])
            tensor.buffer = len(self._into.buffers)
            self._into.buffers.append(data)
            self._subgraph.tensors.append(tensor)
            self._constants[index] = len(self._subgraph.tensors) - 1
        return self._constants[index]


def _needed(operators: list[Any], outputs: Iterable[int]) -> list[Any]:
    """The operators that the outputs depend on, and those that only have an effect."""
    wanted, kept = set(outputs), []
    for operator in reversed(operators):
        if not len(operator.outputs) or wanted.intersection(operator.outputs):
            wanted.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]
