"""Bins: extremes of a slab, and counts in bins of float32 numbers; compiled or in NumPy.

A bin's number is the exponent and the first mantissa bits of a float32, whatever its sign.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import Float64Array
from qdebug.measure.kernel.arrays import known, place, readable
from qdebug.measure.kernel.library import library

FLOAT32_MANTISSA_BITS = 23
_FLOAT32_MAX = np.finfo(np.float32).max


def extremes(floats: NDArray[Any]) -> tuple[Float64Array, Float64Array]:
    """Least and largest finite element of (outer, channels, inner), each of shape (channels,).

    They are infinite, positive and negative, if there is none.
    """
    low, high = np.full(floats.shape[1], np.inf), np.full(floats.shape[1], -np.inf)
    kernel = library()
    if kernel is not None and known(floats):
        floats = readable(floats)
        slab = (*place(floats), *floats.shape)
        kernel.qdebug_extremes(*slab, low.ctypes.data, high.ctypes.data)
        return low, high
    finite = np.isfinite(floats)
    for ends, reduce in ((low, np.minimum), (high, np.maximum)):
        ends[:] = reduce.reduce(floats, axis=(0, 2), where=finite, initial=ends[0])
    return low, high


def in_units(values: NDArray[Any], unit: Float64Array) -> NDArray[np.float32]:
    """Values over `unit`, as finite float32 if they are finite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        near = (values / unit).astype(np.float32)
        return np.clip(near, -_FLOAT32_MAX, _FLOAT32_MAX)


def numbers(values: NDArray[np.float32], mantissa_bits: int) -> NDArray[np.int64]:
    """The number of each value's bin, whatever its sign."""
    shift = FLOAT32_MANTISSA_BITS - mantissa_bits
    return (np.abs(values).view(np.uint32) >> shift).astype(np.int64)


def count(
    counts: NDArray[np.int64],
    floats: NDArray[Any],
    unit: Float64Array,
    first: NDArray[np.int64],
    mantissa_bits: int,
) -> None:
    """Add the finite elements of a slab to `counts`.

    Args:
        counts: of shape (channels, 2, bins): elements from zero on, and negative ones.
        floats: of shape (outer, channels, inner).
        unit: what the elements are counted in, shape (channels,).
        first: the number of the lowest bin, shape (channels,); what lies below or beyond the bins
            is in the nearest.
        mantissa_bits: of a bin's number.
    """
    channels, _, bins = counts.shape
    kernel = library()
    if kernel is not None and known(floats):
        floats = readable(floats)
        assert counts.flags.c_contiguous
        kernel.qdebug_count(
            *(*place(floats), *floats.shape),
            *(unit.ctypes.data, first.ctypes.data, mantissa_bits),
            *(bins, counts.ctypes.data),
        )
        return
    rows = floats.transpose(1, 0, 2).reshape(channels, -1)
    values = in_units(rows, unit[:, None])
    places = np.clip(numbers(values, mantissa_bits) - first[:, None], 0, bins - 1)
    places += (values < 0) * bins
    places += np.arange(channels)[:, None] * (2 * bins)
    found = np.bincount(places[np.isfinite(rows)], minlength=counts.size)
    counts += found.reshape(counts.shape)
