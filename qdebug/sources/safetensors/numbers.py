"""The number types of safetensors: their sizes, and their bytes as NumPy arrays."""

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import Float64Array

# Bits of one element.
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_NUMPY = {
    "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip

FLOATS = ("F16", "BF16", "F32", "F64")


def minifloats(exponent: int, mantissa: int, infinite: bool) -> Float64Array:
    """The values of all codes of a float with few bits, in the order of the codes.

    Source: OCP Microscaling Formats v1.0, section 5.3; OCP 8-bit Floating Point v1.0, table 1.

    >>> minifloats(2, 1, infinite=False)[:8]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])

    Args:
        exponent: its number of bits.
        mantissa: its number of bits.
        infinite: whether the largest exponent stands for infinity and NaN, as in IEEE 754.
    """
    codes = np.arange(1 << (exponent + mantissa))
    power, fraction = codes >> mantissa, codes & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    normal = (power > 0).astype(np.float64)
    units = normal + fraction / (1 << mantissa)
    values = units * 2.0 ** (np.maximum(power, 1) - bias)
    if infinite:
        at_end = power == power[-1]
        values[at_end] = np.where(fraction[at_end] == 0, np.inf, np.nan)
    return np.concatenate((values, -values))


def _e4m3() -> Float64Array:
    """E4M3 has no infinity; all ones are NaN."""
    values = minifloats(4, 3, infinite=False)
    values[[0x7F, 0xFF]] = np.nan
    return values


# What each code of a float of 8 or 4 bits stands for.
LEVELS = {
    "F8_E4M3": _e4m3(),
    "F8_E5M2": minifloats(5, 2, infinite=True),
    "F8_E8M0": np.append(2.0 ** (np.arange(255) - 127), np.nan),
}
E2M1 = minifloats(2, 1, infinite=False)


def as_numbers(dtype: str, data: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Bytes as numbers of one axis; floats that NumPy lacks become float32.

    >>> as_numbers("BF16", np.array([0xC0, 0x3F], np.uint8))
    array([1.5], dtype=float32)
    >>> as_numbers("F8_E4M3", np.array([0x38], np.uint8))
    array([1.], dtype=float32)

    Args:
        dtype: one that `readable` accepts.
        data: a whole number of elements.
    """
    if dtype == "BF16":
        upper = data.view("<u2").astype(np.uint32)
        return (upper << np.uint32(16)).view(np.float32)
    if dtype in LEVELS:
        return LEVELS[dtype].astype(np.float32)[data]
    return data.view(_NUMPY[dtype])


def readable(dtype: str) -> bool:
    """Whether `as_numbers` knows the type."""
    return dtype in _NUMPY or dtype in LEVELS or dtype == "BF16"
