"""Grids: codes whose steps differ from element to element: scales of blocks, codebooks.

A code of such a format stands for a float that its block decides. What a figure needs to know of an
element is that float and its **cell**: the floats that are nearer to it than to the representable
values beside it. `Decoded` holds both, whatever the format; no code is needed any more.

An error that is uniform over a cell reaching `a` below the value and `b` above it has the mean
square ``(a^3 + b^3) / (3 (a + b))``: the integral of e^2 from -b to a over the cell's width. For
equal steps s it is s^2 / 12, the square of RMSE/scale's 0.289 (docs/weights.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import Float64Array
from qdebug.errors import FieldError

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Grid:
    """How a tensor is quantized whose steps differ within a channel; `Decoded` has the values.

    Attributes:
        name: what people call the format: ``Q4_K``, ``int4, blocks of 32 along axis 1``.
        channels: number of channels, each with figures of its own: rows, mostly.
        axis: the channel axis; None for one channel.
    """

    name: str
    channels: int = 1
    axis: int | None = None

    @classmethod
    def of_blocks(cls, codes: str, shape: Sequence[int], axis: int, block: int) -> "Grid":
        """That of a tensor with a scale for each `block` elements along `axis`, from 0.

        Its channels are those of the first axis without blocks: the outputs of a matrix with blocks
        along its inputs.

        >>> Grid.of_blocks("int4", (256, 64), axis=0, block=32)
        Grid(name='int4, blocks of 32 along axis 0', channels=64, axis=1)
        """
        name = f"{codes}, blocks of {block} along axis {axis}"
        if len(shape) == 1 or 0 in shape:
            return cls(name)
        channels = 1 if axis == 0 else 0
        return cls(name, shape[channels], channels)

    def rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """A tensor as (channels, elements of a channel)."""
        moved = values if self.axis is None else np.moveaxis(values, self.axis, 0)
        return moved.reshape(self.channels, values.size // self.channels)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What some codes stand for, and their cells; all arrays broadcast to the shape of `values`.

    Attributes:
        values: the dequantized floats.
        below: half the distance to the next smaller representable value, in the floats' unit. The
            smallest value has no such neighbour: what is above counts for both sides.
        above: half the distance to the next larger one. Both are None if the format has no
            neighbours that one can name (vector quantization).
        ends: -1 where the value is the smallest of its block's representable ones, 1 where it is
            the largest, 0 elsewhere; None if unknown.
    """

    values: FloatArray
    below: FloatArray | None = None
    above: FloatArray | None = None
    ends: NDArray[np.int8] | None = None

    def mapped(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Decoded":
        """The same after `change` moved the elements of each array, brought to full shape."""

        def of(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else change(np.broadcast_to(array, self.values.shape))

        return Decoded(change(self.values), of(self.below), of(self.above), of(self.ends))


def expected_square(below: FloatArray, above: FloatArray) -> FloatArray:
    """Mean square of an error uniform over a cell: (a^3 + b^3) / (3 (a + b)), without division.

    >>> float(expected_square(np.array(0.5), np.array(0.5)))  # 1 / 12
    0.08333333333333333
    """
    square: FloatArray = (below * below - below * above + above * above) / 3
    return square


def variance_of_square(below: FloatArray, above: FloatArray) -> FloatArray:
    """Variance of the square of an error uniform over a cell; s^4 / 180 for equal steps s.

    The mean fourth power is (a^5 + b^5) / (5 (a + b)).

    >>> round(float(180 * variance_of_square(np.array(0.5), np.array(0.5))), 9)
    1.0
    """
    aa, ab, bb = below * below, below * above, above * above
    fourth: FloatArray = (aa * aa - aa * ab + ab * ab - ab * bb + bb * bb) / 5
    variance: FloatArray = fourth - expected_square(below, above) ** 2
    return variance


def spread(values: ArrayLike, shape: tuple[int, ...], axis: int, block: int) -> FloatArray:
    """Scales or offsets, one for each block of elements along `axis`, repeated for each element.

    The last block may be shorter than the others. A single number is left as it is.

    >>> spread([[1.0, 2.0]], (1, 5), axis=1, block=3)
    array([[1., 1., 1., 2., 2.]])

    Raises:
        FieldError: another number of blocks than `shape` has.
    """
    each = np.asarray(values)
    if each.dtype.kind != "f":
        each = each.astype(np.float64)
    if each.size == 1:
        return each.reshape(())
    axis %= len(shape)
    expected = tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))
    if each.shape != expected:
        raise FieldError("scale", found=f"shape {each.shape}", expected=f"{expected}")
    return np.repeat(each, block, axis)[(slice(None),) * axis + (slice(shape[axis]),)]


def affine_blocks(
    codes: NDArray[Any],
    scale: FloatArray,
    offset: FloatArray | float,
    code_limits: tuple[int, int],
) -> Decoded:
    """Values ``scale * q + offset``; each step is as wide as the element's scale.

    A zero point z is the offset ``-z * scale``. Scales of two levels are multiplied first. A scale
    may be negative, as in GGUF's Q4_0: then the least code stands for the largest value.

    >>> found = affine_blocks(np.array([-8, 7]), np.array([0.5, 0.25]), 0.0, (-8, 7))
    >>> found.values, found.below, found.ends
    (array([-4.  ,  1.75]), array([0.25 , 0.125]), array([-1,  1], dtype=int8))

    Args:
        codes: of any shape.
        scale: of each element, see `spread`; it broadcasts.
        offset: of each element, in the floats' unit; it broadcasts.
        code_limits: the least and the largest code.
    """
    values = np.asarray(scale * codes)
    if not np.isscalar(offset) or offset:
        values = values + offset
    half = np.abs(scale) / 2
    least, largest = code_limits
    ends = (codes == largest).view(np.int8) - (codes == least).view(np.int8)
    turned = scale < 0
    return Decoded(values, half, half, np.where(turned, -ends, ends) if turned.any() else ends)


def codebook(codes: NDArray[Any], levels: ArrayLike, scale: FloatArray | float) -> Decoded:
    """Values ``scale * levels[q]``; the neighbours are those of the sorted levels.

    Several codes may stand for one level (+0 and -0). A level that is not finite (NaN of FP8) is
    no neighbour of any.

    >>> found = codebook(np.array([0, 1, 2]), [-1.0, 0.0, 4.0], 0.5)
    >>> found.values, found.below, found.above
    (array([-0.5,  0. ,  2. ]), array([0.25, 0.25, 1.  ]), array([0.25, 1.  , 1.  ]))

    Args:
        codes: indexes of levels, of any shape.
        levels: in the order of the codes, in any unit; shape (codes,).
        scale: of each element, see `spread`; it broadcasts.

    Raises:
        FieldError: fewer than two levels, or a code without a level.
    """
    table = np.asarray(levels, np.float64)
    distinct = np.unique(table[np.isfinite(table)])
    if distinct.size < 2:
        raise FieldError("levels", found=f"{distinct.size}", expected="2 or more different ones")
    if codes.size and (codes.min() < 0 or codes.max() >= table.size):
        found = f"code {codes.min() if codes.min() < 0 else codes.max()}"
        raise FieldError("quantized", found=found, expected=f"0 to {table.size - 1}")
    half = np.diff(distinct) / 2
    places = np.searchsorted(distinct, table).clip(max=distinct.size - 1)
    below, above = np.append(half[:1], half)[places], np.append(half, half[-1:])[places]
    ends = (table == distinct[-1]).astype(np.int8) - (table == distinct[0]).astype(np.int8)
    factors = np.asarray(scale)
    if factors.dtype.kind != "f":
        factors = factors.astype(np.float64)
    size, turned = np.abs(factors), factors < 0

    def of(column: Float64Array) -> FloatArray:
        each: FloatArray = column.astype(factors.dtype)[codes]
        return each

    low, high = of(below), of(above)
    if turned.any():
        low, high = np.where(turned, high, low), np.where(turned, low, high)
    at_end = np.where(turned, -ends[codes], ends[codes])
    return Decoded(of(table) * factors, low * size, high * size, at_end)
