"""A float TFLite graph, rewritten so that each of its gates can be opened. Runs nothing.

Behind each operator, SELECT_V2 chooses between its own output and the quantized one: what the same
operator of the quantized model computes beside it, or else its output, rounded by QUANTIZE.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.sources.tflite.board.draft import Draft, Lent
from qdebug.sources.tflite.board.gates import Gate, Gates
from qdebug.sources.tflite.graph import Graph, Operator
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.rewrite import Read, Shape

# How far halves are moved from code 0, in steps: more than float32 loses in 128 steps (1e-5), less
# than the distance of other means of some thousand codes.
NUDGE = 1e-4


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
        codes: input of the float graph -> the input for its codes, where the quantized model has
            such an input.
        outputs: output of the float graph -> the tensor that holds it.
    """

    flatbuffer: bytes
    flags: Mapping[Flag, int]
    weights: Mapping[Read, int]
    codes: Mapping[int, int]
    outputs: Mapping[int, int]


def switched(
    model: Model,
    graph: Graph,
    gates: Gates,
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
        outputs: the graph's outputs to compute.
        shapes: the shapes of the graph's inputs.
        constants: tensors that become constants.
        rounded: the gates' constants, as they are quantized; float32.
        quantized: the quantized model.
        lifts: float operator -> the operator of the quantized model that runs beside it.

    Raises:
        QdebugError: the flatbuffer would be larger than the format allows.
    """
    writer = Writer(model, graph, gates, rounded, quantized)
    return writer.written(lifts, outputs, shapes, constants)


class Writer:
    """A draft of the switched graph, written operator by operator."""

    def __init__(
        self,
        model: Model,
        graph: Graph,
        gates: Gates,
        rounded: Mapping[Read, NDArray[Any]],
        quantized: Model,
    ) -> None:
        self._draft = Draft(model)
        self._lent = Lent(quantized, self._draft)
        self._graph, self._gates = graph, gates
        self._weights = rounded
        self._flags: dict[Flag, int] = {}
        self._inputs: dict[Read, int] = {}  # of constants
        # The two forms of a value, where they are not the tensor itself: see `Gate`.
        self._raw: dict[int, int] = {}
        self._behind: dict[int, int] = {}
        # The tensor behind a lifted operator -> while which flag is set, it is codes of a layer.
        self._sources: dict[int, tuple[Flag, str, int]] = {}
        self._rounded: dict[tuple[int, str], tuple[int, int]] = {}  # -> codes, floats
        self._chosen: dict[tuple[Flag, int, int], int] = {}

    def written(
        self,
        lifts: Mapping[int, Operator],
        outputs: Iterable[int],
        shapes: Mapping[int, Shape],
        constants: Mapping[int, NDArray[Any]],
    ) -> Switched:
        """The whole graph."""
        draft = self._draft
        for index, shape in shapes.items():
            draft.tensors[index] = draft.shaped(index, shape)
        for index, values in constants.items():
            draft.tensors[index] = draft.constant(index, values)
        given = {tensor: self._given(tensor) for tensor in self._graph.inputs}
        for tensor in self._graph.inputs:
            self._close(tensor)
        for operator in self._graph.operators:
            if operator.outputs and constants.keys() >= set(operator.outputs):
                continue
            if operator.index in lifts:
                self._lift(operator, lifts[operator.index])
                continue
            copied = draft.original(operator)
            for position, tensor in enumerate(operator.inputs):
                copied.inputs[position] = self._operand((operator.index, position), tensor)
            draft.operators.append(copied)
            for tensor in operator.outputs:
                self._close(tensor)
        found = {tensor: self._end(tensor) for tensor in outputs}
        codes = {tensor: index for tensor, index in given.items() if index is not None}
        fresh = [*self._fresh(), *self._inputs.values(), *codes.values()]
        inputs = [*self._graph.inputs, *fresh]
        flatbuffer = draft.packed(inputs, dict.fromkeys(found.values()))
        return Switched(flatbuffer, self._flags, self._inputs, codes, found)

    def _fresh(self) -> Iterable[int]:
        """The new inputs that are neither constants nor codes."""
        return self._flags.values()

    def _operand(self, read: Read, tensor: int) -> int:
        """What an operator reads at this position, a constant that follows a switch as an input."""
        weight = self._gates.weights.get(read)
        if weight and weight.switch is not None:
            return self._input(read, tensor)
        return self._read(read, tensor)

    def _input(self, read: Read, tensor: int) -> int:
        """An input for the constant that is read here."""
        shape = self._graph.tensors[self._gates.weights[read].partner].shape
        self._inputs[read] = self._draft.add(self._draft.like(tensor, shape))
        return self._inputs[read]

    def _read(self, read: Read, tensor: int) -> int:
        """What an operator reads at this position, its weights quantized."""
        if read in self._weights:
            return self._draft.add(self._draft.constant(tensor, self._weights[read]))
        gate = self._gates.reads.get(read)
        return self._gated(tensor, gate) if gate else self._taken(tensor)

    def _given(self, tensor: int) -> int | None:
        """The codes of a graph's input as an input of their own, if they are given to the model."""
        gate = self._gates.made.get(tensor)
        if gate is None:
            return None
        codes = self._draft.add(self._draft.codes(tensor, self._gates.params[gate.layer]))
        floats = self._draft.append(
            "DEQUANTIZE", [codes], self._draft.add(self._draft.like(tensor))
        )
        self._rounded[tensor, gate.layer] = codes, floats
        return codes

    # --- gates ---

    def _close(self, tensor: int) -> None:
        """Put the gate behind a value's operator."""
        gate = self._gates.made.get(tensor)
        if gate:
            self._behind[tensor] = self._gated(tensor, gate)

    def _end(self, tensor: int) -> int:
        gate = self._gates.ends.get(tensor)
        return self._gated(tensor, gate) if gate else self._taken(tensor)

    def _taken(self, tensor: int, raw: bool = False) -> int:
        """One of a value's two forms."""
        return (self._raw if raw else self._behind).get(tensor, tensor)

    def _gated(self, tensor: int, gate: Gate) -> int:
        """The tensor behind a gate."""
        left = self._taken(tensor, gate.leaves_raw)
        if gate.switch is not None and not gate.switch:
            return left
        closed = self._closed(tensor, gate)
        return closed if gate.switch is None else self._choice(Flag(gate.switch), closed, left)

    def _closed(self, tensor: int, gate: Gate) -> int:
        """The tensor behind a gate while it quantizes."""
        rounded = self._quantized(tensor, gate, gate.layer)[1]
        if not gate.own:
            return rounded
        own = self._quantized(tensor, gate, gate.own)[1]
        return self._choice(Flag(gate.relaxed, every=True), rounded, own)

    def _quantized(self, tensor: int, gate: Gate, layer: str) -> tuple[int, int]:
        """QUANTIZE and DEQUANTIZE: the codes and the floats that they stand for."""
        taken, params = self._taken(tensor, gate.takes_raw), self._gates.params[layer]
        if (taken, layer) not in self._rounded:
            draft = self._draft
            nudged = self._nudged(taken, params) if gate.from_code_zero else taken
            codes = draft.append("QUANTIZE", [nudged], draft.add(draft.codes(taken, params)))
            flag, source, there = self._sources.get(taken, (None, "", -1))
            if flag and source != layer:  # the kernel that reads codes rounds in its own way
                again = draft.append("QUANTIZE", [there], draft.add(draft.codes(taken, params)))
                chosen = draft.add(draft.codes(taken, params))
                codes = draft.append("SELECT_V2", [self._flag(flag), again, codes], chosen)
            floats = draft.append("DEQUANTIZE", [codes], draft.add(draft.like(taken)))
            self._rounded[taken, layer] = codes, floats
        return self._rounded[taken, layer]

    def _nudged(self, tensor: int, params: QuantParams) -> int:
        """The value, moved a little from code 0, so that halves are rounded away from it."""
        draft = self._draft
        scale, zero_point = float(params.scale[0]), float(params.zero_point[0])
        codes, side, nudge, moved = (draft.add(draft.like(tensor)) for _ in range(4))
        draft.append("MUL", [tensor, draft.scalar(1 / scale)], codes)
        draft.append("ADD", [codes, draft.scalar(zero_point)], side, clamped=True)
        draft.append("MUL", [side, draft.scalar(NUDGE * scale)], nudge)
        return draft.append("ADD", [tensor, nudge], moved)

    def _choice(self, flag: Flag, quantized: int, left: int) -> int:
        """SELECT_V2, where there is a choice."""
        if quantized == left:
            return left
        if (flag, quantized, left) not in self._chosen:
            output = self._draft.add(self._draft.like(left))
            reads = [self._flag(flag), quantized, left]
            self._chosen[flag, quantized, left] = self._draft.append("SELECT_V2", reads, output)
        return self._chosen[flag, quantized, left]

    def _flag(self, flag: Flag) -> int:
        if flag not in self._flags:
            self._flags[flag] = self._draft.flag()
        return self._flags[flag]

    # --- lifted operators ---

    def _lift(self, operator: Operator, twin: Operator) -> None:
        """An operator, its twin of the quantized model, and the choice between the two.

        Between two twins, the floats that codes stand for become the same codes again.
        """
        eased = self._eased(operator)
        copied, reads = self._draft.original(operator), list(operator.inputs)
        for position, tensor in enumerate(operator.inputs):
            gate, codes = self._gates.reads.get((operator.index, position)), twin.inputs[position]
            # A graph's input is float for operators in float.
            given = tensor in self._graph.inputs
            copied.inputs[position] = tensor if given else self._taken(tensor)
            constant = self._lent.constant(codes) if codes >= 0 else None
            if constant is not None:
                reads[position] = constant
            else:
                reads[position] = (
                    self._quantized(tensor, gate, gate.layer)[0] if gate else self._taken(tensor)
                )
        self._draft.operators.append(copied)
        outputs = [self._lent.computed(tensor) for tensor in twin.outputs]
        self._lent.append(twin, reads, outputs)
        flag = Flag(frozenset({self._gates.places[operator.index]}))
        for tensor, codes in zip(operator.outputs, outputs, strict=True):
            floats = codes
            if tensor in self._gates.made:
                floats = self._draft.add(self._draft.like(tensor))
                self._draft.append("DEQUANTIZE", [codes], floats)
            if tensor in eased:
                strict, own = eased[tensor]
                floats = self._choice(strict, floats, own)
            chosen = self._choice(flag, floats, tensor)
            self._behind[tensor] = self._raw[tensor] = chosen
            if tensor in self._gates.made and tensor not in eased:
                self._sources[chosen] = flag, self._gates.made[tensor].layer, codes

    def _eased(self, operator: Operator) -> dict[int, tuple[Flag, int]]:
        """An operator's outputs for the case that a value around it has its own range.

        For each output, when that is not so, and the tensor if it is. It is computed in float
        arithmetic: the twin's bias and its kernel are for the recorded scales.
        """
        places = range(len(operator.inputs))
        gates = [self._gates.reads.get((operator.index, position)) for position in places]
        gates += [self._gates.made.get(tensor) for tensor in operator.outputs]
        groups = [gate.relaxed for gate in gates if gate and gate.own]
        if not groups:
            return {}
        copied, found = self._draft.original(operator), dict[int, tuple[Flag, int]]()
        for position, tensor in enumerate(operator.inputs):
            gate = gates[position]
            copied.inputs[position] = (
                self._closed(tensor, gate)
                if gate
                else self._read((operator.index, position), tensor)
            )
        copied.outputs = [self._draft.add(self._draft.like(t)) for t in operator.outputs]
        self._draft.operators.append(copied)
        flag = Flag(frozenset[int]().union(*groups), every=True)
        for tensor, floats in zip(operator.outputs, copied.outputs, strict=True):
            made = self._gates.made.get(tensor)
            found[tensor] = flag, self._closed(floats, made) if made else floats
        return found
