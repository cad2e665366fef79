"""Scales of tensors, rows, groups and blocks, and which of them an element has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError


@dataclass(frozen=True)
class Blocks:
    """How a matrix is divided into blocks with a scale each.

    Attributes:
        rows: of the matrix.
        columns: of the matrix.
        height: rows of a block.
        width: columns of a block.
    """

    rows: int
    columns: int
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Number of blocks one below the other, and side by side."""
        return -(-self.rows // self.height), -(-self.columns // self.width)

    @property
    def words(self) -> str:
        """What people call it.

        >>> Blocks(4, 256, 1, 128).words, Blocks(4, 256, 1, 256).words, Blocks(4, 8, 4, 8).words
        ('groups of 128', 'per channel', 'per tensor')
        """
        if self.width < self.columns:
            if self.height == 1:
                return f"groups of {self.width}"
            return f"blocks of {self.height} x {self.width}"
        return "per channel" if self.height == 1 and self.rows > 1 else "per tensor"

    def of_rows(self, values: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """One value per block for each element of the rows from `start` to `stop`; it broadcasts.

        >>> Blocks(4, 4, 2, 2).of_rows(np.array([[1, 2], [3, 4]]), 1, 3)
        array([[1, 1, 2, 2],
               [3, 3, 4, 4]])
        """
        table = values.reshape(self.grid)
        picked = table[np.arange(start, stop) // self.height] if len(table) > 1 else table
        if picked.shape[1] == 1:
            return picked
        return np.repeat(picked, self.width, axis=1)[:, : self.columns]


def blocks_of(
    shape: Sequence[int], scales: Sequence[int], part: str, block: tuple[int | None, int | None]
) -> Blocks:
    """The blocks of a weight, from the shape of its scales.

    >>> blocks_of((8, 64), (8, 2), "weight_scale", (None, None))
    Blocks(rows=8, columns=64, height=1, width=32)

    Args:
        shape: of the weight; all axes but the last are its rows.
        scales: shape of the scales: of one axis for rows, else as many as the weight has.
        part: what the scales are called.
        block: rows and columns of a block as the configuration says; the last one of an axis may
            be shorter. None if it says nothing: then all are of equal size.

    Raises:
        FieldError: the scales' shape does not divide the weight's.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    if math.prod(scales) == 1:
        return Blocks(rows, columns, max(rows, 1), max(columns, 1))
    if len(scales) == len(shape):
        grid = math.prod(scales[:-1]), scales[-1]
    elif len(scales) == 1:
        grid = scales[0], 1
    else:
        grid = 0, 0
    height, width = (
        _size(n, count, given) for n, count, given in zip((rows, columns), grid, block, strict=True)
    )
    # Blocks end where the matrix of an expert ends.
    if not height or not width or (len(shape) > 2 and shape[-2] % height and height % shape[-2]):
        raise FieldError(
            part, found=f"shape {tuple(scales)}", expected=f"one that divides {tuple(shape)}"
        )
    return Blocks(rows, columns, height, width)


def _size(elements: int, count: int, given: int | None) -> int:
    """Elements of a block along one axis; 0 if there is no answer."""
    if given and given > 0 and -(-elements // given) == count:
        return given
    return elements // count if count > 0 and elements % count == 0 else 0
