"""CRC-32 of data read in ranges, possibly by several threads or machines."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

# The polynomial of CRC-32, and x^0; the highest power is in bit 0, as in zip files.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31

# The message for a checksum that does not match.
DISAGREES = "its checksum (CRC-32) does not agree with its data"


@dataclass(frozen=True)
class RangeSum:
    """CRC-32 of a byte range within a whole whose size and expected CRC-32 are known.

    Attributes:
        whole: any name that identifies the whole.
        start: of the range, in bytes.
        size: of the range, in bytes.
        crc: of the range.
        whole_size: of the whole, in bytes.
        whole_crc: the expected CRC-32 of the whole.
    """

    whole: str
    start: int
    size: int
    crc: int
    whole_size: int
    whole_crc: int


def agree(sums: Iterable[RangeSum]) -> bool:
    """Whether the ranges add up to wholes, each with its expected CRC-32.

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
    """CRC-32 of two consecutive pieces, from the CRC-32 of each.

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
