"""Which operators can be computed in integers, and why the others cannot. Computes nothing."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qdebug.errors import FieldError
from qdebug.sources.tflite.graph import Graph, Operator, Tensor
from qdebug.sources.tflite.layers import params_of
from qdebug.sources.tflite.replay.compute import COMPUTE, rounds
from qdebug.sources.tflite.replay.step import FUSED
from qdebug.sources.tflite.replay.takes import ACTIVATIONS_OF, MANY_OUTPUTS, bias_of, taken

_ACTIVATION_TYPES = ("INT8", "UINT8", "INT16")
_INTEGER_TYPES = ("INT32", "INT64")
# A multiplier of this or more has no int32 mantissa and shift that a kernel could use.
_MOST_MULTIPLIER = 2.0**30


def refusal(graph: Graph, operator: Operator, options: Any) -> str | None:
    """Why an operator's codes cannot be computed; None if they can."""
    if operator.custom or operator.op not in COMPUTE:
        return "not an operator that the specification fixes, or not one that replay knows"
    outputs, reads = _tensors(graph, operator)
    if len(outputs) > 1 and operator.op not in MANY_OUTPUTS:
        return f"it has {len(outputs)} outputs, expected 1"
    for tensor in outputs:
        if tensor.quantization is None or tensor.type not in _ACTIVATION_TYPES:
            return f"its output is {_kind(tensor)}, expected codes of int8, uint8 or int16"
        if reason := _unreadable(tensor):
            return reason
    for place, read in enumerate(reads):
        if read is not None and (reason := _unread(operator, place, read)):
            return reason
    for place, letter in enumerate(taken(operator.op, len(reads))):
        read = reads[place] if place < len(reads) else None
        if reason := _unfit(letter, place, read):
            return reason
    if getattr(options, "fusedActivationFunction", 0) not in FUSED:
        return "its fused activation is none of NONE, RELU, RELU6, RELU_N1_TO_1"
    if operator.op in ACTIVATIONS_OF:
        return _refuse_product(operator.op, reads, outputs, options)
    return _REFUSE.get(operator.op, _none)(reads, outputs, options)


def check_multiplier(graph: Graph, operator: Operator) -> None:
    """Check that the real multiplier of an operator to replay has a fixed-point form.

    It is M = s_x * s_w / s_y for a product, and at most the largest s_x / s_y for a sum.

    Raises:
        FieldError: kernels cannot shift by as much as M needs.
    """
    if not rounds(operator.op):
        return
    outputs, reads = _tensors(graph, operator)
    scales = [
        float(read.quantization.scale.max())
        for read, letter in zip(reads, taken(operator.op, len(reads)), strict=False)
        if read is not None and read.quantization is not None and letter in "qx"
    ]
    made = outputs[0].quantization
    if made is None or not scales:
        return
    multiplies = operator.op == "MUL" or operator.op in ACTIVATIONS_OF
    most = (math.prod(scales) if multiplies else max(scales)) / float(made.scale.min())
    if most >= _MOST_MULTIPLIER:
        raise FieldError(
            "scale", found=f"scales of multiplier {most:.3g}", expected="a multiplier below 2^30"
        )


def _tensors(graph: Graph, operator: Operator) -> tuple[list[Tensor], list[Tensor | None]]:
    """An operator's outputs and inputs; None for an input left out."""
    reads = [graph.tensors[read] if read >= 0 else None for read in operator.inputs]
    return [graph.tensors[output] for output in operator.outputs], reads


def _kind(tensor: Tensor) -> str:
    return tensor.type.lower() + ("" if tensor.quantization else ", not quantized")


def _unread(operator: Operator, place: int, tensor: Tensor) -> str | None:
    """Why an input cannot be read."""
    if tensor.variable:
        return "it keeps a state"
    if tensor.quantization is not None:
        return _unreadable(tensor)
    if tensor.type.startswith("FLOAT") and operator.op != "QUANTIZE":
        return f"its input {place} is {_kind(tensor)}"
    return None


def _unreadable(tensor: Tensor) -> str | None:
    """Why a quantized tensor's codes cannot be read."""
    assert tensor.quantization is not None
    if tensor.quantization.unread:
        return tensor.quantization.unread
    try:
        params_of(tensor)
    except FieldError as error:
        return str(error)
    return None


def _unfit(letter: str, place: int, tensor: Tensor | None) -> str | None:
    """Why an input is not what `TAKES` says."""
    if tensor is None:
        return None if letter == "b" else f"it has no input {place}"
    if letter == "q" and tensor.quantization is None:
        return f"its input {place} is {_kind(tensor)}"
    if letter in "ib" and tensor.type not in _INTEGER_TYPES:
        return f"its input {place} is {tensor.type.lower()}, expected int32 or int64"
    return None


_Reads = Sequence[Tensor | None]


def _none(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> None:
    """No objection."""


def _refuse_product(op: str, reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    """Why a product of activations and weights cannot be computed."""
    x = reads[ACTIVATIONS_OF[op]]
    assert x is not None
    if x.type != outputs[0].type:
        return f"it reads {_kind(x)} and writes {_kind(outputs[0])}"
    if getattr(options, "weightsFormat", 0):
        return "its weights are shuffled"
    place = bias_of(op)
    bias = reads[place] if place is not None and place < len(reads) else None
    if x.type == "INT16" and bias is not None and bias.type == "INT32":
        return "its bias is int32, expected int64 beside int16 activations"
    return None


def _needs_one_scale(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    """Codes can only be moved between tensors of one scale and zero point."""
    for read in reads:
        if read is not None and read.type in _ACTIVATION_TYPES and read.quantization:
            for output in outputs:
                ours, theirs = read.quantization, output.quantization
                assert ours is not None
                assert theirs is not None
                same = np.array_equal(ours.scale, theirs.scale) and np.array_equal(
                    ours.zero_point, theirs.zero_point
                )
                if not same or read.type != output.type:
                    return "its input and output have different scales, zero points or types"
    return None


def _refuse_concatenation(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    if outputs[0].type == "UINT8" and not options.fusedActivationFunction:
        return None
    if options.fusedActivationFunction:
        return "its fused activation"
    return _needs_one_scale(reads, outputs, options)


def _refuse_bounded(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    """The logistic function, tanh and softmax have outputs of a fixed scale, in 8 bits."""
    if outputs[0].type == "INT16":
        return "of int16 it is computed with tables"
    return None


def _refuse_sum(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    if outputs[0].type == "INT16" and getattr(options, "potScaleInt16", False):
        return "its scales are powers of two, an older form"
    return None


def _refuse_gather(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    return "its batch axes" if options.batchDims else _needs_one_scale(reads, outputs, options)


def _refuse_slice(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    return "its end is an offset" if options.offset else _needs_one_scale(reads, outputs, options)


def _refuse_hard_swish(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    return "of int16 it is not specified" if outputs[0].type == "INT16" else None


_REFUSE: dict[str, Callable[[_Reads, Sequence[Tensor], Any], str | None]] = {
    **dict.fromkeys(("LOGISTIC", "TANH", "SOFTMAX"), _refuse_bounded),
    **dict.fromkeys(("ADD", "SUB", "MUL"), _refuse_sum),
    "HARD_SWISH": _refuse_hard_swish,
    "CONCATENATION": _refuse_concatenation,
    "GATHER": _refuse_gather,
    "STRIDED_SLICE": _refuse_slice,
    **dict.fromkeys(
        """AVERAGE_POOL_2D MAX_POOL_2D MAXIMUM MINIMUM RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE SLICE
        SPLIT SPLIT_V PAD PADV2 MIRROR_PAD PACK UNPACK TILE REVERSE_V2 RESIZE_NEAREST_NEIGHBOR
        SPACE_TO_DEPTH DEPTH_TO_SPACE REDUCE_MAX REDUCE_MIN BROADCAST_TO""".split(),  # noqa: SIM905
        _needs_one_scale,
    ),
}
