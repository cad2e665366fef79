"""Measure: the statistics of a block, by the compiled kernel or by NumPy."""

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid
from qdebug.measure.kernel import decoded, plain
from qdebug.measure.kernel.arrays import known, place, readable
from qdebug.measure.kernel.library import library
from qdebug.measure.layer import Block
from qdebug.measure.statistics import Statistics, no_statistics

_Array = NDArray[Any]


def measure(block: Block, params: QuantParams) -> Statistics:
    """The statistics of one block, for the block's own channels."""
    found = no_statistics(block.floats.shape[1], block.first_channel)
    add(found, block, params)
    return found


def add(statistics: Statistics, block: Block, params: QuantParams | Grid) -> None:
    """Merge a block's statistics into those of its channels, and perhaps others, in place."""
    if isinstance(params, Grid):
        if not _run_decoded(statistics, block):
            statistics.absorb(decoded.measured(block))
        return
    if block.weights_float is not None:
        _add_split(statistics, block, params)
        return
    if not _run(statistics, block, block.codes, params):
        statistics.absorb(plain.measured(block, params))


def _add_split(statistics: Statistics, block: Block, params: QuantParams) -> None:
    """As `add`, with what the operator's weights and its kernel did."""
    own = no_statistics(block.floats.shape[1], block.first_channel)
    add(own, replace(block, weights_float=None), params)
    if block.weights_float is block.floats:  # no weights
        own.weights_count[:], own.arithmetic_square[:] = own.count, own.carried_square
    else:
        own.weights_count[:], own.weights_square[:], own.arithmetic_square[:] = plain.split(
            block, params
        )
    statistics.absorb(own)


def add_best(statistics: Statistics, block: Block, params: QuantParams) -> None:
    """The same as `add` for a block whose codes are Q(x); its own codes do not matter."""
    if not _run(statistics, block, None, params):
        statistics.absorb(plain.measured(plain.quantized(block, params), params))


def _run_decoded(statistics: Statistics, block: Block) -> bool:
    """Run the compiled kernel; False if there is none, or none for these types."""
    kernel = library()
    given = (block.floats, block.codes, block.below, block.above, block.ends)
    if kernel is None or any(a is not None and not known(a) for a in given):
        return False
    shape = block.floats.shape
    assert all(a is None or a.shape == shape for a in given)
    assert (block.below is None) == (block.above is None)
    table = statistics.table[:, block.first_channel - statistics.first_channel :]
    assert table.shape[1] >= shape[1]
    assert statistics.table.flags.c_contiguous
    arrays = [None if a is None else readable(a) for a in given]
    kernel.qdebug_decoded(
        *(value for array in arrays for value in place(array)),
        *shape,
        table.ctypes.data,
        statistics.table.shape[1],
    )
    return True


def _run(statistics: Statistics, block: Block, codes: _Array | None, params: QuantParams) -> bool:
    """Run the compiled kernel; False if there is none, or none for these types."""
    kernel = library()
    given = (block.floats, codes, block.model_float)
    if kernel is None or any(a is not None and not known(a) for a in given):
        return False
    outer, channels, inner = block.floats.shape
    assert all(a is None or a.shape == (outer, channels, inner) for a in given)
    here = slice(block.first_channel, block.first_channel + channels)
    scale, zero_point = params.scale[here], params.zero_point[here]
    table = statistics.table[:, block.first_channel - statistics.first_channel :]
    assert scale.shape == (channels,)
    assert table.shape[1] >= channels
    assert statistics.table.flags.c_contiguous
    arrays = [None if a is None else readable(a) for a in given]
    kernel.qdebug_measure(
        *(value for array in arrays for value in place(array)),
        *(outer, channels, inner),
        *(scale.ctypes.data, zero_point.ctypes.data),
        *params.code_range,
        params.rounding == "half_even",
        table.ctypes.data,
        statistics.table.shape[1],
    )
    return True
