"""The replay itself: runs a model or reads a dump, and computes every operator once more."""

from collections.abc import Callable, Sequence

from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.report.replay import Replay, Unsupported
from qdebug.sources.inputs import Inputs
from qdebug.sources.tflite.layers import unique_names
from qdebug.sources.tflite.model import Model, read_model
from qdebug.sources.tflite.replay.plan import Plan, contradictions
from qdebug.sources.tflite.replay.recordings import Recordings
from qdebug.sources.tflite.replay.refusal import check_multiplier, refusal
from qdebug.sources.tflite.run import Kernels

_NOT_DUMPED = "its output is not in the dump"


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
    recordings = Recordings(model, inputs, outputs, samples, kernels)
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
        bool(recordings.dumped),
    )


def _plans(model: Model, recordings: Recordings) -> tuple[list[Plan], list[Unsupported]]:
    """The operators to replay, and those that cannot be.

    Raises:
        QdebugError: an operator's scales or options are impossible.
    """
    graph, names = model.graph, unique_names(model.graph)
    plans, unsupported = [], []
    for operator in graph.operators:
        if not operator.outputs:
            continue
        name = names[operator.outputs[0]]
        with contradictions(model.path, name, operator.op):
            reason = refusal(graph, operator, model.options(operator))
        reads = [tensor for tensor in operator.inputs if tensor >= 0]
        if reason is None and recordings.dumped:
            missing = [t for t in operator.outputs if t not in recordings.dumped]
            reason = _NOT_DUMPED if missing else None
        if reason is None:
            missing = [t for t in (*reads, *operator.outputs) if not recordings.has(t)]
            reason = f"'{names[missing[0]]}' is not recorded" if missing else None
        if reason is not None:
            unsupported.append(Unsupported(name, operator.op, reason))
            continue
        with contradictions(model.path, name, operator.op):
            check_multiplier(graph, operator)
            plans.append(Plan(model, operator, name, recordings.source(reads)))
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
    # Most telling: a tensor that is missing beside those that are there.
    each = next((each for each in unsupported if each.reason != _NOT_DUMPED), unsupported[0])
    return (
        f"{where}: none of its {len(unsupported)} operators can be replayed; "
        f"{each.op} '{printable(each.name)}': {each.reason}"
    )
