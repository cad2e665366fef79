"""Choose the range of floats that the codes represent: min/max, percentile or least error."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import Float64Array, QuantParams, QuantScheme, params_from_range
from qdebug.errors import FieldError
from qdebug.measure.kernel.bins import extremes
from qdebug.measure.kernel.candidates import squared_errors

# How to choose a range: min/max, a percentage of the elements, or the least error.
RangeFrom = Literal["minmax", "mse"] | float


def fitted(
    x: ArrayLike, scheme: QuantScheme, axis: int | None = None, range_from: RangeFrom = "minmax"
) -> QuantParams:
    """Scale and zero point for floats of any shape.

    Args:
        x: the floats.
        scheme: codes and symmetry.
        axis: the channel axis, for one scale per channel.
        range_from: ``minmax``, ``mse``, or a percentage of the elements.

    >>> fitted([-20.0, 1000.0], QuantScheme("uint8")).scale
    array([4.])

    Raises:
        FieldError: a percentage outside 0 to 100, or an unknown word.
    """
    if range_from not in ("minmax", "mse") and not isinstance(range_from, Real):
        expected = "minmax, mse or a percentage"
        raise FieldError("range_from", found=f"{range_from!r:.60}", expected=expected)
    if isinstance(range_from, Real):
        low, high = range_percentile(x, range_from, axis, scheme.symmetric)
    elif range_from == "mse":
        low, high = range_mse(x, scheme, axis)
    else:
        low, high = range_minmax(x, axis)
    return params_from_range(low, high, scheme, axis)


def range_minmax(x: ArrayLike, axis: int | None = None) -> tuple[Float64Array, Float64Array]:
    """Least and largest finite element, each of shape (channels,); 0 if there is none.

    >>> range_minmax([[1.0, -2.0], [3.0, 4.0]], axis=0)
    (array([-2.,  3.]), array([1., 4.]))
    """
    low, high = extremes(_by_channel(x, axis))
    some = low <= high
    return np.where(some, low, 0.0), np.where(some, high, 0.0)


def range_percentile(
    x: ArrayLike,
    percentile: float,
    axis: int | None = None,
    symmetric: bool = False,
    weights: ArrayLike | None = None,
) -> tuple[Float64Array, Float64Array]:
    """The range that holds `percentile` percent of the finite elements.

    Half of the excluded elements are cut from each end or, with `symmetric`, all from the largest
    magnitudes. With `weights`, shaped like `x`, each element counts that many times; the ends are
    then elements of `x`, without interpolation.

    >>> range_percentile(np.arange(1001.0), 99.0)
    (array([5.]), array([995.]))
    """
    if not 0 < percentile <= 100:
        raise FieldError("percentile", found=str(percentile), expected="above 0, at most 100")
    rows = _rows(np.asarray(x), axis)
    row_weights = None if weights is None else _rows(np.asarray(weights), axis)
    ends = []
    for i, row in enumerate(rows):
        finite = np.isfinite(row)
        values = row[finite]
        counted = None if row_weights is None else row_weights[i][finite]
        if not values.size:
            ends.append((0.0, 0.0))
        elif symmetric:
            magnitude = float(_percentiles(np.abs(values), [percentile], counted)[0])
            ends.append((-magnitude, magnitude))
        else:
            cut = (100 - percentile) / 2
            low, high = _percentiles(values, [cut, 100 - cut], counted)
            ends.append((float(low), float(high)))
    lows, highs = np.array(ends).T
    return lows, highs


def _percentiles(
    values: Float64Array, percentiles: list[float], weights: Float64Array | None
) -> Float64Array:
    if weights is None:
        return np.percentile(values, percentiles)
    return np.percentile(values, percentiles, weights=weights, method="inverted_cdf")


def range_mse(
    x: ArrayLike,
    scheme: QuantScheme,
    axis: int | None = None,
    weights: ArrayLike | None = None,
) -> tuple[Float64Array, Float64Array]:
    """The range whose quantization has the least mean squared error, clipping included.

    The search goes from the full range inwards, in steps of 1/32 of each end and then of 1/512
    around the best. Every candidate is judged by quantizing the floats. The result is never worse
    than `range_minmax`. With `weights`, shaped like `x`, each element's error counts that many
    times.

    >>> x = np.append(np.linspace(-1, 1, 10_000), 3.0)
    >>> [round(float(end[0]), 1) for end in range_mse(x, QuantScheme("int8", bits=4))]
    [-0.9, 1.1]
    """
    floats = _by_channel(x, axis)
    counted = None if weights is None else _by_channel(np.asarray(weights, np.float64), axis)
    full_low, full_high = range_minmax(floats, axis=1)
    full_low, full_high = np.minimum(full_low, 0.0), np.maximum(full_high, 0.0)
    if scheme.symmetric:
        full_high = np.maximum(-full_low, full_high)
        full_low = -full_high

    best = np.ones((2, floats.shape[1]))  # the share of each end that is kept
    least = np.full(floats.shape[1], np.inf)

    def judge(ends: list[int], shares: Iterable[Float64Array]) -> None:
        """Take the best of these shares for these ends; the first of equals."""
        nonlocal least
        kept = []
        for share in shares:
            candidate = best.copy()
            candidate[ends] = share
            kept.append(candidate)
        candidates = [
            params_from_range(full_low * low, full_high * high, scheme, axis=0)
            for low, high in kept
        ]
        errors = squared_errors(floats, counted, candidates, least)
        for candidate, error in zip(kept, errors, strict=True):
            better = error < least
            best[:, better] = candidate[:, better]
            least = np.where(better, error, least)

    judge([0, 1], [best[0]])
    coarse = np.broadcast_to(np.arange(31, 0, -1)[:, None] / 32, (31, floats.shape[1]))
    fine = np.arange(-15, 16)[:, None] / 512
    for refine in (False, True):
        # First both ends together, then each end by itself.
        for ends in [[0, 1]] if scheme.symmetric else [[0, 1], [0], [1]]:
            judge(ends, np.clip(best[ends[-1]] + fine, 1 / 512, 1.0) if refine else coarse)
    return full_low * best[0], full_high * best[1]


def _rows(x: NDArray[Any], axis: int | None) -> Float64Array:
    """`x` as float64 of shape (channels, elements): one row if there is no axis."""
    if axis is None:
        return np.asarray(x, np.float64).reshape(1, -1)
    rows = np.moveaxis(np.asarray(x, np.float64), axis, 0)
    return rows.reshape(rows.shape[0], math.prod(rows.shape[1:]))


def _by_channel(x: ArrayLike, axis: int | None) -> NDArray[Any]:
    """Floats of shape (outer, channels, inner): one channel if there is no axis."""
    floats = np.asarray(x)
    if floats.dtype.kind != "f":
        floats = floats.astype(np.float64)
    if axis is None:
        return floats.reshape(1, 1, -1)
    before, after = floats.shape[:axis], floats.shape[axis:][1:]
    return floats.reshape(math.prod(before), floats.shape[axis], math.prod(after))
