"""Measure: the statistics of a block, by the compiled kernel or by NumPy."""

import ctypes
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel import plain
from qdebug.measure.kernel.library import library
from qdebug.measure.layer import Block
from qdebug.measure.statistics import Statistics, no_statistics

# `enum type` of kernel.c, by NumPy's kind and size.
_TYPES = {
    name: place for place, name in enumerate(("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4"))
}

_Array = NDArray[Any]


def measure(block: Block, params: QuantParams) -> Statistics:
    """The statistics of one block, for the block's own channels."""
    found = no_statistics(block.floats.shape[1], block.first_channel)
    add(found, block, params)
    return found


def add(statistics: Statistics, block: Block, params: QuantParams) -> None:
    """Merge a block's statistics into those of its channels, and perhaps others, in place."""
    arrays = [block.floats, block.codes]
    if block.model_float is not None:
        arrays.append(block.model_float)
    kernel = library()
    if kernel is None or any(array.dtype.str[1:] not in _TYPES for array in arrays):
        statistics.absorb(plain.measured(block, params))
    else:
        _run(
            kernel, statistics, [_readable(array) for array in arrays], block.first_channel, params
        )


def _readable(array: _Array) -> _Array:
    """The array as the kernel reads it: C order, aligned, in the machine's byte order."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def _run(
    kernel: ctypes.CDLL,
    statistics: Statistics,
    arrays: list[_Array],
    first_channel: int,
    params: QuantParams,
) -> None:
    outer, channels, inner = arrays[0].shape
    assert all(array.shape == (outer, channels, inner) for array in arrays)
    here = slice(first_channel, first_channel + channels)
    scale, zero_point = params.scale[here], params.zero_point[here]
    table = statistics.table[:, first_channel - statistics.first_channel :]
    assert scale.shape == (channels,)
    assert table.shape[1] >= channels
    assert statistics.table.flags.c_contiguous
    types = [(array.ctypes.data, _TYPES[array.dtype.str[1:]]) for array in arrays]
    kernel.qdebug_measure(
        *(value for pair in types for value in pair),
        *(() if len(arrays) == 3 else (None, 0)),
        *(outer, channels, inner),
        *(scale.ctypes.data, zero_point.ctypes.data),
        *params.code_range,
        params.rounding == "half_even",
        table.ctypes.data,
        statistics.table.shape[1],
    )
