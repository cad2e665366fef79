"""Which operators can be computed in integers, and why the others cannot. Computes nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qdebug.errors import FieldError
from qdebug.sources.tflite.graph import Graph, Operator, Tensor
from qdebug.sources.tflite.layers import params_of
from qdebug.sources.tflite.replay.compute import COMPUTE
from qdebug.sources.tflite.replay.step import FUSED

_ACTIVATION_TYPES = ("INT8", "UINT8", "INT16")


def refusal(graph: Graph, operator: Operator, options: Any) -> str | None:
    """Why an operator's codes cannot be computed; None if they can."""
    if operator.custom or operator.op not in COMPUTE:
        return "not an operator that the specification fixes, or not one that replay knows"
    outputs = [graph.tensors[output] for output in operator.outputs]
    reads = [graph.tensors[read] if read >= 0 else None for read in operator.inputs]
    for tensor in outputs:
        if tensor.quantization is None or tensor.type not in _ACTIVATION_TYPES:
            return f"its output is {_kind(tensor)}, expected codes of int8, uint8 or int16"
    for place, read in enumerate(reads):
        if read is not None and (reason := _unread(operator, place, read)):
            return reason
    if getattr(options, "fusedActivationFunction", 0) not in FUSED:
        return "its fused activation is none of NONE, RELU, RELU6, RELU_N1_TO_1"
    return _REFUSE.get(operator.op, _none)(reads, outputs, options)


def _kind(tensor: Tensor) -> str:
    return tensor.type.lower() + ("" if tensor.quantization else ", not quantized")


def _unread(operator: Operator, place: int, tensor: Tensor) -> str | None:
    """Why an input cannot be read."""
    if tensor.variable:
        return "it keeps a state"
    if tensor.quantization is not None:
        if tensor.quantization.unread:
            return tensor.quantization.unread
        try:
            params_of(tensor)
        except FieldError as error:
            return str(error)
    elif tensor.type.startswith("FLOAT") and operator.op != "QUANTIZE":
        return f"its input {place} is {_kind(tensor)}"
    return None


_Reads = Sequence[Tensor | None]


def _none(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> None:
    """No objection."""


def _needs_bias_of_its_type(reads: _Reads, outputs: Sequence[Tensor], options: Any) -> str | None:
    x = reads[1 if len(reads) > 2 and reads[0] is not None and reads[0].type == "INT32" else 0]
    weights = reads[1]
    if x is None or weights is None or x.quantization is None or weights.quantization is None:
        return "its input or its weights are not quantized"
    if x.type != outputs[0].type:
        return f"it reads {_kind(x)} and writes {_kind(outputs[0])}"
    if getattr(options, "weightsFormat", 0):
        return "its weights are shuffled"
    bias = reads[-1] if len(reads) > 2 else None
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
    if any(read is None or read.quantization is None for read in reads):
        return "its inputs are not both quantized"
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
    **dict.fromkeys(
        ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"),
        _needs_bias_of_its_type,
    ),
    **dict.fromkeys(("LOGISTIC", "TANH", "SOFTMAX"), _refuse_bounded),
    **dict.fromkeys(("ADD", "SUB", "MUL", "BATCH_MATMUL"), _refuse_sum),
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
