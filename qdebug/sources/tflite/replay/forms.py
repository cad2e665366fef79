"""The forms in which kernels compute an operator: roundings, and some that only one kernel has."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer import xnnpack
from qdebug.arithmetic.integer.codes import Arithmetic, Computed
from qdebug.report.replay import Rounded
from qdebug.sources.tflite.replay.compute import computed, rounds
from qdebug.sources.tflite.replay.step import Step

ROUNDINGS: tuple[Literal["single", "double", "double_up", "float"], ...] = (
    "single",
    "double",
    "double_up",
    "float",
)

# Channels that the built-in depthwise convolutions compute at once, in vectors.
_BLOCK = 8


def forms_of(op: str, reads: Sequence[QuantParams], output: QuantParams) -> tuple[Rounded, ...]:
    """The forms in which an operator's codes may have been computed.

    >>> x = QuantParams.of(0.5)
    >>> forms_of("ADD", [x, x], x)
    ('single', 'double', 'double_up', 'float', 'xnnpack')
    >>> forms_of("RESHAPE", [x], x)
    ('any',)
    """
    if not rounds(op):
        return ("any",)
    wide = output.dtype == "int16"
    if op == "DEPTHWISE_CONV_2D" and not wide:
        return (*ROUNDINGS, "double_mixed")
    if op in _XNNPACK and reads and not wide:
        low, high = _XNNPACK[op][0]
        ratios = [float(params.scale[0] / output.scale[0]) for params in reads]
        same = all(params.dtype == output.dtype for params in reads)
        if same and all(low <= ratio < high for ratio in ratios):
            return (*ROUNDINGS, "xnnpack")
    return ROUNDINGS


def computed_in(step: Step, form: Rounded) -> list[Computed]:
    """The operator's codes in one of its forms."""
    if form == "xnnpack":
        return [_XNNPACK[step.op][1](step)]
    if form == "double_mixed":
        return _mixed(step)
    return computed(step, Arithmetic() if form == "any" else Arithmetic(form))


def _mixed(step: Step) -> list[Computed]:
    """Channels in whole blocks as vector instructions round, those that are left as scalar code."""
    (blocks,), (rest,) = (computed(step, Arithmetic(r)) for r in ("double_up", "double"))
    channels = blocks.codes.shape[-1]
    in_blocks = np.arange(channels) < channels // _BLOCK * _BLOCK
    return [Computed(np.where(in_blocks, blocks.codes, rest.codes), blocks.overflows)]


def _sum(step: Step) -> Computed:
    more: dict[str, Any] = {"sign": -1 if step.op == "SUB" else 1, "activation": step.activation}
    return xnnpack.add(step.codes(0), step.codes(1), step.output, **more)


# Operator -> the ratios of scales for which XNNPACK has it, and how it computes it.
_XNNPACK: dict[str, tuple[tuple[float, float], Callable[[Step], Computed]]] = {
    "ADD": (xnnpack.ADD_RATIOS, _sum),
    "SUB": (xnnpack.ADD_RATIOS, _sum),
    "QUANTIZE": (
        xnnpack.CONVERT_RATIOS,
        lambda step: xnnpack.requantize(step.codes(0), step.output),
    ),
    "LEAKY_RELU": (
        xnnpack.CONVERT_RATIOS,
        lambda step: xnnpack.requantize(
            step.codes(0), step.output, negative=float(step.options.alpha)
        ),
    ),
}
