"""Arrays in a file, turned from Fortran order to C order in little memory. Knows no format."""

import math
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

# Bytes that are read, turned and written at once. Tiles of this size take a thousandth of the
# calls that single elements would, and a large array takes no more memory than a small one.
_TILE = 1 << 23


def in_c_order(file: IO[bytes], shape: tuple[int, ...], itemsize: int) -> IO[bytes]:
    """A temporary file with the elements of `file` in C order, which holds them in Fortran order.

    Fortran order is C order of the axes reversed: axis by axis, from the last on, what comes first
    in the file is put behind all axes that are still reversed. `file` is closed.
    """
    for axis in range(len(shape) - 1, 0, -1):
        item = itemsize * math.prod(shape[axis + 1 :])
        with file:
            target = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller's, or next's
            try:
                _transpose(file, target, (shape[axis], math.prod(shape[:axis])), item)
            except BaseException:
                target.close()
                raise
        file = target
    file.seek(0)
    return file


def _transpose(source: IO[bytes], target: IO[bytes], matrix: tuple[int, int], item: int) -> None:
    """Write a matrix of items of so many bytes, of shape (rows, columns), transposed."""
    rows, columns = matrix
    piece = min(item, _TILE)
    side = max(math.isqrt(_TILE // piece), 1)
    height = min(rows, max(_TILE // (min(columns, side) * piece), 1))
    width = min(columns, max(_TILE // (height * piece), 1))
    for row in range(0, rows, height):
        for column in range(0, columns, width):
            for start in range(0, item, piece):
                size = min(piece, item - start)  # less than an item only where a tile holds one
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
    """What of a tile at (row, column) stands together in a matrix of so many columns, and where."""
    if tile.shape[1] == columns:  # whole rows, one after the other
        yield row * columns, tile
        return
    for i, values in enumerate(tile):
        yield (row + i) * columns + column, values
