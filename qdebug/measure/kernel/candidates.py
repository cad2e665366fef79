"""Candidates: the squared error of floats under several quantizations; compiled or in NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import Float64Array, QuantParams, codes_of
from qdebug.measure.kernel.arrays import known, place, readable
from qdebug.measure.kernel.library import library

# Elements quantized at a time in NumPy: 2 MB of float64.
_TILE = 1 << 18


def squared_errors(
    floats: NDArray[Any],
    weights: Float64Array | None,
    candidates: list[QuantParams],
    least: Float64Array,
) -> Float64Array:
    """Sum over each channel's finite elements of (D(Q(x)) - x)^2, shape (candidates, channels).

    Args:
        floats: of shape (outer, channels, inner).
        weights: how often each element counts, in the shape of `floats`; None for once.
        candidates: parameters of all channels, alike but for scale and zero point.
        least: shape (channels,). A sum above it may be a part of the sum, as long as that is above
            it, too.
    """
    scale = np.stack([params.scale for params in candidates])
    kernel = library()
    if kernel is None or not known(floats):
        return np.stack([_squared_error(floats, weights, params) for params in candidates])
    zero_point = np.stack([params.zero_point for params in candidates])
    totals = np.zeros(scale.shape)
    floats = readable(floats)
    weights = None if weights is None else np.ascontiguousarray(weights)
    assert scale.shape[1] == floats.shape[1]
    assert weights is None or weights.shape == floats.shape
    kernel.qdebug_errors(
        *(*place(floats), place(weights)[0]),
        *(*floats.shape, len(candidates)),
        *(scale.ctypes.data, zero_point.ctypes.data, *candidates[0].code_range),
        *(least.ctypes.data, totals.ctypes.data),
    )
    return totals


def _squared_error(
    floats: NDArray[Any], weights: Float64Array | None, params: QuantParams
) -> Float64Array:
    """The sums of one candidate, shape (channels,)."""
    total = np.zeros(floats.shape[1])
    for tile in _tiles(floats.shape):
        x = floats[tile].astype(np.float64)
        scale, zero_point = params.rows(tile[1].start, tile[1].stop)
        codes = codes_of(x, scale, zero_point, params.code_range, params.rounding)
        with np.errstate(over="ignore", invalid="ignore"):  # floats near float64's largest
            error = np.square((codes - zero_point) * scale - x)
            if weights is not None:
                error *= weights[tile]
            total[tile[1]] += np.sum(error, axis=(0, 2), where=np.isfinite(x))
    return total


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Slices that cut (outer, channels, inner) into tiles of about `_TILE` elements."""
    room, steps = _TILE, []
    for length in reversed(shape):
        steps.append(min(max(length, 1), max(room, 1)))
        room //= steps[-1]
    inner, channels, outer = steps
    for o in range(0, shape[0], outer):
        for c in range(0, shape[1], channels):
            for i in range(0, shape[2], inner):
                yield (
                    slice(o, o + outer),
                    slice(c, min(c + channels, shape[1])),
                    slice(i, i + inner),
                )
