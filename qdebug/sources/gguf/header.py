"""The header of a GGUF file: what the model says of itself, and where its tensors are.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. All numbers are little-endian.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from qdebug.errors import QdebugError
from qdebug.names import shown

Fact = str | int | float | bool

_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MOST_AXES = 4

# Code, size and struct format of the metadata's numbers.
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9

# Facts are names and numbers; longer texts (licences, chat templates) are passed over.
_LONGEST_FACT = 1 << 10

# Names that are longer than the format's 64 bytes are met; these are no names.
_LONGEST_NAME = 1 << 16

# Bytes read at a time.
_CHUNK = 1 << 20

# The least that one entry takes: of the metadata, and of the tensors.
_LEAST_FACT, _LEAST_TENSOR = 13, 24


@dataclass(frozen=True)
class StoredTensor:
    """One tensor's entry: `shape` in C order, `start` from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class Header:
    """What the file says of itself, its tensors, and its size in bytes."""

    facts: Mapping[str, Fact]
    tensors: Sequence[StoredTensor]
    size: int


class _MalformedError(Exception):
    """What is wrong with the bytes."""


def read_header(file: BinaryIO, path: str) -> Header:
    """The header of a GGUF file.

    Args:
        file: at its beginning.
        path: the user's name for it.

    Raises:
        QdebugError: it is no GGUF file, or its header is malformed.
    """
    try:
        return _Reader(file).header()
    except _MalformedError as error:
        raise QdebugError(f"{shown(path)}: {error}") from None


class _Reader:
    """Reads forward, a chunk at a time, and never past the end of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)
        self._next = 0  # the file's position of the next chunk
        self._chunk, self._place = b"", 0

    def header(self) -> Header:
        if self._left() < 4 or self._take(4) != b"GGUF":
            raise _MalformedError("found no GGUF header, expected a .gguf file")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            found = "big-endian numbers" if swapped in _VERSIONS else f"GGUF version {version}"
            raise _MalformedError(f"found {found}, expected version 2 or 3, little-endian")
        tensors, facts = self._numbers("QQ")
        for what, count, least in (
            ("metadata entries", facts, _LEAST_FACT),
            ("tensors", tensors, _LEAST_TENSOR),
        ):
            if count * least > self._left():
                raise _MalformedError(
                    f"found {count} {what}, expected as many as the file has room for"
                )
        known: dict[str, Fact] = {}
        for _ in range(facts):
            name = self._text(_LONGEST_NAME)
            value = self._value(*self._numbers("I"))
            if value is not None:
                known[name] = value
        alignment = known.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _MalformedError(f"general.alignment: found {alignment}, expected a power of two")
        entries = [self._tensor() for _ in range(tensors)]
        place = self._next - len(self._chunk) + self._place
        data = -(-place // alignment) * alignment
        moved = [StoredTensor(e.name, e.shape, e.type, data + e.start) for e in entries]
        _check_names(moved)
        return Header(known, moved, self._size)

    def _left(self) -> int:
        return self._size - self._next + len(self._chunk) - self._place

    def _take(self, size: int) -> bytes:
        if size > self._left():
            raise _MalformedError("the file ends too early")
        if self._place + size > len(self._chunk):
            more = max(_CHUNK, size)
            kept = self._chunk[self._place :]
            read = self._file.read(more)
            self._next += len(read)
            self._chunk, self._place = kept + read, 0
            if size > len(self._chunk):
                raise _MalformedError("the file ends too early")
        self._place += size
        return self._chunk[self._place - size : self._place]

    def _skip(self, size: int) -> None:
        if size > self._left():
            raise _MalformedError("the file ends too early")
        if self._place + size <= len(self._chunk):
            self._place += size
            return
        place = self._next - len(self._chunk) + self._place + size
        self._file.seek(place)
        self._next, self._chunk, self._place = place, b"", 0

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))

    def _text(self, longest: int) -> str:
        (size,) = self._numbers("Q")
        if size > longest:
            raise _MalformedError(f"found a name of {size} bytes, expected at most {longest}")
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            raise _MalformedError("found a name that is not UTF-8") from None

    def _value(self, kind: int) -> Fact | None:
        """A number or a short text; None for what is passed over."""
        if kind in _NUMBERS:
            (number,) = self._numbers(_NUMBERS[kind])
            return number
        if kind == _STRING:
            (size,) = self._numbers("Q")
            if size > _LONGEST_FACT:
                self._skip(size)
                return None
            return self._take(size).decode(errors="replace")
        if kind == _ARRAY:
            self._skip_array()
            return None
        raise _MalformedError(f"found metadata of type {kind}, expected 0 to 12")

    def _skip_array(self) -> None:
        kind, count = self._numbers("IQ")
        if kind in _NUMBERS:
            self._skip(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
        elif kind == _STRING:
            if count * 8 > self._left():
                raise _MalformedError(
                    f"found {count} texts, expected as many as the file has room for"
                )
            for _ in range(count):
                self._skip(int.from_bytes(self._take(8), "little"))
        else:
            raise _MalformedError(f"found an array of type {kind}, expected numbers or texts")

    def _tensor(self) -> StoredTensor:
        name = self._text(_LONGEST_NAME)
        (axes,) = self._numbers("I")
        if axes > _MOST_AXES:
            found = f"found {axes} axes, expected {_MOST_AXES} at most"
            raise _MalformedError(f"tensor '{shown(name)}': {found}")
        # The first axis is the innermost one.
        shape = tuple(reversed(self._numbers(f"{axes}Q")))
        kind, start = self._numbers("IQ")
        if math.prod(shape) >= 2**63:
            raise _MalformedError(
                f"tensor '{shown(name)}': found shape {shape}, expected fewer elements"
            )
        return StoredTensor(name, shape, kind, start)


def _check_names(tensors: Sequence[StoredTensor]) -> None:
    for one, other in pairwise(sorted(tensor.name for tensor in tensors)):
        if one == other:
            raise _MalformedError(
                f"tensor '{shown(one)}': found it twice, expected different names"
            )
