"""CRC-32 of data that was read in ranges, perhaps by several threads or machines."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

# The polynomial of CRC-32 and x^0, with the highest power in bit 0, as zip files have it.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31

# What is wrong where it does not agree, for messages.
DISAGREES = "its checksum (CRC-32) does not agree with its data"


@dataclass(frozen=True)
class RangeSum:
    """CRC-32 of some bytes of a whole whose own CRC-32 and size are known.

    Attributes:
        whole: what it is a range of, by any name.
        start: of the range, in bytes.
        size: of the range.
        crc: of the range.
        whole_size: how many bytes there are in all.
        whole_crc: what the CRC-32 of them all should be.
    """

    whole: str
    start: int
    size: int
    crc: int
    whole_size: int
    whole_crc: int


def agree(sums: Iterable[RangeSum]) -> bool:
    """Whether the ranges make up wholes, each with the CRC-32 that it should have.

    >>> import zlib
    >>> def part(start, data):
    ...     return RangeSum("a", start, len(data), zlib.crc32(data), 6, zlib.crc32(b"abcdef"))
    >>> agree([part(2, b"cdef"), part(0, b"ab")]), agree([part(0, b"ab"), part(2, b"CDEF")])
    (True, False)
    """
    in_order = sorted(sums, key=lambda part: (part.whole, part.start))
    for _, ranges in groupby(in_order, key=lambda part: part.whole):
        size = crc = 0
        for part in ranges:
            if part.start != size:
                return False
            size += part.size
            crc = combined(crc, part.crc, part.size)
        if (size, crc) != (part.whole_size, part.whole_crc):
            return False
    return True


def combined(first: int, second: int, second_size: int) -> int:
    """CRC-32 of two pieces one after the other, from theirs.

    As in zlib's `crc32_combine`: appending n bytes multiplies the first by x^(8n).
    """
    return _times(_power_of_x(8 * second_size), first) ^ second


@lru_cache(maxsize=64)
def _power_of_x(exponent: int) -> int:
    """x^exponent modulo the polynomial, by squaring."""
    result, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            result = _times(result, square)
        square = _times(square, square)
        exponent >>= 1
    return result


def _times(a: int, b: int) -> int:
    """The product of two polynomials over GF(2) modulo CRC-32's."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product
