"""The header of a safetensors file: its arrays' names, types, shapes and places.

Layout: https://huggingface.co/docs/safetensors. A little-endian number of 8 bytes is the size of
the header, which is JSON; all data follows, without gaps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from qdebug.errors import QdebugError
from qdebug.names import shown
from qdebug.sources.safetensors.json_text import json_object
from qdebug.sources.safetensors.numbers import BITS

# Bound of the format's own reader.
LONGEST_HEADER = 100_000_000

_MOST_ELEMENTS = 1 << 62
_METADATA = "__metadata__"


@dataclass(frozen=True)
class Entry:
    """One array: `start` is counted from the beginning of the file; both sizes are in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class _MalformedError(Exception):
    """What is wrong with the header."""


def read_header(file: BinaryIO, path: str) -> Sequence[Entry]:
    """All arrays of a safetensors file, in the order of its header.

    Args:
        file: open for seeking.
        path: the user's name for it.

    Raises:
        QdebugError: it is no safetensors file, or its header contradicts itself.
        OSError: it cannot be read.
    """
    try:
        return _entries(file, path)
    except _MalformedError as error:
        raise QdebugError(f"{shown(path)}: {error}") from None


def _entries(file: BinaryIO, path: str) -> Sequence[Entry]:
    size = file.seek(0, 2)
    file.seek(0)
    first = file.read(8)
    if len(first) < 8:
        raise _MalformedError(f"found {size} bytes, expected a .safetensors file")
    length = int.from_bytes(first, "little")
    if length > LONGEST_HEADER:
        raise _MalformedError(
            f"found a header of {length} bytes, expected a .safetensors file with one of "
            f"{LONGEST_HEADER} at most"
        )
    text = file.read(length)
    if len(text) < length:
        raise _MalformedError(
            f"the file ends too early: found {size} bytes, expected a header of {length}"
        )
    found = json_object(text, path)
    data = 8 + length
    entries = [
        _entry(name, value, data, size) for name, value in found.items() if name != _METADATA
    ]
    _check_places(entries, data, size)
    return entries


def _entry(name: str, value: Any, data: int, file_size: int) -> Entry:
    """One array of the header.

    Raises:
        _MalformedError: what the header says of it makes no sense.
    """
    fields = value if isinstance(value, dict) else {}
    dtype = fields.get("dtype")
    if not isinstance(dtype, str):
        raise _wrong(name, "dtype", dtype, "a type's name")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not _are_counts(shape):
        raise _wrong(name, "shape", shape, "a list of whole numbers, 0 or more")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _wrong(name, "data_offsets", offsets, "a start and an end")
    elements, size = math.prod(shape), offsets[1] - offsets[0]
    if elements >= _MOST_ELEMENTS:
        raise _wrong(name, "shape", shape, "fewer elements")
    if dtype in BITS and size * 8 != elements * BITS[dtype]:
        expected = f"{elements * BITS[dtype] / 8:.15g} for {dtype} of shape {tuple(shape)}"
        raise _wrong(name, "data_offsets", f"{size} bytes", expected)
    if data + offsets[1] > file_size:
        raise _MalformedError(
            f"tensor '{shown(name)}': the file ends too early: found {file_size} bytes, expected "
            f"{data + offsets[1]}"
        )
    return Entry(name, dtype, tuple(shape), data + offsets[0], size)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _wrong(name: str, field: str, found: Any, expected: str) -> _MalformedError:
    what = found if isinstance(found, str) else "none" if found is None else repr(found)
    return _MalformedError(
        f"tensor '{shown(name)}': field '{field}': found {shown(what)}, expected {expected}"
    )


def _check_places(entries: Sequence[Entry], data: int, file_size: int) -> None:
    """Check that the arrays fill the file, one after the other.

    Raises:
        _MalformedError: they do not.
    """
    end, before = data, "the header"
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.size)):
        if entry.start != end:
            what = "its data overlaps that of" if entry.start < end else "found a gap after"
            raise _MalformedError(f"tensor '{shown(entry.name)}': {what} {before}")
        end, before = entry.start + entry.size, f"'{shown(entry.name)}'"
    if end != file_size:
        raise _MalformedError(
            f"found {file_size - end} bytes after {before}, expected the end of the file"
        )
