"""A switched TFLite graph in an interpreter: its switches, and the weights that follow them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, dequantize, quantize
from qdebug.sources.tflite.board.gates import Gates, Weight
from qdebug.sources.tflite.board.switched import Switched
from qdebug.sources.tflite.pairing import constant_values
from qdebug.sources.tflite.run import Runner
from qdebug.sources.tflite.twins import Twins

# Layers to quantize with other parameters; None for exact.
Changes = Mapping[str, QuantParams | None]
NO_CHANGES: Changes = {}


class Machine:
    """The interpreter of a switched graph, and the state of its switches."""

    def __init__(self, runner: Runner, made: Switched, gates: Gates, weights: "Weights") -> None:
        self.runner, self.outputs, self.codes = runner, made.outputs, made.codes
        self._made, self._gates, self._weights = made, gates, weights
        self._state: dict[int, bool] = {}

    def set(self, left: set[int]) -> None:
        """Open the switches of the operators `left`, close the others."""
        changed: dict[int, NDArray[Any]] = {}
        for flag, tensor in self._made.flags.items():
            on = flag.given(left)
            if self._state.get(tensor) != on:
                changed[tensor] = np.array(on)
                self._state[tensor] = on
        for read, tensor in self._made.weights.items():
            weight = self._gates.weights[read]
            assert weight.switch is not None
            on = not weight.switch <= left
            if self._state.get(tensor) != on:
                weights = self._weights
                changed[tensor] = weights.rounded(weight) if on else weights.exact(weight)
                self._state[tensor] = on
        self.runner.set(changed)


class Weights:
    """The constants of a pair: as the float model has them, and as they are quantized."""

    def __init__(self, twins: Twins, gates: Gates) -> None:
        self._quantized, self._floats = twins.quantized_graph, twins.float_graph
        self.layers = {weight.layer: weight for weight in gates.weights.values()}
        self._exact: dict[int, NDArray[Any]] = {}
        self._rounded: dict[str, NDArray[Any]] = {}

    def exact(self, weight: Weight) -> NDArray[Any]:
        """The float model's values, float32."""
        if weight.partner not in self._exact:
            values = constant_values(self._floats, weight.partner)
            assert values is not None
            self._exact[weight.partner] = values.astype(np.float32)
        return self._exact[weight.partner]

    def rounded(self, weight: Weight, changes: Changes = NO_CHANGES) -> NDArray[Any]:
        """The values that the quantized model's codes stand for, or those of a change; float32."""
        if weight.layer in changes and not self._is_own(weight, changes[weight.layer]):
            params = changes[weight.layer]
            exact = self.exact(weight)
            if params is None:
                return exact
            return dequantize(quantize(exact, params), params).astype(np.float32)
        if weight.layer not in self._rounded:
            values = constant_values(self._quantized, weight.tensor)
            assert values is not None
            self._rounded[weight.layer] = values.astype(np.float32)
        return self._rounded[weight.layer]

    def _is_own(self, weight: Weight, params: QuantParams | None) -> bool:
        """Whether these are the recorded parameters; recorded codes need not be the nearest."""
        own = self._quantized.tensors[weight.tensor].quantization
        assert own is not None
        return (
            params is not None
            and np.array_equal(params.scale, own.scale)
            and np.array_equal(params.zero_point, own.zero_point)
        )
