"""The switchboard of a pair of TFLite models: the float model with a switch at each operator."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.arithmetic.affine import QuantParams, dequantize
from qdebug.errors import QdebugError
from qdebug.names import nearest, printable
from qdebug.run.board import BoardLayer, BoardOperator, Outputs
from qdebug.sources.inputs import Inputs, read_samples
from qdebug.sources.tflite.board.dials import DialMachine
from qdebug.sources.tflite.board.gates import Gates, gates_of, simulated
from qdebug.sources.tflite.board.lifted import lifted
from qdebug.sources.tflite.board.machine import Changes, Machine, Weights
from qdebug.sources.tflite.board.shared_scales import relaxed, with_own_ranges
from qdebug.sources.tflite.board.switched import switched
from qdebug.sources.tflite.board.tunable import followers, tunable_layers, values_of
from qdebug.sources.tflite.build import Built, build, float_constants
from qdebug.sources.tflite.graph import FLOATS, Operator
from qdebug.sources.tflite.layers import constants, params_of, unique_names
from qdebug.sources.tflite.model import read_model
from qdebug.sources.tflite.references import given_inputs, input_specs, quantized_inputs
from qdebug.sources.tflite.run import Kernels, Runner
from qdebug.sources.tflite.twins import Twins, check_same_network, open_twins

# Interpreters for changes to keep, one per set of operators in float.
_KEPT = 4


def board(
    names: Sequence[str],
    inputs: Inputs | None,
    *,
    samples: int | None = None,
    kernels: Kernels = "default",
    signature: str | None = None,
) -> "TfliteBoard":
    """The board of a float and a quantized .tflite, as `LitertModels` takes them.

    Args:
        names: the two files.
        inputs: the samples, a file (.npz or .npy) or arrays.
        samples: how many samples to take, from the first; None for all.
        kernels: the runtime's kernels that run the models and the board.
        signature: the signature to run, if a model has several.

    Raises:
        QdebugError: a file cannot be read or run, the models are not such a pair, there are no
            inputs, or nothing can be switched.
    """
    notes: list[str] = []
    twins = open_twins([read_model(path, signature) for path in names], notes)
    shown = printable(twins.quantized.path)
    if twins.in_one:
        raise QdebugError(
            f"{shown}: found one model in TFLite's debug mode, expected a float and a quantized one"
        )
    if inputs is None:
        raise QdebugError(f"{shown}: found no inputs, expected samples to run it on (--inputs)")
    graph = twins.quantized_graph
    paired = constants(graph, twins.float_graph, twins.pairing.operators, unique_names(graph))
    check_same_network(twins, [entry for _, entry in paired])
    given = list(read_samples(inputs, input_specs(twins), samples))
    return TfliteBoard(twins, given, kernels, notes)


class TfliteBoard:
    """A `TunableBoard` of two TFLite models. Holds all samples in memory; not thread-safe.

    Attributes:
        operators, neighbours, fixed, outputs: as `Board` says.
        notes: what the user should know about how the models are run, one line each.
    """

    def __init__(
        self,
        twins: Twins,
        samples: Sequence[Sequence[NDArray[Any]]],
        kernels: Kernels,
        notes: list[str],
    ) -> None:
        """Build the interpreters.

        Raises:
            QdebugError: the runtime cannot run a model, or nothing can be switched.
        """
        self.notes = notes
        self._twins, self._samples, self._kernels = twins, samples, kernels
        self._given = given_inputs(twins)
        tensors = (*twins.quantized_graph.tensors, *twins.float_graph.tensors)
        self._reset = any(tensor.variable for tensor in tensors)
        self._floats = self._built(kernels, self._float_inputs(0), floats=True)
        self._quantized = self._built(kernels, self._quantized_inputs(0), floats=False)
        self._gates = gates_of(twins, self._floats.graph)
        self._ends = _paired_outputs(twins, self._floats, self._quantized)
        self._check()
        self._weights = Weights(twins, self._gates)
        self._known = self._gates.params.keys() | self._weights.layers.keys()
        self._gates = self._with_own_ranges()
        self.operators: Sequence[BoardOperator] = tuple(self._gates.operators)
        self.neighbours: Sequence[frozenset[int]] = self._gates.neighbours(self._floats.graph)
        self.fixed: Sequence[tuple[str, str]] = tuple(self._gates.fixed)
        named = dict(zip(twins.float_graph.outputs, twins.float_graph.output_names, strict=True))
        self.outputs: Sequence[str] = tuple(named[tensor] for tensor in self._ends)
        self._machine = self._switched()
        self._dialled: dict[frozenset[int], DialMachine] = {}
        self._followers = followers(twins.quantized_graph)
        self._made_from = values_of(self._gates, self._floats.graph)

    @cached_property
    def layers(self) -> Sequence[BoardLayer]:
        """The layers that can be changed; none if the runtime cannot run the graph with dials."""
        try:
            self._dials(frozenset())
        except QdebugError:
            return ()
        return tunable_layers(self._twins, self._gates, self._floats.graph, self._followers)

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self._samples)

    def float_outputs(self, sample: int) -> Outputs:
        """The outputs of the float model itself, each of its own shape, float32.

        Raises:
            QdebugError: the runtime fails.
        """
        self._floats.runner.run(self._float_inputs(sample), self._reset)
        return [self._value(self._floats.runner, tensor) for tensor in self._ends]

    def quantized_outputs(self, sample: int) -> Outputs:
        """The outputs of the quantized model itself, dequantized to float32.

        Raises:
            QdebugError: the runtime fails.
        """
        self._quantized.runner.run(self._quantized_inputs(sample), self._reset)
        found = []
        for tensor in self._ends.values():
            value = self._value(self._quantized.runner, tensor)
            described = self._twins.quantized_graph.tensors[tensor]
            if described.quantization is not None:
                value = dequantize(value, params_of(described))
            found.append(value.astype(np.float32))
        return found

    def run(
        self, sample: int, left: Collection[int] = (), changes: Changes | None = None
    ) -> Outputs:
        """The outputs with the operators `left` in float.

        A value between two operators is float only if both are. A graph's input is float for those
        readers that are float; an output is float if its operator is.

        Args:
            sample: which sample to run on.
            left: places in `operators`.
            changes: layers to quantize with other parameters; None for no rounding at all. All
                layers are then quantized in float arithmetic, even those without a change. Layers
                that share a changed layer's codes change with it.

        Raises:
            QdebugError: the runtime fails, the board has no such layer, or a change cannot be
                computed.
        """
        inputs = self._float_inputs(sample)
        machine: Machine | DialMachine
        if changes is None:
            machine = self._machine
            machine.set(set(left))
            inputs |= self._codes(machine, sample)
        else:
            machine = self._dials(frozenset(left))
            machine.set(self._checked(changes))
        machine.runner.run(inputs, self._reset)
        return [self._value(machine.runner, machine.outputs[tensor]) for tensor in self._ends]

    def floats(self, names: Collection[str], sample: int) -> Mapping[str, NDArray[Any]]:
        """The floats of layers in a run of the float model.

        Raises:
            QdebugError: the runtime fails.
        """
        self._floats.runner.run(self._float_inputs(sample), self._reset)
        found: dict[str, NDArray[Any]] = {}
        for name in names:
            if name in self._weights.layers:
                found[name] = self._weights.exact(self._weights.layers[name])
            elif name in self._made_from:
                value = self._floats.runner.value(self._made_from[name])
                if value is not None:
                    found[name] = value
        return found

    # --- models ---

    def _built(self, kernels: Kernels, inputs: Mapping[int, NDArray[Any]], floats: bool) -> Built:
        twins = self._twins
        return build(
            twins.floats if floats else twins.quantized,
            twins.float_graph if floats else twins.quantized_graph,
            kernels,
            inputs,
            reset=self._reset,
            notes=self.notes,
            constants=float_constants(twins.float_graph) if floats else None,
        )

    def _float_inputs(self, sample: int) -> dict[int, NDArray[Any]]:
        whereabouts.at_sample(sample)
        return dict(zip(self._twins.float_graph.inputs, self._samples[sample], strict=True))

    def _quantized_inputs(self, sample: int) -> dict[int, NDArray[Any]]:
        whereabouts.at_sample(sample)
        tensors = self._twins.quantized_graph.tensors
        return quantized_inputs(tensors, self._given, self._samples[sample])

    def _codes(self, machine: Machine, sample: int) -> dict[int, NDArray[Any]]:
        """The codes that a machine takes beside the float inputs."""
        inputs = self._twins.float_graph.inputs
        ours = {inputs[position]: tensor for tensor, position in self._given.items()}
        codes = self._quantized_inputs(sample)
        return {index: codes[ours[tensor]] for tensor, index in machine.codes.items()}

    def _value(self, runner: Runner, tensor: int) -> NDArray[Any]:
        value = runner.value(tensor)
        if value is None:
            raise QdebugError(
                f"{printable(self._twins.floats.path)}: the runtime keeps no value for an output"
            )
        return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value

    def _check(self) -> None:
        """Check that there is something to switch and an output to measure."""
        shown = printable(self._twins.quantized.path)
        if not self._ends:
            raise QdebugError(f"{shown}: found no float output that both models have")
        if not self._gates.operators:
            name, reason = self._gates.fixed[0] if self._gates.fixed else ("", "nothing is")
            raise QdebugError(
                f"{shown}: found no operator to switch to float, expected a quantized one; "
                f"'{printable(name)}': {reason}"
            )

    # --- the switched graph ---

    def _with_own_ranges(self) -> Gates:
        """The gates, with the ranges of values that share a scale, from a run of all samples."""
        graph = self._floats.graph
        groups = relaxed(self._gates, graph)
        if not groups:
            return self._gates
        extremes: dict[int, tuple[list[float], list[float]]] = {}
        for sample in range(self.num_samples):
            self._floats.runner.run(self._float_inputs(sample), self._reset)
            for tensor in groups.keys() | self._gates.made.keys():
                value = self._floats.runner.value(tensor)
                if value is not None and value.size and np.isfinite(value).all():
                    low, high = extremes.setdefault(tensor, ([], []))
                    low.append(float(value.min()))
                    high.append(float(value.max()))
        return with_own_ranges(self._gates, graph, groups, extremes)

    def _switched(self) -> Machine:
        """The interpreter with switches."""
        model, weights = self._twins.floats, self._weights
        inputs = self._float_inputs(0)
        rounded = {read: weights.rounded(weight) for read, weight in self._gates.weights.items()}

        def machine(lifts: Mapping[int, Operator], kernels: Kernels) -> Machine:
            made = switched(
                model,
                self._floats.graph,
                self._gates,
                self._ends,
                {index: values.shape for index, values in inputs.items()},
                self._floats.constants,
                rounded,
                self._twins.quantized,
                lifts,
            )
            runner = Runner(model.path, made.flatbuffer, kernels, keep=False)
            return Machine(runner, made, self._gates, weights)

        lifts = lifted(self._twins, self._floats.graph, self._gates)
        try:
            return machine(lifts, self._runs_on)
        except QdebugError:
            if not lifts:
                raise
            return machine({}, "builtin")

    @property
    def _runs_on(self) -> Kernels:
        """The kernels that run the board."""
        # Sizes that are known only during a run rule out XNNPACK: see `build`.
        found = {self._floats.kernels, self._quantized.kernels}
        return self._kernels if found == {self._kernels} else "builtin"

    # --- changes ---

    def _dials(self, left: frozenset[int]) -> DialMachine:
        """The interpreter in which layers can be changed, built unless it was kept."""
        if left not in self._dialled:
            if len(self._dialled) >= _KEPT:
                del self._dialled[next(iter(self._dialled))]
            try:
                self._dialled[left] = self._new_dials(left, self._runs_on)
            except QdebugError:
                self._dialled[left] = self._new_dials(left, "builtin")
        return self._dialled[left]

    def _new_dials(self, left: frozenset[int], kernels: Kernels) -> DialMachine:
        return DialMachine(
            self._twins.floats,
            self._floats.graph,
            self._gates,
            self._weights,
            self._ends,
            self._float_inputs(0),
            self._floats.constants,
            left,
            self._weights.layers.keys(),
            kernels,
        )

    def _checked(self, changes: Changes) -> Changes:
        """The changes, each also for the layers that share its parameters.

        Raises:
            QdebugError: the board has no such layer, or a change cannot be computed.
        """
        found: dict[str, QuantParams | None] = {}
        for layer, change in changes.items():
            if layer not in self._known:
                raise QdebugError(f"no layer '{printable(layer)}'; {nearest(layer, self._known)}")
            if layer in self._gates.params and change is not None:
                if not simulated(change):
                    raise QdebugError(
                        f"layer '{printable(layer)}': found {change.bits} bits of {change.dtype}, "
                        "expected int8, uint8 or int16"
                    )
                if change.channels > 1:
                    raise QdebugError(
                        f"layer '{printable(layer)}': found {change.channels} scales, expected one"
                    )
            for follower in self._followers.get(layer, ()):
                found.setdefault(follower, change)
            found[layer] = change
        return found


def _paired_outputs(twins: Twins, floats: Built, quantized: Built) -> dict[int, int]:
    """The float graph's float outputs that both runs compute -> the quantized graph's."""
    quantized_graph, float_graph = twins.quantized_graph, twins.float_graph
    ours = {
        quantized_graph.root[tensor]: tensor
        for tensor in quantized_graph.outputs
        if quantized.graph.is_computed(tensor)
    }
    twin = {theirs: our for our, theirs in twins.pairing.values.items()}
    found = {}
    for tensor in float_graph.outputs:
        our = ours.get(twin.get(float_graph.root[tensor], -1))
        in_floats = float_graph.tensors[tensor].type in FLOATS
        if our is not None and in_floats and floats.graph.is_computed(tensor):
            found[tensor] = our
    return found
