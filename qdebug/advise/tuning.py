"""Tuning: other ranges, more bits, a scale per channel, measured at the model's outputs.

Done for the layers that cost most. A change there may be cheaper than leaving operators in float.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdebug.advise.meter import Gain, Meter, OutOfTimeError
from qdebug.arithmetic.affine import QuantParams, QuantScheme, middle_code, params_from_range
from qdebug.errors import FieldError
from qdebug.formatting import significant
from qdebug.measure.ranges import RangeFrom, fitted
from qdebug.run.board import BoardLayer, TunableBoard

# The most layers to rank, to try and to change; the most to try in a row without success.
_RANKED, _TRIED, _CHANGED, _PATIENCE = 24, 12, 6, 3

# A board may compute changes in its own arithmetic. Gains are measured within it, and mean nothing
# if its outputs differ from the quantized model's by more than this.
_SAME_DB = 1.0

# Ways to quantize a layer that are tried on more samples.
_FINALISTS = 2

# Floats of a layer that ranges are fitted to, besides its minimum and maximum.
_KEPT = 1 << 17

_RANGES: Sequence[RangeFrom] = ("minmax", 99.99, 99.9, 99.0, "mse")

# A gap between magnitudes (a ratio) that separates a mask, or another outlier, from the bulk; and
# the shares of the bulk's width by which the range is extended on the outliers' side. A softmax
# needs about one.
_GAP = 30.0
_EXTENSIONS = (0.0, 0.5, 1.0, 2.0)

# A change that is free at run time is preferred to 16 bits if it gains this share of their dB.
_NEARLY = 0.5

# 16 bits are no remedy if more than this share of the floats is still rounded to zero.
_MOST_LOST = 0.1

_AXES = "a scale per channel"
_BITS = "16 bits"


@dataclass(frozen=True)
class Change:
    """Another way to quantize one layer.

    Attributes:
        layer: its name in the report.
        what: the change in words.
        params: how the changed layer is quantized; None for 16 bits.
        gain: over the changes before.
        total: over the quantized model, with all changes so far.
        in_16_bits: what 16 bits would gain instead; None if they are no remedy.
    """

    layer: str
    what: str
    params: QuantParams | None
    gain: Gain
    total: Gain
    in_16_bits: Gain | None


def tuned(
    meter: Meter,
    places: Collection[int],
    few: Sequence[int],
    chosen_on: Sequence[int],
    held_out: Sequence[int],
) -> Iterator[Change]:
    """The changes that gain most, each on top of those before.

    Args:
        meter: of a `TunableBoard`.
        places: the operators whose layers are tried.
        few: samples to rank the layers on.
        chosen_on: samples to choose the change on.
        held_out: samples on which it must gain, too.

    Raises:
        OutOfTimeError: the meter's time limit is reached.
        QdebugError: the runtime fails.
    """
    board = meter.board
    assert isinstance(board, TunableBoard)
    layers = [layer for layer in board.layers if layer.operators & set(places)][:_RANKED]
    floats = _floats(board, layers)
    layers = [layer for layer in layers if layer.name in floats]
    if not layers:
        return
    made: dict[str, QuantParams | None] = {}
    before = now = meter.errors((), made)  # in the arithmetic of changes
    if abs(meter.gain(meter.errors(), before).db) > _SAME_DB:
        return

    def gain(layer: BoardLayer, params: QuantParams | None, samples: Sequence[int]) -> Gain:
        """On top of the changes made."""
        after = meter.errors((), made | {layer.name: params}, samples)
        return meter.gain(now[list(samples)], after, samples)

    waiting: list[BoardLayer] | None = None
    vain = 0
    while len(made) < _CHANGED and vain < _PATIENCE:
        if waiting is None:
            exact = {layer.name: gain(layer, None, few).db for layer in layers}
            layers = sorted(layers, key=lambda layer: -exact[layer.name])[:_TRIED]
            waiting = [layer for layer in layers if exact[layer.name] > 0]
        if not waiting:
            return
        worst = waiting.pop(0)
        ways = sorted(
            _ways(worst, floats[worst.name]), key=lambda way: -gain(worst, way[1], few).db
        )
        tried: list[tuple[Gain, str, QuantParams | None]] = [
            (gain(worst, params, chosen_on), what, params) for what, params in ways[:_FINALISTS]
        ]
        in_16_bits = None
        if worst.kind == "activation" and not _lost_in_16_bits(floats[worst.name]):
            in_16_bits = gain(worst, None, chosen_on)
            if all(g.db < _NEARLY * in_16_bits.db for g, *_ in tried):
                tried = [(in_16_bits, _BITS, None)]
        vain += 1
        if not tried:
            continue
        _, what, params = max(tried, key=lambda way: way[0].db)
        after = meter.errors((), made | {worst.name: params})
        if meter.is_real(now, after, held_out):
            step, total = meter.gain(now, after), meter.gain(before, after)
            made[worst.name], now = params, after
            layers.remove(worst)
            waiting, vain = None, 0
            yield Change(worst.name, what, params, step, total, in_16_bits)


def _floats(board: TunableBoard, layers: Sequence[BoardLayer]) -> dict[str, NDArray[np.float64]]:
    """The layers' floats over all samples, thinned out; weights whole."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    kinds = {layer.name: layer.kind for layer in layers}
    for sample in range(board.num_samples):
        for name, values in board.floats(list(kinds), sample).items():
            if kinds[name] != "activation":
                found.setdefault(name, [np.asarray(values, np.float64)])
                continue
            flat = np.asarray(values, np.float64).reshape(-1)
            flat = flat[np.isfinite(flat)]
            if flat.size:
                step = max(1, flat.size * board.num_samples // _KEPT)
                kept = np.concatenate([flat[::step], [flat.min(), flat.max()]])
                found.setdefault(name, []).append(kept)
    return {
        name: parts[0] if kinds[name] != "activation" else np.concatenate(parts)
        for name, parts in found.items()
    }


def _ways(layer: BoardLayer, floats: NDArray[np.float64]) -> Iterator[tuple[str, QuantParams]]:
    """Other parameters for a layer, each once, with their description."""
    ours = layer.params
    is_weight = layer.kind != "activation"
    middle = middle_code((ours.qmin, ours.qmax))
    scheme = QuantScheme(
        ours.dtype,
        ours.bits,
        ours.narrow_range,
        # LiteRT's 16-bit activations have no zero point.
        symmetric=(is_weight or ours.dtype == "int16") and bool((ours.zero_point == middle).all()),
        rounding=ours.rounding,
    )
    seen = {(ours.scale.tobytes(), ours.zero_point.tobytes())}
    found: list[QuantParams] = []
    for range_from in _RANGES:
        try:
            found.append(fitted(floats, scheme, ours.axis, range_from))
        except FieldError:
            continue
    if not is_weight:
        found += [params_from_range(low, high, scheme) for low, high in _bulk_ranges(floats)]
    for params in found:
        key = params.scale.tobytes(), params.zero_point.tobytes()
        if key not in seen:
            seen.add(key)
            yield _range_in_words(params), params
    if is_weight and ours.channels == 1 and layer.axis is not None:
        by_channel = QuantScheme(ours.dtype, ours.bits, ours.narrow_range, True, ours.rounding)
        yield _AXES, fitted(floats, by_channel, layer.axis)


def _lost_in_16_bits(floats: NDArray[np.float64]) -> bool:
    """Whether the range is too wide even for 16 bits, as with a mask of -3.4e38."""
    half_step = (max(floats.max(), 0.0) - min(floats.min(), 0.0)) / (2 * 65535)
    return bool(np.mean((np.abs(floats) < half_step) & (floats != 0)) > _MOST_LOST)


def _bulk_ranges(floats: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Ranges that exclude the magnitudes beyond the widest gap, such as a mask's."""
    sizes = np.unique(np.abs(floats[floats != 0]))
    if sizes.size < 2:
        return
    ratios = sizes[1:] / sizes[:-1]
    # Skip the smallest: they are nearly zero, and far apart.
    start = int(np.searchsorted(sizes, np.quantile(np.abs(floats), 0.1)))
    if start >= ratios.size:
        return
    place = start + int(np.argmax(ratios[start:]))
    if ratios[place] < _GAP:
        return
    bulk = floats[np.abs(floats) <= sizes[place]]
    low, high = float(bulk.min()), float(bulk.max())
    for share in _EXTENSIONS:
        more = share * (high - low)
        yield (
            low - (more if floats.min() < low else 0.0),
            high + (more if floats.max() > high else 0.0),
        )


def _range_in_words(params: QuantParams) -> str:
    if params.channels > 1:
        return "other ranges per channel"
    low, high = ((code - params.zero_point[0]) * params.scale[0] for code in
                 (params.qmin, params.qmax))  # fmt: skip
    return f"range [{significant(float(low))}, {significant(float(high))}]"


def collected(changes: Iterator[Change]) -> tuple[list[Change], bool]:
    """The changes found within the time limit, and whether it was reached."""
    found: list[Change] = []
    try:
        found.extend(changes)
    except OutOfTimeError:
        return found, True
    return found, False
