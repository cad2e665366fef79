"""One operator to replay: its codes under each rounding and known fault. Runs no model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.integer.codes import Arithmetic, Codes, Computed
from qdebug.errors import FieldError, QdebugError, locate
from qdebug.names import printable
from qdebug.report.replay import Difference, Fault, OperatorReplay, Recorded, Rounded
from qdebug.sources.tflite.graph import Operator
from qdebug.sources.tflite.layers import params_of
from qdebug.sources.tflite.model import BROKEN, Model
from qdebug.sources.tflite.replay.compute import computed
from qdebug.sources.tflite.replay.faults import hypotheses
from qdebug.sources.tflite.replay.forms import ROUNDINGS, computed_in, forms_of
from qdebug.sources.tflite.replay.recordings import Values
from qdebug.sources.tflite.replay.step import Read, Step, activation_of

_FIRST = 3  # differences that are shown
# A fault explains an operator if it leaves at most this share of the differences.
_EXPLAINED = 0.01


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


class Plan:
    """One operator to replay, and what was found so far."""

    def __init__(self, model: Model, operator: Operator, name: str, recorded: Recorded) -> None:
        graph = model.graph
        self._path, self._operator, self._name = model.path, operator, name
        self._options, self._recorded = model.options(operator), recorded
        self._tensors = graph.tensors
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
        forms = forms_of(
            operator.op,
            [self._params[index] for index in operator.inputs if index in self._params],
            self._params[operator.outputs[0]],
        )
        self._tallies = {form: _Tally() for form in forms}
        self._faults: dict[tuple[str, Rounded], int] = {}
        self._codes = 0

    @property
    def best(self) -> _Tally:
        """The tally of the rounding that fits best."""
        return self._tallies[self._rounding]

    @property
    def _rounding(self) -> Rounded:
        return min(self._tallies, key=lambda rounding: self._tallies[rounding].differing)

    def compare(self, number: int, values: Values) -> None:
        """Compute the codes of a sample under each rounding, and count those that differ."""
        step, recorded = self._step(values), self._made(values)
        self._codes += sum(codes.size for codes in recorded)
        for rounding, tally in self._tallies.items():
            found = self._checked(step, partial(computed_in, step, rounding))
            for ours, theirs in zip(found, recorded, strict=True):
                tally.overflows += ours.overflows
                tally.add(number, ours.codes, theirs)

    def search(self, values: Values) -> None:
        """Count the codes that differ from those of each known fault."""
        step, recorded = self._step(values), self._made(values)
        tries: list[tuple[Rounded, Arithmetic]] = [
            (each, Arithmetic(each)) for each in ROUNDINGS if each in self._tallies
        ]
        tries = tries or [("any", Arithmetic())]
        for rounding, sound in tries:
            for name, changed, arithmetic in hypotheses(step, sound):
                ours = self._checked(step, partial(computed, changed, arithmetic))
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
            self._recorded,
            fault,
        )

    def _step(self, values: Values) -> Step:
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

    def _read(self, index: int, values: Values) -> Read:
        if index < 0:
            return None
        found = self._constants.get(index, values.get(index))
        if found is None:
            raise self._lost(index)
        return Codes(found, self._params[index]) if index in self._params else found

    def _made(self, values: Values) -> list[NDArray[Any]]:
        found = []
        for index in self._operator.outputs:
            if index not in values:
                raise self._lost(index)
            found.append(values[index])
        return found

    def _lost(self, index: int) -> QdebugError:
        name = printable(self._tensors[index].name)
        return self._located(f"the runtime does not keep the value of '{name}'")

    def _checked(self, step: Step, compute: Callable[[], list[Computed]]) -> list[Computed]:
        """The operator's computed codes, of the recorded shapes.

        Raises:
            QdebugError: options and tensors of the operator contradict each other.
        """
        with contradictions(self._path, self._name, step.op):
            found = compute()
        shapes = tuple(each.codes.shape for each in found)
        if shapes != step.shapes:
            raise self._located(
                f"{step.op}: found codes of shape {_texts(step.shapes)}, "
                f"expected {_texts(shapes)} by its options and inputs"
            )
        return found

    def _located(self, problem: str) -> QdebugError:
        return locate(problem, file=printable(self._path), layer=printable(self._name))


@contextmanager
def contradictions(path: str, name: str, op: str) -> Iterator[None]:
    """Turn what a broken operator raises into one line that names it.

    The runtime refuses such a model; beside a dump, nothing runs it.
    """
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            yield
    except FieldError as error:
        raise locate(error, file=printable(path), layer=printable(name)) from None
    except (*BROKEN, ArithmeticError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        problem = f"{op}: its options and tensors contradict each other ({printable(said)[:200]})"
        raise locate(problem, file=printable(path), layer=printable(name)) from None


def _texts(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
