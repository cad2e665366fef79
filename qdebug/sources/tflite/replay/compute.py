"""TFLite operators as integer arithmetic: each with its options, from what it read to its codes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.arithmetic.integer import activations, elementwise, moves, pooling, products
from qdebug.arithmetic.integer.codes import Arithmetic, Codes, Computed
from qdebug.sources.tflite.replay.step import Array, Step

Compute = Callable[[Step, Arithmetic], list[Computed]]


def computed(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    """The output codes of an operator that `refusal` has no objection to."""
    return COMPUTE[step.op](step, arithmetic)


def rounds(op: str) -> bool:
    """Whether an operator multiplies by a fixed-point multiplier, so that its rounding matters."""
    return op in _ROUNDING


def _window(step: Step) -> dict[str, Any]:
    """Stride, padding and activation of a convolution or a pool."""
    options = step.options
    return {
        "stride": (options.strideH, options.strideW),
        "padding": "VALID" if options.padding else "SAME",
        "activation": step.activation,
    }


def _dilation(step: Step) -> tuple[int, int]:
    return step.options.dilationHFactor, step.options.dilationWFactor


def _fully_connected(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    found = products.fully_connected(
        step.codes(0), step.codes(1), step.plain(2), step.output,
        activation=step.activation, arithmetic=arithmetic,
    )  # fmt: skip
    return [replace(found, codes=found.codes.reshape(step.shapes[0]))]


def _conv_2d(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [
        products.conv_2d(
            step.codes(0), step.codes(1), step.plain(2), step.output,
            dilation=_dilation(step), arithmetic=arithmetic, **_window(step),
        )
    ]  # fmt: skip


def _depthwise_conv_2d(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [
        products.depthwise_conv_2d(
            step.codes(0), step.codes(1), step.plain(2), step.output,
            dilation=_dilation(step), arithmetic=arithmetic, **_window(step),
        )
    ]  # fmt: skip


def _transpose_conv(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [
        products.transpose_conv(
            step.codes(2), step.codes(1), step.plain(3), step.output,
            shape=step.shapes[0], arithmetic=arithmetic, **_window(step),
        )
    ]  # fmt: skip


def _batch_matmul(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    options = step.options
    return [
        products.batch_matmul(
            step.codes(0), step.codes(1), step.output,
            adj_x=options.adjX, adj_y=options.adjY, arithmetic=arithmetic,
        )
    ]  # fmt: skip


def _of_two(function: Callable[..., Computed]) -> Compute:
    return lambda step, arithmetic: [
        function(
            step.codes(0), step.codes(1), step.output,
            activation=step.activation, arithmetic=arithmetic,
        )
    ]  # fmt: skip


def _extreme(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    which: Any = step.op
    return [elementwise.extreme(step.codes(0), step.codes(1), step.output, which=which)]


def _quantize(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    read = step.reads[0]
    if isinstance(read, Codes):
        return [elementwise.requantize(read, step.output, arithmetic=arithmetic)]
    assert read is not None
    return [Computed(quantize(read, step.output))]


def _relu(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    activation: Any = step.op
    found = elementwise.relu(
        step.codes(0), step.output, activation=activation, arithmetic=arithmetic
    )
    return [found]


def _leaky_relu(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    alpha = float(step.options.alpha)
    return [elementwise.leaky_relu(step.codes(0), step.output, alpha=alpha, arithmetic=arithmetic)]


def _hard_swish(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [elementwise.hard_swish(step.codes(0), step.output, arithmetic=arithmetic)]


def _bounded(function: Callable[[Codes, QuantParams], Computed]) -> Compute:
    return lambda step, arithmetic: [function(step.codes(0), step.output)]


def _softmax(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [activations.softmax(step.codes(0), step.output, beta=float(step.options.beta))]


def _pooled(step: Step) -> dict[str, Any]:
    size = step.options.filterHeight, step.options.filterWidth
    return {"size": size, **_window(step)}


def _average_pool(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    more = _pooled(step)
    return [pooling.average_pool_2d(step.codes(0), step.output, arithmetic=arithmetic, **more)]


def _max_pool(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    return [pooling.max_pool_2d(step.codes(0), step.output, **_pooled(step))]


def _mean(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    found = pooling.mean(
        step.codes(0), step.output,
        axes=step.integers(1), keep_dims=bool(step.options.keepDims), arithmetic=arithmetic,
    )  # fmt: skip
    return [found]


def _reduced(function: Callable[..., Any]) -> Compute:
    def compute(step: Step, arithmetic: Arithmetic) -> list[Computed]:
        axes = tuple(step.integers(1))
        return [Computed(function(step.codes(0).values, axis=axes).reshape(step.shapes[0]))]

    return compute


def _concatenation(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    parts = [step.codes(place) for place in range(len(step.reads))]
    return [moves.concatenate(parts, step.output, axis=step.options.axis)]


def _moved(move: Callable[[Step, Array], Array]) -> Compute:
    """An operator that moves the codes of its first input."""
    return lambda step, arithmetic: [Computed(move(step, step.codes(0).values))]


def _slice(step: Step, values: Array) -> Array:
    pairs = zip(step.integers(1), step.shapes[0], strict=True)
    return values[tuple(slice(begin, begin + length) for begin, length in pairs)]


def _strided_slice(step: Step, values: Array) -> Array:
    options = step.options
    index = moves.strided_slice(
        *(step.integers(place) for place in (1, 2, 3)),
        begin_mask=options.beginMask,
        end_mask=options.endMask,
        ellipsis_mask=options.ellipsisMask,
        new_axis_mask=options.newAxisMask,
        shrink_axis_mask=options.shrinkAxisMask,
    )
    return np.asarray(values[index])


def _widths(step: Step) -> list[tuple[int, int]]:
    return [(low, high) for low, high in np.array(step.integers(1)).reshape(-1, 2)]


def _pad(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    """PAD and PADV2: without its zero point, PAD fills with code 0."""
    if step.op == "PADV2":
        fill = step.integers(2)[0]
    else:
        fill = int(step.output.zero_point[0]) if arithmetic.offset else 0
    return [Computed(moves.pad(step.codes(0).values, _widths(step), fill))]


def _mirror_pad(step: Step, values: Array) -> Array:
    return moves.pad(values, _widths(step), 0, "symmetric" if step.options.mode else "reflect")


def _gather(step: Step, values: Array) -> Array:
    where = step.plain(1)
    assert where is not None
    return np.take(values, where, axis=step.options.axis)


def _resized(step: Step, values: Array) -> Array:
    height, width = step.integers(1)
    options = step.options
    return moves.resize_nearest_neighbor(
        values, (height, width),
        align_corners=bool(options.alignCorners), half_pixel=bool(options.halfPixelCenters),
    )  # fmt: skip


def _pack(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    parts = [step.codes(place).values for place in range(len(step.reads))]
    return [Computed(np.stack(parts, axis=step.options.axis))]


def _unpack(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    parts = np.moveaxis(step.codes(0).values, step.options.axis, 0)
    return [Computed(part) for part in parts]


def _split(step: Step, arithmetic: Arithmetic) -> list[Computed]:
    place, at = (0, 1) if step.op == "SPLIT_V" else (1, 0)
    axis = step.integers(2)[0] if step.op == "SPLIT_V" else step.integers(at)[0]
    ends = np.cumsum([shape[axis] for shape in step.shapes])[:-1]
    parts = np.split(step.codes(place).values, ends, axis=axis)
    return [Computed(part) for part in parts]


# Operators whose codes depend on how a multiplication by a fixed-point multiplier rounds.
_ROUNDING: dict[str, Compute] = {
    "FULLY_CONNECTED": _fully_connected,
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "TRANSPOSE_CONV": _transpose_conv,
    "BATCH_MATMUL": _batch_matmul,
    "ADD": _of_two(elementwise.add),
    "SUB": _of_two(elementwise.subtract),
    "MUL": _of_two(elementwise.multiply_codes),
    "QUANTIZE": _quantize,
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
    "LEAKY_RELU": _leaky_relu,
    "MEAN": _mean,
}
COMPUTE: dict[str, Compute] = {
    **_ROUNDING,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _bounded(activations.logistic),
    "TANH": _bounded(activations.tanh),
    "SOFTMAX": _softmax,
    "AVERAGE_POOL_2D": _average_pool,
    "MAX_POOL_2D": _max_pool,
    "MAXIMUM": _extreme,
    "MINIMUM": _extreme,
    "REDUCE_MAX": _reduced(np.max),
    "REDUCE_MIN": _reduced(np.min),
    "CONCATENATION": _concatenation,
    **dict.fromkeys(
        ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
        _moved(lambda step, values: values.reshape(step.shapes[0])),
    ),
    "TRANSPOSE": _moved(lambda step, values: values.transpose(step.integers(1))),
    "SLICE": _moved(_slice),
    "STRIDED_SLICE": _moved(_strided_slice),
    "SPLIT": _split,
    "SPLIT_V": _split,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _moved(_mirror_pad),
    "PACK": _pack,
    "UNPACK": _unpack,
    "GATHER": _moved(_gather),
    "TILE": _moved(lambda step, values: np.tile(values, step.integers(1))),
    "REVERSE_V2": _moved(lambda step, values: np.flip(values, tuple(step.integers(1)))),
    "BROADCAST_TO": _moved(lambda step, values: np.broadcast_to(values, step.shapes[0])),
    "RESIZE_NEAREST_NEIGHBOR": _moved(_resized),
    "SPACE_TO_DEPTH": _moved(
        lambda step, values: moves.space_to_depth(values, step.options.blockSize)
    ),
    "DEPTH_TO_SPACE": _moved(
        lambda step, values: moves.depth_to_space(values, step.options.blockSize)
    ),
}
