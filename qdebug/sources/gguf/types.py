"""GGUF's types: blocks of bytes to the floats that they stand for, and their cells.

The layouts are those of ggml (ggml-common.h, ggml-quants.c); docs/weights.md describes them. All
arithmetic is in float32, in ggml's order, so that the values are its own to the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded, affine_blocks, codebook

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Levels of IQ4_NL and IQ4_XS.
_NON_LINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# Twice the levels of FP4 (e2m1).
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

_LOW_HIGH = np.array([0, 4], np.uint8)[:, None]
_QUARTERS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_BITS = np.arange(8, dtype=np.uint8)[:, None]
_THREES = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]


@dataclass(frozen=True)
class Type:
    """One of GGUF's types.

    Attributes:
        name: as ggml calls it.
        block: elements of a block.
        size: bytes of a block.
        decode: blocks, shape (blocks, size), to elements, shape (blocks, block); None for numbers
            that are no floats.
        floats: whether no quantizer made it.
        by_library: whether the `gguf` package decodes it.
    """

    name: str
    block: int
    size: int
    decode: Callable[[Bytes], Decoded] | None
    floats: bool = False
    by_library: bool = False


def _part(blocks: Bytes, start: int, size: int) -> Bytes:
    return blocks[:, start : start + size]


def _half(blocks: Bytes, start: int) -> Floats:
    """A float16 of each block; shape (blocks, 1)."""
    return np.ascontiguousarray(_part(blocks, start, 2)).view("<f2").astype(np.float32)


def _split(packed: Bytes, run: int, shifts: NDArray[np.uint8], mask: int) -> Bytes:
    """Fields of bytes: those of one shift of `run` bytes, then those of the next shift.

    Returns:
        Shape (blocks, fields).
    """
    runs = packed.reshape(len(packed), -1, 1, run)
    fields: Bytes = ((runs >> shifts) & np.uint8(mask)).reshape(len(packed), -1)
    return fields


def _grouped(codes: NDArray[Any], groups: int) -> NDArray[Any]:
    """Codes as signed numbers; shape (blocks, groups, elements of a group)."""
    return codes.reshape(len(codes), groups, -1).astype(np.int8)


def _flat(found: Decoded) -> Decoded:
    return found.mapped(lambda array: array.reshape(len(array), -1))


# --- one scale per block, perhaps an offset -------------------------------------------------------


def _q4_0(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 2, 16), 16, _LOW_HIGH, 15).astype(np.int8) - np.int8(8)
    return affine_blocks(codes, _half(blocks, 0), 0.0, (-8, 7))


def _q4_1(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 4, 16), 16, _LOW_HIGH, 15)
    return affine_blocks(codes, _half(blocks, 0), _half(blocks, 2), (0, 15))


def _five_bits(low: Bytes, high: Bytes) -> Bytes:
    fifth = np.unpackbits(high, axis=1, bitorder="little")
    return _split(low, 16, _LOW_HIGH, 15) | (fifth << np.uint8(4))


def _q5_0(blocks: Bytes) -> Decoded:
    codes = _five_bits(_part(blocks, 6, 16), _part(blocks, 2, 4)).astype(np.int8) - np.int8(16)
    return affine_blocks(codes, _half(blocks, 0), 0.0, (-16, 15))


def _q5_1(blocks: Bytes) -> Decoded:
    codes = _five_bits(_part(blocks, 8, 16), _part(blocks, 4, 4))
    return affine_blocks(codes, _half(blocks, 0), _half(blocks, 2), (0, 31))


def _q8_0(blocks: Bytes) -> Decoded:
    codes = _part(blocks, 2, 32).view(np.int8)
    return affine_blocks(codes, _half(blocks, 0), 0.0, (-128, 127))


def _tq1_0(blocks: Bytes) -> Decoded:
    """Five digits of base 3 in a byte, the first one highest: a fraction of 256."""

    def digits(packed: Bytes, run: int, count: int) -> Bytes:
        return (packed.reshape(len(packed), -1, 1, run) * _THREES[:count]).reshape(len(packed), -1)

    parts = (0, 32, 32, 5), (32, 16, 16, 5), (48, 4, 4, 4)
    found = [digits(_part(blocks, start, size), run, count) for start, size, run, count in parts]
    codes = (np.concatenate(found, axis=1).astype(np.uint16) * 3 >> 8).astype(np.int8) - np.int8(1)
    return affine_blocks(codes, _half(blocks, 52), 0.0, (-1, 1))


def _tq2_0(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 0, 64), 32, _QUARTERS, 3).astype(np.int8) - np.int8(1)
    return affine_blocks(codes, _half(blocks, 64), 0.0, (-1, 1))


# --- K types: scales of groups, in units of the block's -------------------------------------------


def _q2_k(blocks: Bytes) -> Decoded:
    codes = _grouped(_split(_part(blocks, 16, 64), 32, _QUARTERS, 3), 16)
    scales = _part(blocks, 0, 16)
    scale = _half(blocks, 80) * (scales & np.uint8(15)).astype(np.float32)
    least = _half(blocks, 82) * (scales >> np.uint8(4)).astype(np.float32)
    return _flat(affine_blocks(codes, scale[..., None], -least[..., None], (0, 3)))


def _q3_k(blocks: Bytes) -> Decoded:
    low = _split(_part(blocks, 32, 64), 32, _QUARTERS, 3)
    third = _split(_part(blocks, 0, 32), 32, _BITS, 1)
    codes = _grouped(low | (third << np.uint8(2)), 16) - np.int8(4)
    packed = _part(blocks, 96, 12)
    scales = _split(packed[:, :8], 8, _LOW_HIGH, 15)
    scales = scales | (_split(packed[:, 8:], 4, _QUARTERS, 3) << np.uint8(4))
    signed = scales.astype(np.int8) - np.int8(32)
    scale = _half(blocks, 108) * signed.astype(np.float32)
    return _flat(affine_blocks(codes, scale[..., None], 0.0, (-4, 3)))


def _scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of six bits, in twelve bytes."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    top, low = np.uint8(0x30), np.uint8(0x0F)
    scales = [first & np.uint8(63), (third & low) | ((first >> np.uint8(2)) & top)]
    minima = [second & np.uint8(63), (third >> np.uint8(4)) | ((second >> np.uint8(2)) & top)]
    return np.concatenate(scales, axis=1), np.concatenate(minima, axis=1)


def _with_minima(blocks: Bytes, codes: Bytes, most: int) -> Decoded:
    """Q4_K and Q5_K: scale and minimum of each 32 elements."""
    scales, minima = _scales_and_minima(_part(blocks, 4, 12))
    scale = _half(blocks, 0) * scales.astype(np.float32)
    least = _half(blocks, 2) * minima.astype(np.float32)
    return _flat(affine_blocks(_grouped(codes, 8), scale[..., None], -least[..., None], (0, most)))


def _q4_k(blocks: Bytes) -> Decoded:
    return _with_minima(blocks, _split(_part(blocks, 16, 128), 32, _LOW_HIGH, 15), 15)


def _q5_k(blocks: Bytes) -> Decoded:
    low = _split(_part(blocks, 48, 128), 32, _LOW_HIGH, 15)
    fifth = _split(_part(blocks, 16, 32), 32, _BITS, 1)
    return _with_minima(blocks, low | (fifth << np.uint8(4)), 31)


def _q6_k(blocks: Bytes) -> Decoded:
    low = _split(_part(blocks, 0, 128), 64, _LOW_HIGH, 15)
    high = _split(_part(blocks, 128, 64), 32, _QUARTERS, 3)
    codes = _grouped(low | (high << np.uint8(4)), 16) - np.int8(32)
    scales = _part(blocks, 192, 16).view(np.int8).astype(np.float32)
    scale = (_half(blocks, 208) * scales)[..., None]
    return _flat(affine_blocks(codes, scale, 0.0, (-32, 31)))


# --- codebooks ------------------------------------------------------------------------------------


def _iq4_nl(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 2, 16), 16, _LOW_HIGH, 15)
    return codebook(codes, _NON_LINEAR, _half(blocks, 0))


def _iq4_xs(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 8, 128), 16, _LOW_HIGH, 15).reshape(len(blocks), 8, 32)
    low = _split(_part(blocks, 4, 4), 1, _LOW_HIGH, 15)
    high = _split(_part(blocks, 2, 2), 1, _QUARTERS, 3)
    scales = (low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)
    scale = _half(blocks, 0) * scales.astype(np.float32)
    return _flat(codebook(codes, _NON_LINEAR, scale[..., None]))


def _mxfp4(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 1, 16), 16, _LOW_HIGH, 15)
    exponent = _part(blocks, 0, 1).astype(np.int32) - 128  # of half the scale: the levels are twice
    return codebook(codes, _FP4, np.ldexp(np.float32(1), exponent))


def _nvfp4(blocks: Bytes) -> Decoded:
    codes = _split(_part(blocks, 4, 32), 8, _LOW_HIGH, 15).reshape(len(blocks), 4, 16)
    scale = _UNSIGNED_E4M3[_part(blocks, 0, 4)]
    return _flat(codebook(codes, _FP4, scale[..., None]))


def _unsigned_e4m3() -> Floats:
    """Half the value of each byte as an unsigned e4m3; ggml reads 0x7f, its NaN, as 0."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    value = np.where(exponent == 0, np.ldexp(mantissa / 1.0, -9), normal) / 2
    value[0x7F] = 0
    return value.astype(np.float32)


_UNSIGNED_E4M3 = _unsigned_e4m3()


# --- vector types, whose values have no neighbours, and floats ------------------------------------


def _by_library(name: str) -> Callable[[Bytes], Decoded]:
    """A type that the `gguf` package reads: codes of several elements at once."""

    def decode(blocks: Bytes) -> Decoded:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        contiguous = np.ascontiguousarray(blocks)
        return Decoded(dequantize(contiguous, GGMLQuantizationType[name]))

    return decode


def _floats(dtype: str) -> Callable[[Bytes], Decoded]:
    def decode(blocks: Bytes) -> Decoded:
        return Decoded(np.ascontiguousarray(blocks).view(dtype))

    return decode


def _bf16(blocks: Bytes) -> Decoded:
    codes = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
    return Decoded((codes << np.uint32(16)).view(np.float32))


TYPES = {
    0: Type("F32", 1, 4, _floats("<f4"), floats=True),
    1: Type("F16", 1, 2, _floats("<f2"), floats=True),
    2: Type("Q4_0", 32, 18, _q4_0),
    3: Type("Q4_1", 32, 20, _q4_1),
    6: Type("Q5_0", 32, 22, _q5_0),
    7: Type("Q5_1", 32, 24, _q5_1),
    8: Type("Q8_0", 32, 34, _q8_0),
    10: Type("Q2_K", 256, 84, _q2_k),
    11: Type("Q3_K", 256, 110, _q3_k),
    12: Type("Q4_K", 256, 144, _q4_k),
    13: Type("Q5_K", 256, 176, _q5_k),
    14: Type("Q6_K", 256, 210, _q6_k),
    16: Type("IQ2_XXS", 256, 66, _by_library("IQ2_XXS"), by_library=True),
    17: Type("IQ2_XS", 256, 74, _by_library("IQ2_XS"), by_library=True),
    18: Type("IQ3_XXS", 256, 98, _by_library("IQ3_XXS"), by_library=True),
    19: Type("IQ1_S", 256, 50, _by_library("IQ1_S"), by_library=True),
    20: Type("IQ4_NL", 32, 18, _iq4_nl),
    21: Type("IQ3_S", 256, 110, _by_library("IQ3_S"), by_library=True),
    22: Type("IQ2_S", 256, 82, _by_library("IQ2_S"), by_library=True),
    23: Type("IQ4_XS", 256, 136, _iq4_xs),
    24: Type("I8", 1, 1, None),
    25: Type("I16", 1, 2, None),
    26: Type("I32", 1, 4, None),
    27: Type("I64", 1, 8, None),
    28: Type("F64", 1, 8, _floats("<f8"), floats=True),
    29: Type("IQ1_M", 256, 56, _by_library("IQ1_M"), by_library=True),
    30: Type("BF16", 1, 2, _bf16, floats=True),
    34: Type("TQ1_0", 256, 54, _tq1_0),
    35: Type("TQ2_0", 256, 66, _tq2_0),
    39: Type("MXFP4", 32, 17, _mxfp4),
    40: Type("NVFP4", 64, 36, _nvfp4),
}
"""By the number in the file."""
