"""Codes of few bits in bytes and words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpacked(words: NDArray[Any], bits: int, count: int) -> NDArray[np.uint8]:
    """The first `count` codes of each row; the first one is in the lowest bits.

    The words of a row are a stream of bits, so a code of 3 bits may lie in two of them.

    >>> unpacked(np.array([[0x76543210]], "<i4"), 4, 8)
    array([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=uint8)

    Args:
        words: of any whole number of bytes, little-endian; shape (rows, words).
        bits: of a code, 8 at most.
        count: of codes that a row has.
    """
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return data[:, :count]
    if bits == 4:
        codes = np.empty((*data.shape, 2), np.uint8)
        np.bitwise_and(data, 0xF, out=codes[..., 0])
        np.right_shift(data, 4, out=codes[..., 1])
        return codes.reshape(len(data), data.shape[1] * 2)[:, :count]
    stream = np.unpackbits(data, axis=1, count=count * bits, bitorder="little")
    each = stream.reshape(len(data), count, bits)
    return np.packbits(each, axis=2, bitorder="little")[..., 0]


def words_for(count: int, bits: int) -> int:
    """Words of 32 bits that hold so many codes.

    >>> words_for(10, 3)
    1
    """
    return -(-count * bits // 32)


def bits_of(words: int, count: int, given: int | None) -> int | None:
    """Bits of a code, if `count` codes fill that many words of 32 bits; None if no number does.

    >>> bits_of(512, 4096, None), bits_of(410, 4096, 3)
    (4, None)

    Args:
        words: of one row.
        count: codes of one row.
        given: what the configuration says: decides for rows so short that several numbers fit.
    """
    fitting = [bits for bits in (4, 8, 2, 3, 5, 6, 7) if words_for(count, bits) == words]
    return given if given in fitting else next(iter(fitting), None)
