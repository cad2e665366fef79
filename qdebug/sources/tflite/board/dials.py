"""Dials: a float TFLite graph whose layers are quantized by arithmetic, with scales as inputs.

A layer's parameters can change between two runs of one interpreter. No integer kernel runs here, so
the gain of a change must be measured against a run of the same graph without the change.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.sources.tflite.board.gates import Gate, Gates
from qdebug.sources.tflite.board.machine import Changes, Weights
from qdebug.sources.tflite.board.switched import NUDGE, Writer
from qdebug.sources.tflite.graph import Graph
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.rewrite import Read, Shape
from qdebug.sources.tflite.run import Kernels, Runner

# A scale so small that nothing is rounded: float32 keeps all digits of floats above 2**-17, and
# floats below 2**88 do not overflow.
_EXACT = 2.0**-40
_AS_IS, _UNSET = object(), object()
_LIMIT = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Dial:
    """The inputs that hold how a layer is quantized, by tensor: see `_settings`."""

    inverse: int
    scale: int
    zero_point: int
    low: int
    high: int


class DialMachine:
    """The interpreter of a graph with dials, for one set of operators in float.

    Attributes:
        runner: the interpreter.
        outputs: output of the float graph -> the tensor that holds it.
    """

    def __init__(
        self,
        model: Model,
        graph: Graph,
        gates: Gates,
        weights: Weights,
        outputs: Iterable[int],
        inputs: Mapping[int, NDArray[Any]],
        constants: Mapping[int, NDArray[Any]],
        left: Collection[int],
        tunable: Collection[str],
        kernels: Kernels,
    ) -> None:
        """Write the graph and build its interpreter.

        Args:
            model: the float model.
            graph: its operators that run.
            gates: of this graph.
            weights: the constants of the pair.
            outputs: the graph's outputs to compute.
            inputs: values of the graph's inputs, for their shapes.
            constants: tensors that become constants.
            left: the operators in float.
            tunable: the constants whose parameters can be changed, by layer.
            kernels: what runs it.

        Raises:
            QdebugError: the runtime does not run it.
        """
        rounded = {
            read: weights.rounded(weight)
            if weight.switch is None or not weight.switch <= set(left)
            else weights.exact(weight)
            for read, weight in gates.weights.items()
        }
        writer = _Writer(model, graph, gates, rounded, model)
        writer.left, writer.tunable = frozenset(left), tunable
        shapes: dict[int, Shape] = {index: values.shape for index, values in inputs.items()}
        made = writer.written({}, outputs, shapes, constants)
        self.runner = Runner(model.path, made.flatbuffer, kernels, keep=False)
        self.outputs = made.outputs
        self._gates, self._weights = gates, weights
        self._dials, self._reads = writer.dials, made.weights
        self._changed_with = writer.changed_with
        self._state: dict[str, object] = {}

    def set(self, changes: Changes) -> None:
        """Quantize layers as these changes say, all others as the quantized model does."""
        values: dict[int, NDArray[Any]] = {}
        for layer, dial in self._dials.items():
            params = changes.get(self._changed_with.get(layer, layer), self._gates.params[layer])
            if self._is_new(layer, params):
                values |= _settings(dial, params)
        for layer in {self._gates.weights[read].layer for read in self._reads}:
            if self._is_new(layer, changes.get(layer, _AS_IS)):
                for read, tensor in self._reads.items():
                    if self._gates.weights[read].layer == layer:
                        weight = self._gates.weights[read]
                        values[tensor] = self._weights.rounded(weight, changes)
        self.runner.set(values)

    def _is_new(self, layer: str, params: object) -> bool:
        """Whether the layer was quantized differently in the run before."""
        before = self._state.get(layer, _UNSET)
        self._state[layer] = params
        return before is not params


class _Writer(Writer):
    """Writes the graph with dials.

    Attributes:
        left: the operators in float.
        tunable: constants that become inputs, by layer.
        dials: layer -> its inputs.
        changed_with: key of a layer's own range -> the layer; its changes also apply there.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.left: frozenset[int] = frozenset()
        self.tunable: Collection[str] = ()
        self.dials: dict[str, _Dial] = {}
        self.changed_with: dict[str, str] = {}
        self._done: dict[tuple[int, str, bool], int] = {}

    def _fresh(self) -> Iterable[int]:
        return [tensor for dial in self.dials.values() for tensor in vars(dial).values()]

    def _operand(self, read: Read, tensor: int) -> int:
        weight = self._gates.weights.get(read)
        if weight and weight.layer in self.tunable and not self._is_open(weight.switch):
            return self._input(read, tensor)
        return self._read(read, tensor)

    def _is_open(self, switch: frozenset[int] | None) -> bool:
        return switch is not None and switch <= self.left

    def _given(self, tensor: int) -> int | None:
        return None

    def _gated(self, tensor: int, gate: Gate) -> int:
        if self._is_open(gate.switch):
            return self._taken(tensor, gate.leaves_raw)
        layer = gate.own if gate.own and gate.relaxed & self.left else gate.layer
        self.changed_with[layer] = gate.layer
        taken = self._taken(tensor, gate.takes_raw)
        key = taken, layer, gate.from_code_zero
        if key not in self._done:
            self._done[key] = self._dialled(taken, layer, gate.from_code_zero)
        return self._done[key]

    def _dialled(self, tensor: int, layer: str, from_code_zero: bool) -> int:
        """A value, quantized and dequantized by the layer's dial."""
        draft = self._draft
        if layer not in self.dials:
            self.dials[layer] = _Dial(*(draft.dial() for _ in range(5)))
        dial = self.dials[layer]

        def computed(op: str, inputs: list[int], clamped: bool = False) -> int:
            return draft.append(op, inputs, draft.add(draft.like(tensor)), clamped)

        steps = computed("MUL", [tensor, dial.inverse])
        if from_code_zero:
            side = computed("ADD", [steps, dial.zero_point], clamped=True)
            nudge = computed("MUL", [side, draft.scalar(NUDGE)])
            steps = computed("ADD", [steps, nudge])
        codes = computed("ROUND", [steps])
        codes = computed("MAXIMUM", [codes, dial.low])
        codes = computed("MINIMUM", [codes, dial.high])
        return computed("MUL", [codes, dial.scale])


def _settings(dial: _Dial, params: QuantParams | None) -> dict[int, NDArray[Any]]:
    """The values of a dial's inputs: codes are counted from the zero point."""
    if params is None:
        scale, zero_point, low, high = _EXACT, 0.0, -_LIMIT, _LIMIT
    else:
        scale, zero_point = float(params.scale[0]), float(params.zero_point[0])
        low, high = params.qmin - zero_point, params.qmax - zero_point
    values = (1 / scale, scale, zero_point, low, high)
    return {
        tensor: np.array(value, np.float32)
        for tensor, value in zip(vars(dial).values(), values, strict=True)
    }
