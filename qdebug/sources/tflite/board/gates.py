"""Gates: where a pair of TFLite graphs can switch between quantized and float. Runs nothing.

Follows ai-edge-quantizer: an operator that is left in float reads and writes floats, but a value
between two operators is float only if both are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from qdebug.arithmetic.affine import QuantParams
from qdebug.errors import FieldError
from qdebug.run.board import BoardOperator
from qdebug.sources.tflite.graph import PASSING, VERIFY, Graph, Operator
from qdebug.sources.tflite.layers import nodes_of, params_of, unique_names
from qdebug.sources.tflite.pairing import constant_values
from qdebug.sources.tflite.rewrite import Read
from qdebug.sources.tflite.twins import Twins

# Places in `Gates.operators`: quantized while one of these is; None: always quantized.
Switch = frozenset[int] | None

# Codes that QUANTIZE and DEQUANTIZE compute.
SIMULATED = ("int8", "uint8", "int16")
# Operators whose integer kernels average codes of one scale. A mean of n codes often lies exactly
# between two codes; these kernels round it away from code 0.
_AVERAGES = ("AVERAGE_POOL_2D",)
# Operators that call other graphs. Weights there would need switches of their own.
_CALLS = ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE")
# Operators whose float kernels need constant weights, and whose integer kernels quantize values
# that the graph does not show.
_RECURRENT = (
    "LSTM",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "RNN",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "SVDF",
)


@dataclass(frozen=True)
class Gate:
    """A choice between a value and the same value quantized as `layer` is.

    A value has two forms: as its operator computes it (raw), and after the gate of its operator.

    Attributes:
        layer: whose parameters quantize the value.
        switch: when the value is quantized.
        takes_raw: the raw value is quantized.
        leaves_raw: the raw value passes while the gate is open.
        from_code_zero: halves are rounded away from code 0 instead of from 0.0.
        relaxed: while one of these is in float, `own` quantizes instead of `layer`.
        own: key in `Gates.params`; empty for none.
    """

    layer: str
    switch: Switch
    takes_raw: bool = True
    leaves_raw: bool = True
    from_code_zero: bool = False
    relaxed: frozenset[int] = frozenset()
    own: str = ""


@dataclass(frozen=True)
class Weight:
    """A constant of the float graph, and the quantized one that takes its place."""

    layer: str
    tensor: int
    partner: int
    switch: Switch


@dataclass(frozen=True, eq=False)
class Gates:
    """All gates of a pair.

    Attributes:
        operators: what can be left in float, in the order of execution.
        places: operator of the float graph -> its place in `operators`.
        params: layer -> how it is quantized.
        made: tensor of the float graph -> the gate behind its operator.
        reads: (float operator, position among its inputs) -> the gate before it.
        ends: output tensor of the float graph -> the gate before the output.
        weights: (float operator, position among its inputs) -> the constant read there.
        fixed: tensors without a switch: name and reason.
    """

    operators: list[BoardOperator] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    params: dict[str, QuantParams] = field(default_factory=dict)
    made: dict[int, Gate] = field(default_factory=dict)
    reads: dict[Read, Gate] = field(default_factory=dict)
    ends: dict[int, Gate] = field(default_factory=dict)
    weights: dict[Read, Weight] = field(default_factory=dict)
    fixed: list[tuple[str, str]] = field(default_factory=list)

    def neighbours(self, floats: Graph) -> list[frozenset[int]]:
        """For each quantized activation, the operators that touch it."""
        touching: dict[int, set[int]] = {
            tensor: set(gate.switch or ()) for tensor, gate in self.made.items()
        }
        operators = {operator.index: operator for operator in floats.operators}
        for (operator, position), gate in self.reads.items():
            tensor = operators[operator].inputs[position]
            touching.setdefault(tensor, set()).update(gate.switch or ())
        return list(dict.fromkeys(frozenset(found) for found in touching.values() if found))


def gates_of(twins: Twins, floats: Graph) -> Gates:
    """The gates of a pair; `floats` is the float graph without the operators that cannot run."""
    return _Planner(twins, floats).gates


class _Planner:
    """Finds the gates of a pair, operator by operator."""

    def __init__(self, twins: Twins, floats: Graph) -> None:
        self.gates = Gates()
        self._quantized, self._floats = twins.quantized_graph, floats
        self._partners = twins.pairing.operators
        self._twin = {theirs: ours for ours, theirs in twins.pairing.values.items()}
        self._names = unique_names(self._quantized)
        self._runs = {operator.index for operator in floats.operators}
        self._unread: dict[int, str] = {}
        # Quantized operator -> its switch; operators in float have none.
        self._switch: dict[int, Switch] = {}
        for operator in self._quantized.operators:
            if operator.op not in (*PASSING, VERIFY) and self._touched(operator):
                self._switch[operator.index] = self._place(operator)
            elif operator.op in _CALLS and twins.quantized.others:
                reason = (
                    f"its operator {operator.op} runs other graphs, which are always float here"
                )
                self.gates.fixed.append((self._layer(operator), reason))
        for tensor in self._computed():
            self._add_made(tensor)
        partner_of = {theirs.index: ours for ours, theirs in self._partners.items()}
        ours = {operator.index: operator for operator in self._quantized.operators}
        for operator in floats.operators:
            if operator.index in partner_of:
                self._add_reads(operator, ours[partner_of[operator.index]])
        self._add_ends(twins)
        self.gates.fixed.extend((self._names[t], reason) for t, reason in self._unread.items())

    # --- operators ---

    def _touched(self, operator: Operator) -> bool:
        """Whether the operator reads or writes quantized values."""
        reads = [tensor for tensor in operator.inputs if tensor >= 0]
        return any(map(self._quantized.is_quantized, (*reads, *operator.outputs))) or any(
            self._quantized_constant(tensor) is not None for tensor in reads
        )

    def _quantized_constant(self, tensor: int) -> int | None:
        """The quantized constant behind an input, also behind DEQUANTIZE."""
        root = self._quantized.root[tensor] if tensor >= 0 else -1
        quantized = self._quantized.is_constant(root) and self._quantized.is_quantized(root)
        return root if quantized else None

    def _place(self, operator: Operator) -> Switch:
        """The operator's switch; an operator without one goes to `fixed`."""
        layer, reason = self._layer(operator), self._without_switch(operator)
        if reason:
            self.gates.fixed.append((layer, reason))
            return None
        nodes = nodes_of(operator, self._partners, self._floats)
        place = len(self.gates.operators)
        self.gates.operators.append(BoardOperator(layer, nodes, operator.op))
        self.gates.places[self._partners[operator.index].index] = place
        return frozenset({place})

    def _layer(self, operator: Operator) -> str:
        """The report's name for an operator: its quantized output, its weight, or any output."""
        quantized = [tensor for tensor in operator.outputs if self._quantized.is_quantized(tensor)]
        weights = (self._quantized_constant(tensor) for tensor in operator.inputs)
        found = [*quantized, *(w for w in weights if w is not None), *operator.outputs]
        return self._names[found[0]] if found else operator.op

    def _without_switch(self, operator: Operator) -> str:
        """Why an operator cannot be left in float on the board; empty if it can."""
        partner = self._partners.get(operator.index)
        if partner is None:
            return f"the float model has no counterpart of its operator {operator.op}"
        if partner.index not in self._runs:
            return f"its operator {operator.op} needs a custom operator that LiteRT lacks"
        if operator.op in _CALLS:
            return f"its operator {operator.op} runs other graphs, which are always float here"
        if operator.op in _RECURRENT:
            return f"its operator {operator.op} keeps its state in codes of its own"
        if not nodes_of(operator, self._partners, self._floats):
            return (
                "its tensor has no name in the float model, so no converter can be given its name"
            )
        return ""

    # --- activations ---

    def _computed(self) -> Iterator[int]:
        """The float graph's values in order: its inputs, then what its operators compute."""
        yield from self._floats.inputs
        for operator in self._floats.operators:
            if operator.op not in PASSING:
                yield from operator.outputs

    def _gate(self, tensor: int, switch: Switch, raw: tuple[bool, bool]) -> Gate | None:
        """A gate that quantizes as `tensor` of the quantized graph does; None if none can."""
        layer = self._names[tensor]
        if layer not in self.gates.params:
            found = self._quantized.tensors[tensor]
            assert found.quantization is not None
            try:
                params = None if found.quantization.unread else params_of(found)
            except FieldError:
                params = None
            if params is None or not simulated(params):
                self._unread[tensor] = (
                    "its quantization cannot be computed in float arithmetic, so it is always float"
                )
                return None
            self.gates.params[layer] = params
        operator = self._quantized.producer.get(tensor)
        return Gate(layer, switch, *raw, operator is not None and operator.op in _AVERAGES)

    def _add_made(self, tensor: int) -> None:
        """The gate behind the operator of a value: codes that the quantized operator writes."""
        twin = self._twin.get(self._floats.root[tensor])
        if twin is None or not self._quantized.is_quantized(twin) or not self._is_float(tensor):
            return
        operator = self._quantized.producer.get(twin)
        # A graph's input is quantized for readers that are quantized.
        switch = self._switch.get(operator.index) if operator else None
        gate = self._gate(twin, switch, (True, True))
        if gate:
            self.gates.made[tensor] = gate

    def _is_float(self, tensor: int) -> bool:
        return self._floats.tensors[tensor].type == "FLOAT32"

    def _add_reads(self, operator: Operator, twin: Operator) -> None:
        """The gates before a float operator; `twin` is its partner in the quantized graph."""
        switch = self._switch.get(twin.index, frozenset())
        for position, tensor in enumerate(operator.inputs):
            if tensor < 0:
                continue
            if self._floats.is_constant(self._floats.root[tensor]):
                self._add_weight(operator, twin, position, switch)
                continue
            read = self._read(operator, twin, position)
            if read is None or not self._is_float(tensor):
                continue
            made = self.gates.made.get(tensor)
            given = tensor in self._floats.inputs
            gate = None
            if made and made.layer == self._names[read]:
                either = switch if given else _either(made.switch, switch)
                gate = self._gate(read, either, (True, True))
            else:
                gate = self._gate(read, switch, (made is None, made is None or given))
            if gate:
                self.gates.reads[operator.index, position] = gate

    def _read(self, operator: Operator, twin: Operator, position: int) -> int | None:
        """The codes that the quantized operator reads in place of a float operator's input."""
        value = self._twin.get(self._floats.root[operator.inputs[position]])
        for tensor in twin.inputs:
            if tensor >= 0 and value is not None and self._quantized.root[tensor] == value:
                return tensor if self._quantized.is_quantized(tensor) else None
        if value is None and position < len(twin.inputs):
            tensor = twin.inputs[position]
            paired = self._quantized.root[tensor] in self._twin.values() if tensor >= 0 else True
            if not paired and self._quantized.is_quantized(tensor):
                return tensor if self._quantized.is_computed(tensor) else None
        return None

    def _add_ends(self, twins: Twins) -> None:
        """The gates before the outputs, where the quantized model quantizes them once more."""
        paired = {
            self._twin.get(self._floats.root[tensor]): tensor for tensor in self._floats.outputs
        }
        for tensor in self._quantized.outputs:
            value = self._quantized.root[tensor]
            their = paired.get(value)
            if their is None or tensor == value or not self._quantized.is_quantized(tensor):
                continue
            operator = self._quantized.producer.get(value)
            switch = self._switch.get(operator.index) if operator else None
            gate = self._gate(tensor, switch, (False, False)) if self._is_float(their) else None
            if gate:
                self.gates.ends[their] = gate

    # --- constants ---

    def _add_weight(
        self, operator: Operator, twin: Operator, position: int, switch: Switch
    ) -> None:
        """The constant that a float operator reads at this position."""
        constant = (
            self._quantized_constant(twin.inputs[position]) if position < len(twin.inputs) else None
        )
        if constant is None:
            return
        partner = self._floats.root[operator.inputs[position]]
        ours, theirs = self._quantized.tensors[constant], self._floats.tensors[partner]
        if constant_values(self._quantized, constant) is None:
            self._unread[constant] = (
                "its quantization cannot be computed in float arithmetic, so it is always float"
            )
        elif ours.shape != theirs.shape or constant_values(self._floats, partner) is None:
            self._unread[constant] = "the float model has no such constant; the board uses its own"
        else:
            self.gates.weights[operator.index, position] = Weight(
                self._names[constant], constant, partner, switch
            )


def _either(first: Switch, second: Switch) -> Switch:
    """Quantized while one of two is."""
    return None if first is None or second is None else first | second


def simulated(params: QuantParams) -> bool:
    """Whether QUANTIZE and DEQUANTIZE compute such an activation."""
    whole = params.bits == 8 * (1 if params.dtype.endswith("int8") else 2)
    return params.dtype in SIMULATED and whole and not params.narrow_range
