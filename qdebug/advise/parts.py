"""Parts: what of a model's outputs is judged by itself. Runs nothing.

An output that joins tensors of different magnitudes, such as the boxes (0 to 320) and scores (0 to
1) of a detector, can have a high SQNR while the small ones are gone. Such an output counts as two:
the slices along one axis that are ruined, and the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdebug.measure.metrics import LOW_SQNR_DB
from qdebug.measure.outputs import RUINED_DB, sqnr_db

# An axis longer than this, or with fewer elements in a slice, does not tell joined tensors apart.
_MOST_SLICES, _LEAST_ELEMENTS = 256, 16

# The sums of a softmax differ from 1 by less than this.
_SUM_TOLERANCE = 1e-3

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A part of an output that is judged by itself.

    Attributes:
        output: the output's place in `Board.outputs`.
        axis: the axis whose slices it has; None for the whole output.
        slices: the indices along that axis.
        is_ruined: whether these slices are below 10 dB in the quantized model.
    """

    output: int
    axis: int | None = None
    slices: tuple[int, ...] = ()
    is_ruined: bool = False

    def of(self, values: Values) -> Values:
        """The values of this part, of those of the whole output.

        >>> Part(0, axis=1, slices=(2, 3)).of(np.array([[0.0, 1.0, 2.0, 3.0]]))
        array([[2., 3.]])
        """
        return values if self.axis is None else np.take(values, self.slices, axis=self.axis)


def parts_of(
    floats: Sequence[Sequence[Values]], quantized: Sequence[Sequence[Values]]
) -> list[Part]:
    """The parts of all outputs, from each sample's outputs of the two models."""
    return [
        part
        for output, (xs, ys) in enumerate(
            zip(zip(*floats, strict=True), zip(*quantized, strict=True), strict=True)
        )
        for part in _parts(output, xs, ys)
    ]


def _parts(output: int, xs: Sequence[Values], ys: Sequence[Values]) -> list[Part]:
    signal, error = _powers(xs, ys, ())
    whole = sqnr_db(float(signal), float(error))
    if whole is None or whole < LOW_SQNR_DB:
        return [Part(output)]
    found = []
    for axis in _axes(xs):
        signal, error = _powers(xs, ys, (axis,))
        ruined = (signal > 0) & (error * 10 ** (RUINED_DB / 10) > signal)
        if ruined.any():
            found.append((float(np.sum(signal[ruined])), axis, ruined))
    if not found:
        return [Part(output)]
    # Joined along one axis, they are ruined along others at most in places: those hold less signal.
    _, axis, ruined = max(found, key=lambda each: each[0])
    return [
        Part(output, axis, tuple(map(int, np.flatnonzero(~ruined)))),
        Part(output, axis, tuple(map(int, np.flatnonzero(ruined))), is_ruined=True),
    ]


def _powers(
    xs: Sequence[Values], ys: Sequence[Values], axes: tuple[int, ...]
) -> tuple[Values, Values]:
    """Signal and error, summed over all samples and all axes but these."""
    others = tuple(axis for axis in range(xs[0].ndim) if axis not in axes)
    with np.errstate(over="ignore", invalid="ignore"):
        signal = np.sum([np.sum(np.square(x), axis=others) for x in xs], axis=0)
        errors = [np.sum(np.square(y - x), axis=others) for x, y in zip(xs, ys, strict=True)]
        return signal, np.sum(errors, axis=0)


def _axes(xs: Sequence[Values]) -> Iterator[int]:
    """The axes along which tensors may be joined: not the batch, and not that of a softmax."""
    for axis in range(1, xs[0].ndim):
        length = xs[0].shape[axis]
        if not 2 <= length <= _MOST_SLICES or any(x.shape[axis] != length for x in xs):
            continue
        if min(x.size for x in xs) // length >= _LEAST_ELEMENTS and not _is_softmax(xs, axis):
            yield axis


def _is_softmax(xs: Sequence[Values], axis: int) -> bool:
    """Whether the values along an axis are probabilities: rare ones may well be rounded to 0."""
    return all(x.min() >= 0 and np.abs(x.sum(axis=axis) - 1).max() < _SUM_TOLERANCE for x in xs)
