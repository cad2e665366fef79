"""The tensors of a GGUF model, in one file or in the several that it was split into."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

import numpy as np

from qdebug.arithmetic.grids import Decoded
from qdebug.errors import FieldError, MissingExtraError, QdebugError, locate
from qdebug.names import printable, shown
from qdebug.sources.gguf.header import Header, StoredTensor, read_header
from qdebug.sources.gguf.types import TYPES, Type
from qdebug.sources.storage import absolute, open_file
from qdebug.sources.tensors import Files, Rows, Span, Tensor, Weights

# As `gguf-split` names the files of one model.
_SPLIT = re.compile(r"(.*-)(\d{5})(-of-)(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)

# What a model says of itself, and the name that other formats have for it.
_FACTS = {
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file; see `tensors.Tensor`."""

    name: str
    shape: tuple[int, ...]
    type: int
    span: Span
    divisible = True

    @property
    def encoding(self) -> str:
        """The type's name."""
        return TYPES[self.type].name

    @property
    def floats(self) -> bool:
        """Whether its type is one of floats."""
        return TYPES[self.type].floats

    def open(self, files: Files) -> Rows:
        """A function that reads and decodes rows."""
        kind, columns = TYPES[self.type], self.shape[-1] if self.shape else 1
        blocks = columns // kind.block
        decode = kind.decode
        assert decode is not None

        def rows(start: int, stop: int) -> Decoded:
            bytes_of_row = blocks * kind.size
            data = files.read(self.span, start * bytes_of_row, (stop - start) * bytes_of_row)
            with np.errstate(over="ignore", invalid="ignore"):  # scales that are NaN or infinite
                found = decode(data.reshape(-1, kind.size))
            return found.mapped(lambda array: array.reshape(stop - start, columns))

        return rows


def open_gguf(path: str) -> Weights:
    """The tensors of a GGUF file, and of those that it was split into.

    Args:
        path: of the file, or of any one of those of a split model.

    Raises:
        QdebugError: no file can be read, or one is malformed.
    """
    paths = _siblings(path)
    files: list[str] = []
    problems: list[str] = []
    tensors: dict[str, Tensor] = {}
    skipped: list[tuple[str, str]] = []
    facts: dict[str, str | int] = {}
    for each in paths:
        try:
            with open_file(each) as file:
                header = read_header(file, each)
        except OSError as error:
            problems.append(f"{shown(each)}: {printable(str(error.strerror or error))}")
            continue
        files.append(each)
        facts |= _facts(header)
        spans = []
        for stored in header.tensors:
            found = _tensor(stored, each)
            if isinstance(found, str):
                skipped.append((stored.name, found))
                continue
            if isinstance(found, MissingExtraError):
                problems += [str(found)] * (str(found) not in problems)
                continue
            if stored.name in tensors:
                reason = "found it in two of the model's files, expected different names"
                raise locate(reason, file=shown(each), layer=shown(stored.name))
            spans.append(found)
            tensors[stored.name] = found
        _check_apart(spans, header.size)
    if not files:
        raise QdebugError("; ".join(problems))
    return Weights(files, tensors, skipped, problems, facts=facts)


def _siblings(path: str) -> list[str]:
    """All files of a model that was split."""
    found = _SPLIT.fullmatch(path)
    if not found or not 0 < int(found[2]) <= int(found[4]):
        return [path]
    head, _, of, count, tail = found.groups()
    return [f"{head}{number:05}{of}{count}{tail}" for number in range(1, int(count) + 1)]


def _facts(header: Header) -> dict[str, str | int]:
    architecture = header.facts.get("general.architecture")
    if not isinstance(architecture, str):
        return {}
    found: dict[str, str | int] = {"architecture": architecture}
    for name, other in _FACTS.items():
        number = header.facts.get(f"{architecture}.{name}")
        if isinstance(number, int):
            found[other] = number
    return found


def _tensor(stored: StoredTensor, path: str) -> GgufTensor | MissingExtraError | str:
    """A tensor, or why it cannot be read, or the reason to leave it out.

    Raises:
        LayerError: the file contradicts itself.
    """
    kind: Type | None = TYPES.get(stored.type)
    if kind is None:
        return f"its GGUF type {stored.type} is not known"
    if kind.decode is None:
        return f"numbers of type {kind.name}"
    if kind.by_library and find_spec("gguf") is None:
        return MissingExtraError(f"{shown(path)}: tensors of type {kind.name} need", "gguf")
    columns = stored.shape[-1] if stored.shape else 1
    if columns % kind.block:
        error = FieldError(
            "shape",
            found=f"rows of {columns}",
            expected=f"a multiple of {kind.block}, the block of {kind.name}",
        )
        raise locate(error, file=shown(path), layer=shown(stored.name))
    size = math.prod(stored.shape) // kind.block * kind.size
    span = Span(path, absolute(path), stored.start, size)
    return GgufTensor(stored.name, stored.shape, stored.type, span)


def _check_apart(tensors: Sequence[GgufTensor], size: int) -> None:
    """Check that all tensors lie in the file, and no two share bytes.

    Raises:
        LayerError: they do not.
    """
    filled = [tensor for tensor in tensors if tensor.span.size]
    in_order = sorted(filled, key=lambda tensor: tensor.span.start)
    for one, other in pairwise(in_order):
        if one.span.start + one.span.size > other.span.start:
            error = f"its data overlaps that of '{shown(other.name)}'"
            raise locate(error, file=shown(one.span.path), layer=shown(one.name))
    for last in in_order[-1:]:
        if last.span.start + last.span.size > size:
            error = (
                f"the file ends too early: found {size} bytes, expected "
                f"{last.span.start + last.span.size} at least"
            )
            raise locate(error, file=shown(last.span.path), layer=shown(last.name))
