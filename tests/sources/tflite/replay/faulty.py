"""Kernels of one operator with a planted fault, written from the formulas alone.

Each returns what the operator reads, and the codes that the faulty kernel makes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.arithmetic.integer.one_operator import Tensor
from tests.sources.tflite.models import schema

Array = NDArray[Any]
SAMPLES = 1

SHIFTS = {"shift too large": 0.5, "shift too small": 2.0}
ROUNDED = (*SHIFTS, "truncation")
ZERO_POINTS = ("input zero point", "output zero point")
SUMS = {"accumulator of 16 bits": 16, "accumulator of 32 bits": 32}
WIDE = ("accumulator of 32 bits", "none, with sums beyond 32 bits")
NAMES = {
    "shift too large": "its shift is one too large: results are halved",
    "shift too small": "its shift is one too small: results are doubled",
    "truncation": "it truncates instead of rounding",
    "input zero point": "it ignores the zero point of its input 0",
    "weight zero point": "it ignores the zero point of its input 1",
    "output zero point": "it ignores the zero point of its output",
    "accumulator of 16 bits": "its accumulator saturates at 16 bits",
    "accumulator of 32 bits": "its accumulator saturates at 32 bits",
    "bias": "it ignores its bias",
}


@dataclass(frozen=True, eq=False)
class Planted:
    """An operator, the codes dumped for each input that is not constant, and its faulty output."""

    op: str
    options: Any
    inputs: list[Tensor]
    output: Tensor
    values: list[Array]
    made: Array

    @property
    def dump(self) -> dict[str, Array]:
        read = [f"t{i}" for i, tensor in enumerate(self.inputs) if tensor.data is None]
        return {**dict(zip(read, self.values, strict=True)), f"t{len(self.inputs)}": self.made}


def _zero_point(rng: np.random.Generator, dtype: str) -> int:
    if dtype == "int16":
        return 0
    return int(rng.integers(20, 60)) * (1 if dtype == "uint8" else -1)


def _codes(rng: np.random.Generator, tensor: Tensor, samples: int = SAMPLES) -> Array:
    info = np.iinfo(tensor.dtype)
    return rng.integers(info.min, info.max + 1, (samples, *tensor.shape)).astype(tensor.dtype)


def _float32(value: Any) -> Any:
    return np.float32(value).astype(float)


def _centred(values: Array, tensor: Tensor, ignored: bool) -> Array:
    return values.astype(int) - (0 if ignored else tensor.zero_point)


def _tensor_for(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, typical: float
) -> Any:
    """An output tensor whose codes reach far, but seldom the ends, for floats of this size."""
    steps = 40 if dtype == "uint8" else np.iinfo(dtype).max / 4
    return Tensor(shape, dtype, float(_float32(typical / steps)), _zero_point(rng, dtype))


def _output(real: Array, output: Tensor, fault: str) -> Array:
    """Codes of results in steps of the output's scale."""
    real = real * SHIFTS.get(fault, 1.0)
    whole = np.floor(real if fault == "truncation" else real + 0.5).astype(int)
    info = np.iinfo(output.dtype)
    codes = whole + (0 if fault == "output zero point" else output.zero_point)
    return np.clip(codes, info.min, info.max).astype(output.dtype)


def product(op: str, dtype: str, fault: str, seed: int) -> Planted:
    """FULLY_CONNECTED, or CONV_2D and DEPTHWISE_CONV_2D with valid padding."""
    dense, depthwise = op == "FULLY_CONNECTED", op == "DEPTHWISE_CONV_2D"
    rng, channels = np.random.default_rng(seed), 24 if dense else 6
    shape = (channels, 40) if dense else (1, 3, 3, 6) if depthwise else (6, 3, 3, 6)
    kind, bias_kind = ("uint8" if dtype == "uint8" else "int8"), _bias_type(dtype)
    per_channel = kind == "int8" and not dense
    x = Tensor((1, 40) if dense else (1, 6, 6, 6), dtype, 0.05, _zero_point(rng, dtype))
    weights = Tensor(
        shape, kind, rng.uniform(0.005, 0.02, channels) if per_channel else 0.01,
        100 if kind == "uint8" else 0, (3 if depthwise else 0) if per_channel else None,
    )  # fmt: skip
    weights.data = _codes(rng, weights, 1)[0]
    scales = np.broadcast_to(_float32(weights.scale), channels)
    most = {"int16": 3 * 10**9 if fault in WIDE else 240_000}.get(dtype, 4000)
    biases = rng.choice([-1, 1], channels) * rng.integers(3 * most // 4, most, channels)
    bias = Tensor(
        (channels,), bias_kind, _float32(x.scale * (scales if per_channel else scales[0])), 0,
        0 if per_channel else None, biases.astype(bias_kind),
    )  # fmt: skip
    assert bias.data is not None
    values = _codes(rng, x)
    centred = _centred(values, x, fault == "input zero point")
    taps = _centred(weights.data, weights, fault == "weight zero point")
    if dense:
        sums = centred @ taps.T
    else:
        sums = np.zeros((SAMPLES, 1, 4, 4, channels), int)
        for i, j in np.ndindex(3, 3):
            patch = centred[:, :, i : i + 4, j : j + 4]
            sums += patch * taps[0, i, j] if depthwise else patch @ taps[:, i, j].T
    sums = sums + (0 if fault == "bias" else bias.data.astype(int))
    typical = np.abs(sums).mean() * x.scale * scales.mean()
    if fault in SUMS:
        half = 2 ** (SUMS[fault] - 1)
        sums = np.clip(sums, -half, half - 1)
    output = _tensor_for(rng, (1, channels) if dense else (1, 4, 4, channels), dtype, typical)
    real = _float32(x.scale) * scales / output.scale
    if dtype == "int16" and not dense:  # their kernels keep 16 bits of the multiplier
        fraction, exponent = np.frexp(real)
        real = np.ldexp(np.minimum(np.floor(fraction * 2**15 + 0.5), 2**15 - 1), exponent - 15)
    options = {
        "FULLY_CONNECTED": schema.FullyConnectedOptionsT,
        "CONV_2D": schema.Conv2DOptionsT,
        "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptionsT,
    }[op]()
    if not dense:
        options.strideH = options.strideW = options.padding = 1
        options.dilationHFactor = options.dilationWFactor = options.depthMultiplier = 1
    made = _output(sums * real, output, fault)
    return Planted(op, options, [x, weights, bias], output, [values], made)


def _bias_type(dtype: str) -> str:
    return "int64" if dtype == "int16" else "int32"


def of_two(op: str, dtype: str, fault: str, seed: int) -> Planted:
    """ADD, SUB or MUL."""
    rng = np.random.default_rng(seed)
    inputs = [Tensor((1, 90), dtype, s, _zero_point(rng, dtype)) for s in (0.05, 0.03)]
    values = [_codes(rng, tensor) for tensor in inputs]
    ignored = [fault == "input zero point", fault == "weight zero point"]
    left, right = (
        _centred(*each) * _float32(each[1].scale)
        for each in zip(values, inputs, ignored, strict=True)
    )
    real = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply}[op](left, right)
    output = _tensor_for(rng, (1, 90), dtype, float(np.abs(real).mean()))
    options = getattr(schema, f"{op.title()}OptionsT")()
    if op != "MUL":
        options.potScaleInt16 = False
    return Planted(op, options, inputs, output, values, _output(real / output.scale, output, fault))


def of_one(op: str, dtype: str, fault: str, seed: int) -> Planted:
    """QUANTIZE, RELU, LEAKY_RELU, MEAN, AVERAGE_POOL_2D or PAD of images of 12 channels."""
    rng = np.random.default_rng(seed)
    x = Tensor((1, 6, 6, 12), dtype, 0.05, _zero_point(rng, dtype))
    values = _codes(rng, x)
    return _OF_ONE[op](x, values, fault, rng)


def _requantized(x: Tensor, values: Array, fault: str, rng: Any, op: str) -> Planted:
    output = Tensor(x.shape, x.dtype, 0.11, _zero_point(rng, x.dtype))
    ratio, alpha = _float32(x.scale) / _float32(output.scale), 0.3
    real = _centred(values, x, fault == "input zero point") * ratio
    options = None
    if op == "LEAKY_RELU":
        options = schema.LeakyReluOptionsT()
        options.alpha = alpha
        real = np.where(real >= 0, real, real * _float32(alpha))
    made = _output(real, output, fault)
    if op == "RELU":
        made = np.maximum(made, np.asarray(output.zero_point, x.dtype))
    return Planted(op, options, [x], output, [values], made)


def _mean(x: Tensor, values: Array, fault: str, rng: Any) -> Planted:
    output = Tensor((1, 12), x.dtype, float(_float32(0.047)), _zero_point(rng, x.dtype))
    options, axes = schema.ReducerOptionsT(), Tensor((2,), "int32", data=np.int32([1, 2]))
    options.keepDims = False
    sums = _centred(values, x, fault == "input zero point").sum(axis=(2, 3))
    made = _output(sums * (_float32(x.scale) / 36 / output.scale), output, fault)
    return Planted("MEAN", options, [x, axes], output, [values], made)


def _average_pool(x: Tensor, values: Array, fault: str, rng: Any) -> Planted:
    options = schema.Pool2DOptionsT()
    options.padding = 1
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = 2
    means = values.astype(int).reshape(SAMPLES, 1, 3, 2, 3, 2, 12).mean(axis=(3, 5))
    nudged = means if fault == "truncation" else means + np.copysign(0.5, means)
    output = Tensor((1, 3, 3, 12), x.dtype, x.scale, x.zero_point)
    made = np.trunc(nudged).astype(x.dtype)
    return Planted("AVERAGE_POOL_2D", options, [x], output, [values], made)


def _pad(x: Tensor, values: Array, fault: str, rng: Any) -> Planted:
    widths = [(0, 0), (1, 1), (2, 0), (0, 0)]
    output = Tensor((1, 8, 8, 12), x.dtype, x.scale, x.zero_point)
    fill = 0 if fault == "output zero point" else x.zero_point
    made = np.pad(values, [(0, 0), *widths], constant_values=fill)
    return Planted(
        "PAD", None, [x, Tensor((4, 2), "int32", data=np.int32(widths))], output, [values], made
    )


_OF_ONE: dict[str, Callable[..., Planted]] = {
    **{
        op: lambda *args, op=op: _requantized(*args, op)
        for op in ("QUANTIZE", "RELU", "LEAKY_RELU")
    },
    "MEAN": _mean,
    "AVERAGE_POOL_2D": _average_pool,
    "PAD": _pad,
}
