"""The replay itself: runs a model or reads a dump, and computes every operator once more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.integer.codes import Arithmetic, Codes
from qdebug.errors import FieldError, QdebugError
from qdebug.names import printable, some
from qdebug.report.replay import (
    Difference,
    Fault,
    OperatorReplay,
    Replay,
    Rounded,
    Unsupported,
)
from qdebug.sources.inputs import Inputs, InputSpec, Samples, array_names, file_of, read_samples
from qdebug.sources.tflite.build import Built, build
from qdebug.sources.tflite.graph import Graph, Operator
from qdebug.sources.tflite.layers import params_of, unique_names
from qdebug.sources.tflite.model import Model, read_model
from qdebug.sources.tflite.references import quantized_inputs
from qdebug.sources.tflite.replay.compute import computed, rounds
from qdebug.sources.tflite.replay.faults import hypotheses
from qdebug.sources.tflite.replay.refusal import refusal
from qdebug.sources.tflite.replay.step import Read, Step, activation_of
from qdebug.sources.tflite.run import Kernels

_Values = Mapping[int, NDArray[Any]]

_KERNEL_ROUNDINGS: tuple[Rounded, ...] = ("single", "double", "double_up", "float")
_FIRST = 3  # differences that are shown
# A fault explains an operator if it leaves at most this share of the differences.
_EXPLAINED = 0.01


def replay(
    path: str,
    inputs: Inputs | None = None,
    *,
    outputs: Inputs | None = None,
    samples: int | None = None,
    kernels: Kernels | None = None,
    signature: str | None = None,
    tolerance: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Replay:
    """Compute every supported operator's codes again, and compare them with recorded ones.

    Args:
        path: a quantized .tflite.
        inputs: samples to run it on, in the float model's units; None if `outputs` has all codes.
        outputs: codes that a device computed: an array for each tensor, by its name in the model;
            None for those of the local runtime.
        samples: how many samples to take, from the first.
        kernels: the runtime's kernels.
        signature: the signature to run.
        tolerance: steps that a code may differ without a search for the fault.
        advance: called with the number of runs done, and of all.

    Raises:
        QdebugError: the model, the inputs or the dump cannot be read, or there is nothing to
            compare.
    """
    model = read_model(path, signature)
    recordings = _Recordings(model, inputs, outputs, samples, kernels)
    plans, unsupported = _plans(model, recordings)
    if not plans:
        raise QdebugError(_nothing(model, unsupported))
    total = recordings.count
    for number, values in enumerate(recordings):
        for plan in plans:
            plan.compare(number, values)
        if advance:
            advance(number + 1, total)
    suspects = [plan for plan in plans if plan.best.max_steps > tolerance]
    if suspects:
        for values in recordings:
            for plan in suspects:
                plan.search(values)
    return Replay(
        path,
        recordings.what,
        total,
        [plan.result() for plan in plans],
        unsupported,
        [*model.notes, *recordings.notes],
    )


class _Recordings:
    """Recorded tensors, sample by sample; can be iterated any number of times.

    Attributes:
        dumped: tensors whose codes are those of the dump.
        run: the graph that the runtime runs; None if nothing is run.
        what: what computed the codes.
        count: number of samples.
        notes: one line each.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs | None,
        outputs: Inputs | None,
        samples: int | None,
        kernels: Kernels | None,
    ) -> None:
        graph = model.graph
        self.notes: list[str] = []
        self.dumped: list[int] = []
        self.run: Graph | None = None
        self._graph = graph
        self._dump: Samples | None = None
        self._inputs: Samples | None = None
        self._built: Built | None = None
        self._given = {tensor: place for place, tensor in enumerate(graph.inputs)}
        self.what = f"{kernels or 'default'} kernels"
        if outputs is not None:
            self.dumped, self._dump = self._read_dump(model, outputs, samples)
            self.what = next(iter(file_of(outputs)), "outputs")
            self.notes += self._dump.notes
        if inputs is not None:
            self._inputs = read_samples(inputs, _specs(model), samples)
            self.notes += self._inputs.notes
            self._check_counts(model)
            first = quantized_inputs(graph.tensors, self._given, next(iter(self._inputs)))
            reset = any(tensor.variable for tensor in graph.tensors)
            self._built = build(
                model, graph, kernels or "default", first, reset=reset, notes=self.notes
            )
            self.run = self._built.graph
        elif self._dump is None:
            raise QdebugError(
                f"{printable(model.path)}: found no inputs, expected samples to run it on "
                "(--inputs), or the codes of a device (--outputs)"
            )
        counted = self._inputs or self._dump
        assert counted is not None
        self.count = counted.count

    def __iter__(self) -> Iterator[_Values]:
        """Each sample's tensors: those of the dump, and the others from the runtime."""
        dump = iter(self._dump) if self._dump else None
        for inputs in self._inputs or range(self.count):
            values: dict[int, NDArray[Any]] = {}
            if self._built and isinstance(inputs, list):
                codes = quantized_inputs(self._graph.tensors, self._given, inputs)
                self._built.runner.run(codes, any(t.variable for t in self._graph.tensors))
                values = {
                    tensor.index: value
                    for tensor in self._graph.tensors
                    if (value := self._built.runner.value(tensor.index)) is not None
                }
            if dump:
                values |= zip(self.dumped, next(dump), strict=True)
            yield values

    def has(self, tensor: int) -> bool:
        """Whether a tensor's value is recorded."""
        if tensor in self.dumped or self._graph.is_constant(tensor):
            return True
        return self.run is not None and self.run.is_computed(tensor)

    @staticmethod
    def _read_dump(model: Model, outputs: Inputs, samples: int | None) -> tuple[list[int], Samples]:
        graph, names = model.graph, unique_names(model.graph)
        stored = set(array_names(outputs))
        known = {
            index: InputSpec(name, graph.tensors[index].open_shape, dtype, "tensor")
            for index, name in names.items()
            if name in stored
            and graph.is_quantized(index)
            and graph.is_computed(index)
            and (dtype := graph.tensors[index].dtype) is not None
        }
        if not known:
            shown = printable(next(iter(file_of(outputs)), "outputs"))
            count = f"{len(stored)} array{'s' * (len(stored) != 1)}"
            expected = [names[t.index] for t in graph.tensors if graph.is_computed(t.index)]
            raise QdebugError(
                f"{shown}: found {count} ({some(sorted(stored))}), "
                f"expected codes named like tensors of {printable(model.path)} ({some(expected)})"
            )
        return list(known), read_samples(outputs, list(known.values()), samples, "outputs")

    def _check_counts(self, model: Model) -> None:
        assert self._inputs is not None
        if self._dump is not None and self._dump.count != self._inputs.count:
            raise QdebugError(
                f"{printable(self.what)}: found {self._dump.count} samples, expected "
                f"{self._inputs.count}, as in the inputs"
            )


def _specs(model: Model) -> list[InputSpec]:
    """What samples must be: floats for inputs that are quantized.

    Raises:
        QdebugError: an input takes something else than numbers.
    """
    specs = []
    for index, name in zip(model.graph.inputs, model.graph.input_names, strict=True):
        tensor = model.graph.tensors[index]
        dtype = np.dtype(np.float32) if tensor.quantization is not None else tensor.dtype
        if dtype is None:
            where = f"{printable(model.path)}: its input '{printable(name)}'"
            raise QdebugError(f"{where} takes {tensor.type}, expected numbers")
        specs.append(InputSpec(name, tensor.open_shape, dtype))
    return specs


def _plans(model: Model, recordings: _Recordings) -> tuple[list["_Plan"], list[Unsupported]]:
    """The operators to replay, and those that cannot be."""
    graph, names = model.graph, unique_names(model.graph)
    plans, unsupported = [], []
    for operator in graph.operators:
        if not operator.outputs:
            continue
        name, options = names[operator.outputs[0]], model.options(operator)
        reason = refusal(graph, operator, options)
        if reason is None and recordings.dumped:
            missing = [t for t in operator.outputs if t not in recordings.dumped]
            reason = "its output is not in the dump" if missing else None
        if reason is None:
            reads = [tensor for tensor in operator.inputs if tensor >= 0]
            missing = [t for t in (*reads, *operator.outputs) if not recordings.has(t)]
            reason = f"'{names[missing[0]]}' is not recorded" if missing else None
        if reason is not None:
            unsupported.append(Unsupported(name, operator.op, reason))
            continue
        inside = all(
            tensor in recordings.dumped for tensor in reads if not graph.is_constant(tensor)
        )
        plans.append(_Plan(graph, operator, options, name, inside))
    return plans, unsupported


def _nothing(model: Model, unsupported: Sequence[Unsupported]) -> str:
    """The error message for a model without anything to compare."""
    where = printable(model.path)
    quantized = any(
        tensor.quantization is not None and model.graph.is_computed(tensor.index)
        for tensor in model.graph.tensors
    )
    if not quantized:
        return f"{where}: found no quantized activations, expected an integer model"
    each = unsupported[0]
    return (
        f"{where}: none of its {len(unsupported)} operators can be replayed; "
        f"{each.op} '{printable(each.name)}': {each.reason}"
    )


@dataclass
class _Tally:
    """Codes compared so far under one arithmetic."""

    differing: int = 0
    max_steps: int = 0
    overflows: int = 0
    first: list[Difference] = field(default_factory=list)

    def add(self, number: int, ours: NDArray[Any], recorded: NDArray[Any]) -> None:
        wrong = ours != recorded
        count = int(np.count_nonzero(wrong))
        if not count:
            return
        self.differing += count
        steps = np.abs(ours[wrong].astype(np.int64) - recorded[wrong].astype(np.int64))
        self.max_steps = max(self.max_steps, int(steps.max()))
        for place in np.argwhere(wrong)[: _FIRST - len(self.first)]:
            index = tuple(map(int, place))
            self.first.append(Difference(number, index, int(ours[index]), int(recorded[index])))


class _Plan:
    """One operator to replay, and what was found so far."""

    def __init__(
        self, graph: Graph, operator: Operator, options: Any, name: str, inside: bool
    ) -> None:
        self._operator, self._options, self._name = operator, options, name
        self._tensors, self._recorded = graph.tensors, "dump" if inside else "run"
        self._params = {
            index: params_of(graph.tensors[index])
            for index in (*operator.inputs, *operator.outputs)
            if graph.is_quantized(index)
        }
        self._constants = {
            index: graph.tensors[index].constant()
            for index in operator.inputs
            if graph.is_constant(index)
        }
        roundings: tuple[Rounded, ...] = _KERNEL_ROUNDINGS if rounds(operator.op) else ("any",)
        self._tallies = {rounding: _Tally() for rounding in roundings}
        self._faults: dict[tuple[str, Rounded], int] = {}
        self._codes = 0

    @property
    def best(self) -> _Tally:
        """The tally of the rounding that fits best."""
        return self._tallies[self._rounding]

    @property
    def _rounding(self) -> Rounded:
        return min(self._tallies, key=lambda rounding: self._tallies[rounding].differing)

    def compare(self, number: int, values: _Values) -> None:
        """Compute the codes of a sample under each rounding, and count those that differ."""
        step, recorded = self._step(values), self._made(values)
        self._codes += sum(codes.size for codes in recorded)
        for rounding, tally in self._tallies.items():
            for ours, theirs in zip(computed(step, _arithmetic(rounding)), recorded, strict=True):
                tally.overflows += ours.overflows
                tally.add(number, self._fitting(ours.codes, theirs), theirs)

    def search(self, values: _Values) -> None:
        """Count the codes that differ from those of each known fault."""
        step, recorded = self._step(values), self._made(values)
        for rounding in self._tallies:
            for name, changed, arithmetic in hypotheses(step, _arithmetic(rounding)):
                ours = computed(changed, arithmetic)
                wrong = sum(
                    int(np.count_nonzero(each.codes != codes))
                    for each, codes in zip(ours, recorded, strict=True)
                )
                key = (name, rounding)
                self._faults[key] = self._faults.get(key, 0) + wrong

    def result(self) -> OperatorReplay:
        """What was found."""
        best = self.best
        fault = None
        if self._faults:
            key = min(self._faults, key=lambda each: self._faults[each])
            if self._faults[key] <= _EXPLAINED * best.differing:
                fault = Fault(key[0], key[1], self._faults[key])
        return OperatorReplay(
            self._name,
            self._operator.op,
            self._codes,
            {rounding: tally.differing for rounding, tally in self._tallies.items()},
            self._rounding,
            best.max_steps,
            tuple(best.first),
            best.overflows,
            "dump" if self._recorded == "dump" else "run",
            fault,
        )

    def _step(self, values: _Values) -> Step:
        operator = self._operator
        made = self._made(values)
        return Step(
            operator.op,
            self._options,
            tuple(self._read(index, values) for index in operator.inputs),
            tuple(self._params[index] for index in operator.outputs),
            tuple(codes.shape for codes in made),
            activation_of(self._options),
        )

    def _read(self, index: int, values: _Values) -> Read:
        if index < 0:
            return None
        found = self._constants.get(index, values.get(index))
        if found is None:
            raise self._lost(index)
        return Codes(found, self._params[index]) if index in self._params else found

    def _made(self, values: _Values) -> list[NDArray[Any]]:
        found = []
        for index in self._operator.outputs:
            if index not in values:
                raise self._lost(index)
            found.append(values[index])
        return found

    def _lost(self, index: int) -> QdebugError:
        return QdebugError(
            f"layer '{printable(self._name)}': the runtime does not keep the value of "
            f"'{printable(self._tensors[index].name)}'"
        )

    def _fitting(self, ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
        """Our codes, once their shape is known to be that of the recorded ones."""
        if ours.shape != theirs.shape:
            raise FieldError(
                "quantized",
                found=f"shape {theirs.shape} for '{printable(self._name)}'",
                expected=f"{ours.shape}",
            )
        return ours


def _arithmetic(rounding: Rounded) -> Arithmetic:
    return Arithmetic() if rounding == "any" else Arithmetic(rounding)
