"""Known faults of kernels: each as an operator that reads something else, or computes otherwise."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from qdebug.arithmetic.integer.codes import Arithmetic, Codes
from qdebug.sources.tflite.replay.step import Step
from qdebug.sources.tflite.replay.takes import ACTIVATIONS_OF, bias_of

# Operators that add in an accumulator.
_ACCUMULATING = (*ACTIVATIONS_OF, "MEAN")


def hypotheses(step: Step, arithmetic: Arithmetic) -> Iterator[tuple[str, Step, Arithmetic]]:
    """Each fault that could change this operator's codes: its name, and the operator with it."""
    yield "its shift is one too large: results are halved", step, replace(arithmetic, shift=-1)
    yield "its shift is one too small: results are doubled", step, replace(arithmetic, shift=1)
    yield "it truncates instead of rounding", step, replace(arithmetic, rounding="floor")
    for place, read in enumerate(step.reads):
        if isinstance(read, Codes) and read.params.zero_point.any():
            name = f"it ignores the zero point of its input {place}"
            yield name, _without_zero_point(step, place), arithmetic
    if step.output.zero_point.any():
        yield "it ignores the zero point of its output", step, replace(arithmetic, offset=False)
    for bits in (16, 32) if step.op in _ACCUMULATING else ():
        name = f"its accumulator saturates at {bits} bits"
        yield name, step, replace(arithmetic, accumulator_bits=bits)
    bias_place = bias_of(step.op)
    if bias_place is not None and (bias := step.plain(bias_place)) is not None and bias.any():
        yield "it ignores its bias", _with(step, bias_place, None), arithmetic
    if step.activation != "NONE":
        name = f"it ignores its fused activation {step.activation}"
        yield name, replace(step, activation="NONE"), arithmetic


def _without_zero_point(step: Step, place: int) -> Step:
    codes = step.codes(place)
    zero = np.zeros_like(codes.params.zero_point)
    changed = Codes(codes.values, replace(codes.params, zero_point=zero))
    return _with(step, place, changed)


def _with(step: Step, place: int, read: Codes | None) -> Step:
    return replace(step, reads=(*step.reads[:place], read, *step.reads[place + 1 :]))
