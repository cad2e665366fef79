"""Slices: how well each slice of a tensor along one axis is quantized."""

from dataclasses import dataclass

import numpy as np

from qdebug.arithmetic.affine import Float64Array, QuantParams
from qdebug.measure.layer import Block
from qdebug.measure.outputs import RUINED_DB, sqnr_db
from qdebug.measure.statistics import SMALL_STEPS


@dataclass(frozen=True)
class SliceMetrics:
    """The slices of a tensor along one axis, without those that are all zero."""

    axis: int
    """The axis, from 0."""
    num_slices: int
    """Slices that hold any float that is not zero."""
    num_low: int
    """Those of them with an SQNR below 10 dB."""
    least_sqnr_db: float | None
    """The lowest SQNR of any slice, in dB; None if all are exact."""
    least_slice: int | None
    """The index of that slice along the axis."""
    small_sqnr_db: float | None
    """SQNR of the floats that `Metrics.small` counts, in dB: without the tensor's large values."""


class SliceSums:
    """Sums over each slice along an axis of a layer with one scale; blocks come in any order."""

    def __init__(self, axis: int, length: int) -> None:
        self._axis = axis
        self._signal: Float64Array = np.zeros(length)
        self._error: Float64Array = np.zeros(length)
        self._small = np.zeros(2)  # signal and error of the small floats

    def add(self, block: Block, params: QuantParams) -> None:
        """Add a block whose channels are slices."""
        x = block.floats.astype(np.float64)
        e = (block.codes.astype(np.float64) - params.zero_point[0]) * params.scale[0] - x
        finite = np.isfinite(x)
        if not finite.all():
            x, e = np.where(finite, x, 0.0), np.where(finite, e, 0.0)
        steps = np.abs(block.codes.astype(np.int64) - params.zero_point[0])
        small = (steps <= SMALL_STEPS) & (x != 0)
        here = slice(block.first_channel, block.first_channel + x.shape[1])
        with np.errstate(over="ignore"):
            self._signal[here] += np.einsum("oci,oci->c", x, x)
            self._error[here] += np.einsum("oci,oci->c", e, e)
            self._small += [np.vdot(values, values) for values in (x[small], e[small])]

    def merge(self, other: "SliceSums") -> None:
        """Add the sums of other blocks."""
        self._signal += other._signal
        self._error += other._error
        self._small += other._small

    @property
    def metrics(self) -> SliceMetrics:
        """The figures of all slices."""
        found = [
            (value, index)
            for index, (signal, error) in enumerate(zip(self._signal, self._error, strict=True))
            if (value := sqnr_db(float(signal), float(error))) is not None
        ]
        least, index = min(found, default=(None, None))
        return SliceMetrics(
            axis=self._axis,
            num_slices=int(np.count_nonzero(self._signal)),
            num_low=sum(value < RUINED_DB for value, _ in found),
            least_sqnr_db=least,
            least_slice=index,
            small_sqnr_db=sqnr_db(*map(float, self._small)),
        )
