"""One array in an .npz file, read forwards in pieces. Knows nothing of layers."""

import ast
import math
import operator
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError
from qdebug.sources.slabs import BLOCK_ELEMENTS
from qdebug.sources.zip_member import open_member

# What reading a header that is none may raise.
_NO_HEADER = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    RecursionError,
)

# NumPy's own limit.
_MOST_AXES = 64

# A longer .npy header is no header: numpy.load has the same limit.
_MAX_HEADER = 10_000


@dataclass(frozen=True)
class StoredArray:
    """Where an array stands and what its header says."""

    path: str
    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    header_size: int


def read_header(path: str, field: str, info: zipfile.ZipInfo) -> StoredArray:
    """What an array's .npy header says, checked against the size of its data.

    Raises:
        FieldError: no array of plain numbers; `field` is for the message.
        BrokenMemberError: the zip is broken here.
    """
    with open_member(path, info) as member:
        # Magic, version and the length of the header come first: 10 bytes, 12 from version 2 on.
        start = member.read(10)
        if len(start) < 10 or start[:6] != b"\x93NUMPY":
            raise FieldError(field, found="no .npy array", expected="one, as numpy.savez writes it")
        size = int.from_bytes(start[8:10], "little")
        if start[6] > 1:
            size |= int.from_bytes(member.read(2), "little") << 16
        if size > _MAX_HEADER:
            raise FieldError(
                field, found=f"a .npy header of {size} bytes", expected=f"at most {_MAX_HEADER}"
            )
        text = member.read(size)
    try:
        header = ast.literal_eval(text.decode("utf8"))
        dtype = np.dtype(str(header["descr"]))  # a list of fields is no array of numbers
        shape = tuple(map(operator.index, header["shape"]))
        fortran = bool(header["fortran_order"])
    except _NO_HEADER:
        raise FieldError(
            field, found=f"the .npy header {text[:60]!r}", expected="dtype, order and shape"
        ) from None
    if dtype.hasobject:
        raise FieldError(field, found="pickled objects", expected="an array of numbers")
    if len(shape) > _MOST_AXES or not all(0 <= length < 2**63 for length in shape):
        raise FieldError(
            field,
            found=f"{info.file_size} bytes",
            expected=f"as many as the shape in its .npy header needs ({text[:60]!r})",
        )
    header_size = (10 if start[6] == 1 else 12) + size
    expected = header_size + math.prod(shape) * dtype.itemsize
    if not dtype.itemsize or info.file_size != expected:
        raise FieldError(
            field,
            found=f"{info.file_size} bytes",
            expected=f"{expected} for {dtype} of shape {shape} and its header",
        )
    return StoredArray(path, info, dtype, shape, fortran, header_size)


def read_small(array: StoredArray) -> NDArray[Any]:
    """All of an array that is known to be small."""
    with open_member(array.path, array.info) as member:
        member.read(array.header_size)
        data = member.read(array.info.file_size - array.header_size)
    return np.frombuffer(data, array.dtype).reshape(array.shape)


Take = Callable[[int], NDArray[Any]]


@contextmanager
def taking(array: StoredArray) -> Iterator[Take]:
    """A function that takes the next n elements, in the file's order."""
    with open_member(array.path, array.info) as member:
        member.read(array.header_size)
        yield lambda n: np.frombuffer(member.read(n * array.dtype.itemsize), array.dtype)


@contextmanager
def taking_reordered(array: StoredArray) -> Iterator[Take]:
    """A function that takes the next n elements in C order of an array in Fortran order.

    The array is first copied to a temporary file: members cannot be read out of order.
    """
    with tempfile.TemporaryFile() as spool:
        with taking(array) as take:
            for start in range(0, math.prod(array.shape), BLOCK_ELEMENTS):
                spool.write(take(min(BLOCK_ELEMENTS, math.prod(array.shape) - start)).tobytes())
        spool.flush()
        yield taking_flat(np.memmap(spool, array.dtype, "r", shape=array.shape, order="F"))


def taking_flat(values: NDArray[Any]) -> Take:
    """A function that takes the next n elements in C order of an array in any order."""
    elements, position = values.flat, 0

    def take(n: int) -> NDArray[Any]:
        nonlocal position
        position += n
        taken: NDArray[Any] = elements[position - n : position]
        return taken

    return take
