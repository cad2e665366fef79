"""Arrays in a file, converted from Fortran to C order in little memory. Knows no format."""

import math
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

# Bytes read, transposed and written at once. Tiles of this size need a thousandth of the calls that
# single elements would, and the memory does not grow with the array.
_TILE = 1 << 23


def in_c_order(file: IO[bytes], shape: tuple[int, ...], itemsize: int) -> IO[bytes]:
    """A temporary file with the elements of `file`, converted from Fortran to C order.

    Fortran order is C order with the axes reversed. Each pass takes one axis, from the last to the
    second: it comes first in the file, and moves behind all axes that are still reversed. `file` is
    closed.
    """
    for axis in range(len(shape) - 1, 0, -1):
        item = itemsize * math.prod(shape[axis + 1 :])
        with file:
            target = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed later
            try:
                _transpose(file, target, (shape[axis], math.prod(shape[:axis])), item)
            except BaseException:
                target.close()
                raise
        file = target
    file.seek(0)
    return file


def _transpose(source: IO[bytes], target: IO[bytes], matrix: tuple[int, int], item: int) -> None:
    """Write the transpose of a matrix (rows, columns) whose items have `item` bytes each."""
    rows, columns = matrix
    piece = min(item, _TILE)
    side = max(math.isqrt(_TILE // piece), 1)
    height = min(rows, max(_TILE // (min(columns, side) * piece), 1))
    width = min(columns, max(_TILE // (height * piece), 1))
    for row in range(0, rows, height):
        for column in range(0, columns, width):
            for start in range(0, item, piece):
                size = min(piece, item - start)  # less than `item` only if a tile holds one item
                tile = np.empty((min(height, rows - row), min(width, columns - column), size), "u1")
                for place, values in _runs(tile, row, column, columns):
                    source.seek(place * item + start)
                    if source.readinto(values) != values.nbytes:  # type: ignore[attr-defined]
                        raise OSError("a temporary file was cut short")
                turned = np.ascontiguousarray(tile.transpose(1, 0, 2))
                for place, values in _runs(turned, column, row, rows):
                    target.seek(place * item + start)
                    target.write(values.data)


def _runs(
    tile: NDArray[np.uint8], row: int, column: int, columns: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The contiguous runs of a tile at (row, column) in a matrix of `columns`, and their place."""
    if tile.shape[1] == columns:  # whole rows, one after the other
        yield row * columns, tile
        return
    for i, values in enumerate(tile):
        yield (row + i) * columns + column, values
