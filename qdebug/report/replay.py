"""What a replay finds: an operator's codes, computed once more, beside those that were recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = "qdebug.replay/1"

# The roundings of a multiplication that kernels have; "any" stands for operators without one.
# double_mixed is double_up in whole blocks of channels and double in the rest; xnnpack the form of
# its own that XNNPACK has for sums and requantizations.
Rounded = Literal["single", "double", "double_up", "float", "double_mixed", "xnnpack", "any"]
# Where an operator's input codes come from: the local run, a dump, or some from each.
Recorded = Literal["run", "dump", "both"]


@dataclass(frozen=True)
class Difference:
    """A code that differs: in which sample, at which index of the output."""

    sample: int
    index: tuple[int, ...]
    computed: int
    recorded: int


@dataclass(frozen=True)
class Fault:
    """A known fault of kernels that explains the codes.

    Attributes:
        name: what the kernel does, in words.
        rounding: the rounding beside it.
        differing: codes that differ even so.
    """

    name: str
    rounding: Rounded
    differing: int


@dataclass(frozen=True)
class OperatorReplay:
    """One operator: its codes, computed with each rounding, against the recorded ones.

    Attributes:
        name: of its output tensor.
        op: the operator's name.
        num_codes: the codes compared.
        differing: rounding -> the codes that differ.
        rounding: the one that fits best.
        max_steps: the largest difference under it, in steps of the output.
        first: the first codes that differ under it.
        overflows: sums that do not fit an int32 accumulator.
        recorded: where its input codes come from: the local run, the dump, or some from each.
        fault: the known fault that explains the differences, if one does.
    """

    name: str
    op: str
    num_codes: int
    differing: Mapping[Rounded, int]
    rounding: Rounded
    max_steps: int
    first: tuple[Difference, ...] = ()
    overflows: int = 0
    recorded: Recorded = "run"
    fault: Fault | None = None

    @property
    def matching(self) -> tuple[Rounded, ...]:
        """The roundings under which not one code differs."""
        return tuple(rounding for rounding, count in self.differing.items() if not count)

    @property
    def num_differing(self) -> int:
        """Codes that differ under the rounding that fits best."""
        return self.differing[self.rounding]


@dataclass(frozen=True)
class Unsupported:
    """An operator that was not replayed, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Replay:
    """The replay of a quantized model.

    Attributes:
        model: the model's file.
        codes: what computed the recorded codes: the runtime's kernels, or a dump's file.
        num_samples: samples that were run, or dumped.
        operators: in the order in which the model runs.
        unsupported: the operators that were not replayed.
        notes: what the user should know, one line each.
        dumped: whether the recorded codes are a dump's.
    """

    model: str
    codes: str
    num_samples: int
    operators: Sequence[OperatorReplay]
    unsupported: Sequence[Unsupported] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    dumped: bool = False

    def failing(self, tolerance: int = 0) -> list[OperatorReplay]:
        """The operators with a code that is more than `tolerance` steps off."""
        return [operator for operator in self.operators if operator.max_steps > tolerance]


def replay_json(replay: Replay, tolerance: int = 0) -> dict[str, Any]:
    """The replay as JSON values.

    >>> operator = OperatorReplay("conv", "CONV_2D", 8, {"single": 1, "double": 0}, "double", 0)
    >>> replay_json(Replay("m.tflite", "reference kernels", 1, [operator]))["failing"]
    []
    """
    return {
        "schema": SCHEMA,
        "model": replay.model,
        "codes": replay.codes,
        "dumped": replay.dumped,
        "num_samples": replay.num_samples,
        "tolerance": tolerance,
        "failing": [operator.name for operator in replay.failing(tolerance)],
        "operators": [_operator_json(operator) for operator in replay.operators],
        "unsupported": [vars(each) for each in replay.unsupported],
        "notes": list(replay.notes),
    }


def _operator_json(operator: OperatorReplay) -> dict[str, Any]:
    values = dict(vars(operator))
    values["differing"] = dict(operator.differing)
    values["first"] = [{**vars(each), "index": list(each.index)} for each in operator.first]
    values["fault"] = None if operator.fault is None else dict(vars(operator.fault))
    return values
