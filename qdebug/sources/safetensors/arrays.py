"""Arrays as a safetensors file stores them, and tensors that are nothing but one of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded, codebook
from qdebug.sources.safetensors.numbers import BITS, FLOATS, LEVELS, as_numbers
from qdebug.sources.tensors import Files, Rows, Span


@dataclass(frozen=True)
class Array:
    """One array of a file, without its data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: Span

    @property
    def columns(self) -> int:
        """Length of the last axis; 1 for a single number."""
        return self.shape[-1] if self.shape else 1

    def raw(self, files: Files, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes of the elements from `start` to `stop`, of a type of whole bytes.

        Raises:
            LayerError: the file cannot be read.
        """
        size = BITS[self.dtype] // 8
        return files.read(self.span, start * size, (stop - start) * size)

    def rows(self, files: Files, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` of the array as a matrix (rows, columns)."""
        columns = self.columns
        data = self.raw(files, start * columns, stop * columns)
        return as_numbers(self.dtype, data).reshape(stop - start, columns)

    def read(self, files: Files) -> NDArray[Any]:
        """The whole array."""
        data = self.raw(files, 0, math.prod(self.shape))
        return as_numbers(self.dtype, data).reshape(self.shape)


@dataclass(frozen=True)
class PlainTensor:
    """A tensor of floats; those of 8 bits are a codebook without scales, see `tensors.Tensor`."""

    array: Array
    divisible = True

    @property
    def name(self) -> str:
        """As in the file."""
        return self.array.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file."""
        return self.array.shape

    @property
    def encoding(self) -> str:
        """The type of its numbers."""
        return self.array.dtype if self.floats else f"{self.array.dtype} without scales"

    @property
    def floats(self) -> bool:
        """Whether they have more than 8 bits."""
        return self.array.dtype in FLOATS

    def open(self, files: Files) -> Rows:
        """A function that reads rows."""

        def floats(start: int, stop: int) -> Decoded:
            return Decoded(self.array.rows(files, start, stop))

        def codes(start: int, stop: int) -> Decoded:
            columns = self.array.columns
            found = self.array.raw(files, start * columns, stop * columns)
            levels = LEVELS[self.array.dtype]
            return codebook(found.reshape(stop - start, columns), levels, np.ones((), np.float32))

        return floats if self.floats else codes
