"""Statistics: sums, extremes and counts of a layer, merged in any order.

`kernel` takes them from blocks in one pass. Knows nothing of the figures that `metrics` derives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from qdebug.arithmetic.affine import Float64Array

# Codes at most this many steps from that of zero are small: four steps are 23 dB of SQNR.
SMALL_STEPS = 4

_SPAN_CHANNELS = 1 << 13

_TINY = float(np.finfo(np.float64).tiny)

_Merge = Literal["sum", "least", "most"]


class Row:
    """A figure of `Statistics`: its row in the table, and what merging makes of it."""

    def __init__(self, merge: _Merge = "sum") -> None:
        self.merge = merge
        self.row = len(ROWS)
        ROWS.append(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "Row": ...
    @overload
    def __get__(self, instance: "Statistics", owner: type) -> Float64Array: ...
    def __get__(self, instance: "Statistics | None", owner: type) -> "Row | Float64Array":
        if instance is None:
            return self
        row: Float64Array = instance.table[self.row]
        return row


ROWS: list[Row] = []


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of some channels of a layer; each figure is an attribute of shape (channels,).

    x: float reference, q: code, d = D(q) = (q - z) * s, e = d - x, m: the float model's own value.
    Over the finite elements of x only; the model's and the weights' over those where m or w is
    finite, too. A figure is a view of its row in the table.

    In layers with a `Grid`, q is the float that the code stands for, and so d = q; s is the width
    of the element's own cell. What is unknown of a code's best choice (`quantizer_square`,
    `carried_square`) or of its neighbours is 0; if the ends of its range are unknown, `clipped` and
    `saturated` are NaN. `clipped_square` is e^2.

    Attributes:
        table: all figures, shape (figures, channels), in the order in which they are declared.
        first_channel: of the layer's channels, the first one that this knows of.
    """

    table: Float64Array
    first_channel: int = 0

    # Counts of elements.
    count = Row()
    non_finite = Row()  # NaN or infinite x: left out of everything else
    zeros = Row()  # x is exactly zero
    clipped = Row()  # x outside [D(qmin) - s/2, D(qmax) + s/2]
    saturated = Row()  # q at qmin or qmax
    lost = Row()  # x is not zero, but q is the code of zero
    small = Row()  # x is not zero, and q is at most `SMALL_STEPS` from the code of zero
    # Sums.
    x_sum = Row()
    x_magnitude = Row()  # |x|
    q_sum = Row()
    e_sum = Row()
    steps_sum = Row()  # e/s
    steps_outward = Row()  # e/s away from zero: e/s where x > 0, -e/s where x < 0
    steps_square = Row()  # (e/s)^2
    quantizer_square = Row()  # ((D(Q(x)) - x) / s)^2
    clipped_square = Row()  # of these, where x is clipped
    carried_square = Row()  # (q - Q(x))^2
    d_square = Row()  # d^2
    xd_product = Row()  # x * d
    # Against an end-to-end run of the float model.
    model_count = Row()
    model_square = Row()  # m^2
    model_error_square = Row()  # (d - m)^2
    model_steps_square = Row()  # ((d - m) / s)^2
    inherited_square = Row()  # ((x - m) / s)^2
    model_clipped = Row()  # m outside [D(qmin) - s/2, D(qmax) + s/2]
    model_only = Row()  # m is finite and x is not
    # Against the float operator with the quantized weights, w.
    weights_count = Row()
    weights_square = Row()  # ((w - x) / s)^2
    arithmetic_square = Row()  # (q - Q(w))^2
    # Of layers with a `Grid`; 0 for all others.
    expected_square = Row()  # mean square of an error uniform over the element's own cell
    expected_variance = Row()  # variance of that square
    # Sums about means and about the least-squares line: `_pooled` adds what these are apart.
    x_moment = Row()  # (x - mean x)^2
    q_moment = Row()
    e_moment = Row()
    xq_moment = Row()  # (x - mean x) * (q - mean q)
    line_square = Row()  # (x - its least-squares line over q)^2
    # Extremes.
    x_min = Row("least")
    q_min = Row("least")
    m_min = Row("least")
    x_max = Row("most")
    q_max = Row("most")
    m_max = Row("most")
    e_max = Row("most")  # largest |e|
    steps_max = Row("most")  # largest |e/s|

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.table.shape[1])

    def cover(self, start: int, stop: int) -> bool:
        """Whether the layer's channels from `start` to `stop - 1` are among these."""
        return self.first_channel <= start and stop <= self.first_channel + self.channels

    def widened(self, start: int, stop: int) -> "Statistics":
        """The same, for the layer's channels from `start` to `stop - 1`, too."""
        first = min(self.first_channel, start)
        wide = no_statistics(max(self.first_channel + self.channels, stop) - first, first)
        here = self.first_channel - first
        wide.table[:, here : here + self.channels] = self.table
        return wide

    def merged(self, other: "Statistics") -> "Statistics":
        """The statistics of both parts together, for the channels from the first to the last."""
        if (self.first_channel, self.channels) == (other.first_channel, other.channels):
            return Statistics(
                _pooled(np.stack([self.table, other.table], axis=1)), self.first_channel
            )
        both = self.widened(other.first_channel, other.first_channel + other.channels)
        both.absorb(other)
        return both

    def of(self, channels: slice) -> "Statistics":
        """The statistics of some of the channels."""
        return Statistics(self.table[:, channels])

    def pooled(self) -> "Statistics":
        """The statistics of all channels together, as one channel."""
        if self.channels == 1:
            return self
        some = [_pooled(self.table[:, channels, None]) for channels in self._spans()]
        return Statistics(some[0] if len(some) == 1 else _pooled(np.stack(some, axis=1)))

    def absorb(self, other: "Statistics") -> None:
        """Merge statistics of some or all of these channels into this, in place."""
        first = other.first_channel - self.first_channel
        for there in other._spans():
            here = slice(first + there.start, first + there.stop)
            both = np.stack([self.table[:, here], other.table[:, there]], axis=1)
            self.table[:, here] = _pooled(both)

    def _spans(self) -> list[slice]:
        """All channels, so many at a time that copies of their figures take little memory."""
        starts = range(0, self.channels, _SPAN_CHANNELS)
        return [slice(start, min(start + _SPAN_CHANNELS, self.channels)) for start in starts]


def _rows_merged(merge: _Merge) -> slice:
    """The rows that are merged so; they are declared side by side."""
    rows = [figure.row for figure in ROWS if figure.merge == merge]
    assert rows == list(range(rows[0], rows[-1] + 1))
    return slice(rows[0], rows[-1] + 1)


_SUMS, _LEAST_OF, _MOST_OF = _rows_merged("sum"), _rows_merged("least"), _rows_merged("most")


def side_by_side(parts: Sequence[Statistics]) -> Statistics:
    """Those of several layers, as if they were channels of one."""
    return Statistics(np.concatenate([part.table for part in parts], axis=1))


def no_statistics(channels: int, first_channel: int = 0) -> Statistics:
    """The statistics of no elements: merging them changes nothing."""
    table = np.zeros((len(ROWS), channels))
    table[_LEAST_OF] = np.inf
    table[_MOST_OF] = -np.inf
    return Statistics(table, first_channel)


def _pooled(parts: Float64Array) -> Float64Array:
    """Tables side by side, of shape (figures, parts, channels), merged to (figures, channels).

    A sum about the mean of all is the parts' sums about their own means, plus what their means are
    apart (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983). Likewise, what
    the line of all leaves is what the parts' own lines leave, plus what the lines are apart: in
    slope, and at the parts' means.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of floats near float64's largest
        table = np.empty((parts.shape[0], parts.shape[2]))
        np.add.reduce(parts[_SUMS], axis=1, out=table[_SUMS])
        np.minimum.reduce(parts[_LEAST_OF], axis=1, out=table[_LEAST_OF])
        np.maximum.reduce(parts[_MOST_OF], axis=1, out=table[_MOST_OF])
        merged, part = Statistics(table), Statistics(parts)
        count, total = np.maximum(part.count, 1.0), np.maximum(merged.count, 1.0)
        x_apart = part.x_sum / count - merged.x_sum / total  # (parts, channels)
        q_apart = part.q_sum / count - merged.q_sum / total
        e_apart = part.e_sum / count - merged.e_sum / total
        for moment, one, other in (
            (merged.x_moment, x_apart, x_apart),
            (merged.q_moment, q_apart, q_apart),
            (merged.e_moment, e_apart, e_apart),
            (merged.xq_moment, x_apart, q_apart),
        ):
            moment += np.add.reduce(part.count * one * other, axis=0)
        slope = _slope(merged)
        lines_apart = part.q_moment * (_slope(part) - slope) ** 2
        lines_apart += part.count * (x_apart - slope * q_apart) ** 2
        merged.line_square[:] += np.add.reduce(lines_apart, axis=0)
    return table


def _slope(statistics: Statistics) -> Float64Array:
    """Slope of the least-squares line of x over q; 0 where q is constant."""
    slope: Float64Array = statistics.xq_moment / np.maximum(statistics.q_moment, _TINY)
    return slope
