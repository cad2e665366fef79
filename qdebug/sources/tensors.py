"""Tensors of weight files, whatever the format: their names, and their rows as floats and cells."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded
from qdebug.errors import LayerError
from qdebug.names import printable, shown
from qdebug.sources.storage import open_file

# Rows `start` to `stop` of a tensor as a matrix: all axes but the last one together are its rows.
Rows = Callable[[int, int], Decoded]


class Tensor(Protocol):
    """One tensor of a weight file, without its data; it travels to other processes."""

    @property
    def name(self) -> str:
        """As in the file: untrusted data."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In C order; the last axis is the one that a matrix product sums over."""

    @property
    def encoding(self) -> str:
        """How it is stored, as people call it: ``F16``, ``Q4_K``, ``GPTQ int4, groups of 128``."""

    @property
    def floats(self) -> bool:
        """Whether it holds floats that no quantizer made."""

    @property
    def divisible(self) -> bool:
        """Whether some of its rows can be read without the others."""

    def open(self, files: "Files") -> Rows:
        """A function that reads and decodes rows; floats have no cells.

        Raises:
            LayerError: the file cannot be read any more; so does the function.
            FieldError: what it holds makes no tensor; so does the function.
        """


@dataclass(frozen=True)
class Weights:
    """What a weight file, or the files of one model, hold.

    Attributes:
        files: by the names the user gave them.
        tensors: by name, in the file's order.
        skipped: name and reason of each tensor that cannot be read.
        problems: one line per file that could not be read at all.
        notes: what the user should know, one line each.
        facts: of the model, as far as the file says: ``architecture``, ``num_attention_heads``.
    """

    files: Sequence[str]
    tensors: Mapping[str, Tensor]
    skipped: Sequence[tuple[str, str]] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Where some bytes are stored.

    `path` is the user's name for the file; `place` its path for any process.
    """

    path: str
    place: str
    start: int
    size: int


class Files:
    """Files that stay open from their first read until the block ends."""

    def __init__(self) -> None:
        self._open: dict[str, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, span: Span, first: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """Bytes of a span, from its byte `first` on; to its end if no size is given.

        Raises:
            LayerError: the file cannot be read, or ends too early.
        """
        size = span.size - first if size is None else size
        data = np.empty(size, np.uint8)
        try:
            if span.place not in self._open:
                self._open[span.place] = self._stack.enter_context(open_file(span.place))
            file = self._open[span.place]
            file.seek(span.start + first)
            done = 0
            while done < size and (count := file.readinto(data[done:])):  # type: ignore[attr-defined]
                done += count
        except OSError as error:
            reason = printable(str(error.strerror or error))
            raise LayerError(f"{shown(span.path)}: {reason}") from None
        if done < size:
            raise LayerError(f"{shown(span.path)}: the file ends too early")
        return data
