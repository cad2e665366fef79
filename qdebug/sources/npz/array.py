"""One array in an .npz file, read forward in pieces. Knows nothing about layers."""

import ast
import math
import operator
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError
from qdebug.measure.slabs import BLOCK_ELEMENTS
from qdebug.sources.npz.checksum import RangeSum
from qdebug.sources.npz.member import Member, MemberReader, find_member
from qdebug.sources.npz.transpose import in_c_order

# What parsing a malformed header may raise.
_NO_HEADER = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    RecursionError,
)

# A deprecated name for bytes: NumPy warns about it and never writes it.
_OLD_TEXT = re.compile(r"[<>=|]?a\d*")

# NumPy's own limit.
_MOST_AXES = 64

# Headers are padded to a multiple of 64 bytes; a short type and shape take two such lines.
_USUAL_HEADER = 128

# Of the .npy format.
_VERSIONS = (1, 2, 3)

# Longer .npy headers are refused; numpy.load has the same limit.
_MAX_HEADER = 10_000


@dataclass(frozen=True)
class StoredArray:
    """Where an array is stored and what its header says."""

    member: Member
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    header_size: int


def read_header(file: BinaryIO, field: str, info: zipfile.ZipInfo) -> StoredArray:
    """What an array's .npy header says, checked against the size of its data.

    Raises:
        FieldError: it is not an array of plain numbers; the message names `field`.
        BrokenMemberError: the zip is broken here.
    """
    member = find_member(file, info)
    reader = MemberReader(file, member)
    # Magic, version and the length of the header come first: 10 bytes, 12 from version 2 on.
    start = reader.read(_USUAL_HEADER)
    if len(start) < 12 or start[:6] != b"\x93NUMPY":
        raise FieldError(field, found="no .npy array", expected="one, as numpy.savez writes it")
    if start[6] not in _VERSIONS:
        raise FieldError(field, found=f".npy version {start[6]}", expected="1, 2 or 3")
    prefix = 10 if start[6] == 1 else 12
    size = int.from_bytes(start[8:prefix], "little")
    if size > _MAX_HEADER:
        raise FieldError(
            field, found=f"a .npy header of {size} bytes", expected=f"at most {_MAX_HEADER}"
        )
    text = (start[prefix:] + reader.read(prefix + size - len(start)))[:size]
    header = _parsed(text)
    if header is None:
        raise FieldError(
            field, found=f"the .npy header {text[:60]!r}", expected="dtype, order and shape"
        )
    dtype, shape, fortran = header
    if dtype.hasobject:
        raise FieldError(field, found="pickled objects", expected="an array of numbers")
    if len(shape) > _MOST_AXES or not all(0 <= length < 2**63 for length in shape):
        raise FieldError(
            field,
            found=f"{member.size} bytes",
            expected=f"the size that its .npy header implies ({text[:60]!r})",
        )
    header_size = prefix + size
    expected = header_size + math.prod(shape) * dtype.itemsize
    if not dtype.itemsize or member.size != expected:
        raise FieldError(
            field,
            found=f"{member.size} bytes",
            expected=f"{expected} for {dtype} of shape {shape} and its header",
        )
    return StoredArray(member, dtype, shape, fortran, header_size)


@lru_cache(maxsize=1024)  # thousands of layers share a few shapes
def _parsed(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool] | None:
    """Type, shape and order from the text of a .npy header; None if it is malformed."""
    try:
        header = ast.literal_eval(text.decode("utf8"))
        descr = str(header["descr"])  # a list of fields is not an array of numbers
        if _OLD_TEXT.fullmatch(descr):
            return None
        return (
            np.dtype(descr),
            tuple(map(operator.index, header["shape"])),
            bool(header["fortran_order"]),
        )
    except _NO_HEADER:
        return None


def read_small(file: BinaryIO, array: StoredArray) -> NDArray[Any]:
    """The whole of an array that is known to be small."""
    return Taker(file, array).take(math.prod(array.shape)).reshape(array.shape)


Take = Callable[[int], NDArray[Any]]


class Taker:
    """Takes elements of an array in the file's order, from `start` on."""

    def __init__(self, file: BinaryIO, array: StoredArray, start: int = 0) -> None:
        """Begin at element `start`; only stored members allow other than 0."""
        skipped = array.header_size + start * array.dtype.itemsize if start else 0
        self._reader = MemberReader(file, array.member, skipped)
        self._header_size = 0 if start else array.header_size
        self._buffer = np.empty(0, array.dtype)

    def take(self, n: int) -> NDArray[Any]:
        """The next n elements, valid until the next call.

        Raises:
            BrokenMemberError: the data ends too early, or differs from its checksum.
        """
        if self._header_size:  # the checksum covers the header too
            self._reader.read(self._header_size)
            self._header_size = 0
        if self._buffer.size < n:
            self._buffer = np.empty(n, self._buffer.dtype)
        taken = self._buffer[:n]
        self._reader.read_into(taken.view(np.uint8))
        return taken

    def range_sum(self) -> RangeSum:
        """The checksum of the bytes taken so far."""
        return self._reader.range_sum()


@contextmanager
def taking_reordered(file: BinaryIO, array: StoredArray) -> Iterator[Take]:
    """A function that takes the next n elements, in C order, of an array in Fortran order.

    The array is first copied to a temporary file, because members cannot be read out of order.
    """
    with tempfile.TemporaryFile(buffering=0) as spool:
        taker, size = Taker(file, array), math.prod(array.shape)
        for start in range(0, size, BLOCK_ELEMENTS):
            spool.write(taker.take(min(BLOCK_ELEMENTS, size - start)).data)
        with in_c_order(spool, array.shape, array.dtype.itemsize) as turned:
            yield lambda n: np.frombuffer(turned.read(n * array.dtype.itemsize), array.dtype)


def taking_flat(values: NDArray[Any]) -> Take:
    """A function that takes the next n elements, in C order, of an array in any order."""
    elements, position = values.flat, 0

    def take(n: int) -> NDArray[Any]:
        nonlocal position
        position += n
        taken: NDArray[Any] = elements[position - n : position]
        return taken

    return take
