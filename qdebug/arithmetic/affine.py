"""Affine quantization: codes, floats and the parameters between them. Knows no file, no layer.

Words and formulas as in TensorFlow Lite's quantization specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec):
``x = (q - zero_point) * scale``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.errors import FieldError

Float64Array = NDArray[np.float64]
_Floats = TypeVar("_Floats", float, Float64Array)
Rounding = Literal["half_away", "half_even"]

FLOAT_DTYPES = ("float16", "float32", "float64")
CODE_DTYPES = ("int8", "uint8", "int16", "uint16", "int32")

# Scales beyond these have squares that float64 cannot hold to the last digit.
_LEAST_SCALE, _MOST_SCALE = 1e-140, 1e140


@cache
def code_range(dtype: str, bits: int | None = None, narrow_range: bool = False) -> tuple[int, int]:
    """The least and the largest code (qmin, qmax).

    `narrow_range` leaves out the lowest code, so that the signed codes are symmetric.

    >>> code_range("int8"), code_range("int8", narrow_range=True), code_range("uint8", bits=4)
    ((-128, 127), (-127, 127), (0, 15))

    Raises:
        FieldError: no such code type, or `bits` that the type cannot hold.
    """
    if dtype not in CODE_DTYPES:
        raise FieldError("quantized", found=dtype, expected="codes of " + ", ".join(CODE_DTYPES))
    type_bits = np.dtype(dtype).itemsize * 8
    bits = type_bits if bits is None else bits
    if not 2 <= bits <= type_bits:
        raise FieldError("bits", found=str(bits), expected=f"2 to {type_bits} for {dtype}")
    signed = not dtype.startswith("u")
    low = -(2 ** (bits - 1)) if signed else 0
    return low + narrow_range, low + 2**bits - 1


def middle_code(code_limits: tuple[int, int]) -> int:
    """The zero point of symmetric codes from qmin to qmax: 0 for signed types.

    >>> middle_code((-128, 127)), middle_code((-127, 127)), middle_code((0, 255))
    (0, 0, 128)
    """
    return (sum(code_limits) + 1) // 2


def representable_range(
    scale: _Floats, zero_point: Any, code_limits: tuple[int, int]
) -> tuple[_Floats, _Floats]:
    """The floats D(qmin) and D(qmax) that the least and the largest code stand for.

    >>> representable_range(4.0, -123, (-128, 127))
    (-20.0, 1000.0)
    """
    qmin, qmax = code_limits
    return (qmin - zero_point) * scale, (qmax - zero_point) * scale


@dataclass(frozen=True)
class QuantScheme:
    """How floats are to be quantized, whatever their range turns out to be.

    Attributes:
        dtype: type of the codes, one of `CODE_DTYPES`.
        bits: number of bits in use; None for all of the type's.
        narrow_range: the lowest code is not used.
        symmetric: the zero point is the middle code (0 for signed types).
        rounding: halves away from zero or to even.

    >>> QuantScheme("uint8", bits=4).code_range
    (0, 15)

    Raises:
        FieldError: no such code type, or bits that it cannot hold.
    """

    dtype: str = "int8"
    bits: int | None = None
    narrow_range: bool = False
    symmetric: bool = False
    rounding: Rounding = "half_away"

    def __post_init__(self) -> None:
        code_range(self.dtype, self.bits, self.narrow_range)

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the largest code (qmin, qmax), as `code_range` gives them."""
        return code_range(self.dtype, self.bits, self.narrow_range)


@dataclass(frozen=True, eq=False)
class QuantParams:
    """How a tensor is quantized: one scale and zero point, or one each per channel.

    Attributes:
        scale: shape (channels,), the step between two codes, in the floats' own unit.
        zero_point: shape (channels,), the code of 0.0.
        dtype: type of the codes, one of `CODE_DTYPES`.
        axis: the channel axis (TFLite: quantized dimension); None for one scale per tensor.
        bits: number of bits in use, at most what the type has.
        narrow_range: the lowest code is not used.
        rounding: ``half_away`` from zero as TFLite does, ``half_even`` as ONNX and NumPy do.

    Use `QuantParams.of` to make one from what a user gives.
    """

    scale: Float64Array
    zero_point: NDArray[np.int64]
    dtype: str
    axis: int | None
    bits: int
    narrow_range: bool
    rounding: Rounding

    @classmethod
    def of(
        cls,
        scale: ArrayLike,
        zero_point: ArrayLike = 0,
        dtype: str = "int8",
        *,
        axis: int | None = None,
        bits: int | None = None,
        narrow_range: bool = False,
        rounding: Rounding = "half_away",
    ) -> "QuantParams":
        """Checked parameters: scale and zero point of shape (), (1,) or (channels,).

        >>> QuantParams.of(0.5, 3).scale
        array([0.5])

        Raises:
            FieldError: a scale that is not finite and above zero, a zero point outside the code
                range, vectors of different lengths, channels without an axis, or no such rounding.
        """
        qmin, qmax = code_range(dtype, bits, narrow_range)
        scales = np.array(scale, np.float64, ndmin=1)
        zeros = np.array(zero_point, ndmin=1)
        for field, vector in (("scale", scales), ("zero_point", zeros)):
            if vector.ndim != 1 or vector.size == 0:
                raise FieldError(
                    field, found=f"shape {np.shape(vector)}", expected="(), (1,) or (channels,)"
                )
        wrong = ~((scales >= _LEAST_SCALE) & (scales <= _MOST_SCALE))
        if wrong.any():
            positive = (scales > 0) & (scales < np.inf)
            expected = (
                f"{_LEAST_SCALE} to {_MOST_SCALE}" if positive.all() else "finite numbers above 0"
            )
            raise FieldError("scale", found=_first(scales, wrong), expected=expected)
        outside = (zeros < qmin) | (zeros > qmax)
        if outside.any():
            raise FieldError(
                "zero_point",
                found=_first(zeros, outside),
                expected=f"codes from {qmin} to {qmax}",
            )
        if rounding not in get_args(Rounding):
            expected = " or ".join(get_args(Rounding))
            raise FieldError("rounding", found=f"{rounding!r:.60}", expected=expected)
        channels = max(scales.size, zeros.size)
        for field, vector in (("scale", scales), ("zero_point", zeros)):
            if vector.size not in (1, channels):
                raise FieldError(
                    field, found=f"{vector.size} values", expected=f"1 or {channels}, as the other"
                )
        if channels > 1 and axis is None:
            raise FieldError(
                "axis", found="nothing", expected=f"the channel axis of {channels} scales"
            )
        return cls(
            scale=np.broadcast_to(scales, channels).copy(),
            zero_point=np.broadcast_to(zeros, channels).astype(np.int64),
            dtype=dtype,
            axis=axis if channels > 1 else None,
            bits=np.dtype(dtype).itemsize * 8 if bits is None else bits,
            narrow_range=bool(narrow_range),
            rounding=rounding,
        )

    @property
    def channels(self) -> int:
        """Number of scales: 1 for a tensor with one."""
        return self.scale.size

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the largest code (qmin, qmax), as `code_range` gives them."""
        return code_range(self.dtype, self.bits, self.narrow_range)

    @property
    def qmin(self) -> int:
        """The least code."""
        return self.code_range[0]

    @property
    def qmax(self) -> int:
        """The largest code."""
        return self.code_range[1]

    @property
    def symmetric(self) -> bool:
        """Whether all zero points are the middle code."""
        return bool((self.zero_point == middle_code(self.code_range)).all())

    def along(self, ndim: int) -> tuple[Float64Array, NDArray[np.int64]]:
        """Scale and zero point in a shape that broadcasts against a tensor of `ndim` axes."""
        if self.axis is None:
            return self.scale.reshape(()), self.zero_point.reshape(())
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def rows(self, start: int, stop: int) -> tuple[Float64Array, NDArray[np.int64]]:
        """Scale and zero point of channels start..stop, as columns of shape (channels, 1)."""
        return self.scale[start:stop, None], self.zero_point[start:stop, None]


def _first(values: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    index = int(np.flatnonzero(wrong)[0])
    return str(values[index]) if values.size == 1 else f"{values[index]} for channel {index}"


def round_half_away(values: Float64Array) -> Float64Array:
    """To the nearest integer, halves away from zero: TFLite's own rounding.

    >>> round_half_away(np.array([0.5, -0.5, 2.4, 0.49999999999999994]))
    array([ 1., -1.,  2.,  0.])
    """
    whole = np.trunc(values)
    rounded: Float64Array = whole + np.copysign(np.abs(values - whole) >= 0.5, values)
    return rounded


_ROUND: dict[Rounding, Callable[[Float64Array], Float64Array]] = {
    "half_away": round_half_away,
    "half_even": np.rint,
}


def codes_of(
    x: Float64Array,
    scale: Float64Array,
    zero_point: NDArray[Any] | int,
    code_limits: tuple[float | Float64Array, float | Float64Array],
    rounding: Rounding = "half_away",
) -> Float64Array:
    """Q(x) = clamp(round(x / s) + z, qmin, qmax), as whole float64 numbers; all broadcast.

    NaN has no code: it becomes the zero point's.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are clamped
        codes = _ROUND[rounding](x / scale) + zero_point
    return np.clip(np.where(np.isnan(codes), zero_point, codes), *code_limits)


def quantize(x: ArrayLike, params: QuantParams) -> NDArray[np.integer[Any]]:
    """The codes Q(x) of floats `x`, of any shape, in the type and with the rounding of `params`.

    >>> quantize([-20.0, 0.0, 1000.0], QuantParams.of(4.0, -123, "int8"))
    array([-128, -123,  127], dtype=int8)
    >>> quantize([0.5, 1.5], QuantParams.of(1.0, rounding="half_even"))
    array([0, 2], dtype=int8)
    """
    floats = np.asarray(x, np.float64)
    scale, zero_point = params.along(floats.ndim)
    codes = codes_of(floats, scale, zero_point, params.code_range, params.rounding)
    return codes.astype(params.dtype)


def dequantize(codes: ArrayLike, params: QuantParams) -> Float64Array:
    """The floats D(q) = (q - z) * s that the codes stand for.

    >>> dequantize(np.array([-128, 127], np.int8), QuantParams.of(4.0, -123, "int8"))
    array([ -20., 1000.])
    """
    q = np.asarray(codes)
    scale, zero_point = params.along(q.ndim)
    floats: Float64Array = (q.astype(np.float64) - zero_point) * scale
    return floats


def params_from_range(
    low: ArrayLike, high: ArrayLike, scheme: QuantScheme, axis: int | None = None
) -> QuantParams:
    """Scale and zero point that represent the floats from `low` to `high`, each () or (channels,).

    The range is first extended to hold zero, so that zero has a code of its own (padding and ReLU
    need it exact). An affine scheme lays the whole code range over [low, high] and rounds the zero
    point to a code; a symmetric one puts it at the middle code and lays the codes above it over the
    larger of -low and high. An empty range gets scale 1.

    >>> params = params_from_range(-20, 1000, QuantScheme("uint8"))
    >>> params.scale, params.zero_point
    (array([4.]), array([5]))

    Raises:
        FieldError: a range that is not finite or upside down, or an impossible code range.
    """
    qmin, qmax = scheme.code_range
    lows, highs = (np.array(end, np.float64, ndmin=1) for end in (low, high))
    wrong = ~(np.isfinite(lows) & np.isfinite(highs) & (lows <= highs))
    if wrong.any():
        raise FieldError(
            "range",
            found=f"{_first(lows, wrong)} to {_first(highs, wrong)}",
            expected="finite numbers, the lower one first",
        )
    lows, highs = np.minimum(lows, 0.0), np.maximum(highs, 0.0)
    empty = lows == highs
    middle = middle_code((qmin, qmax))
    if scheme.symmetric:
        scale = np.maximum(-lows, highs) / (qmax - middle)
    else:
        # Divided first: the difference of two float64 numbers may be beyond float64.
        scale = highs / (qmax - qmin) - lows / (qmax - qmin)
    scale = np.where(empty, 1.0, np.clip(scale, _LEAST_SCALE, _MOST_SCALE))
    zero_point = (
        np.full(scale.shape, float(middle))
        if scheme.symmetric
        else codes_of(-lows, scale, qmin, (qmin, qmax))
    )
    return QuantParams.of(
        scale,
        zero_point,
        scheme.dtype,
        axis=axis,
        bits=scheme.bits,
        narrow_range=scheme.narrow_range,
        rounding=scheme.rounding,
    )
