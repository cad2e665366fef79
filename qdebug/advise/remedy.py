"""Remedy: the smallest change that helps, among the alternatives that `whatif` tried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qdebug.advise.whatif import Alternative, WhatIf
from qdebug.arithmetic.affine import representable_range
from qdebug.formatting import percent, significant
from qdebug.measure.metrics import LOW_SQNR_DB

# A change helps if it halves the error power.
HELPS_DB = 10 * math.log10(2)

# One scale per channel must gain a bit. A smaller gain comes by chance: each channel of 50 normal
# floats has smaller extremes than 200 such channels together, and that alone gives 3.9 dB.
_CHANNELS_HELP_DB = 20 * math.log10(2)

# Smaller errors, in steps, are in the floats' own last digits.
_EXACT_STEPS = 1e-4

# The simplest range is recommended that is within `_NEAR_DB` of the best.
_NEAR_DB = 1.0

# From the simplest on: min/max of the calibration, then ranges that exclude outliers.
_SIMPLEST_RANGES = ("affine", "symmetric", "percentile_99.99", "percentile_99.9", "mse")

# With fewer floats per scale, a clipped range overfits these floats. On normal floats the search
# for the least error beats min/max by chance alone by up to 5 dB with 9 floats and 1.2 dB with 100
# (60 seeds).
_FEW_ELEMENTS = 100

_INT16_BITS = 16

LABELS = {
    "as_recorded": "as recorded",
    "affine": "min/max affine",
    "symmetric": "min/max symmetric",
    "percentile_99.9": "percentile 99.9",
    "percentile_99.99": "percentile 99.99",
    "mse": "least MSE",
    "per_channel": "per channel",
    "per_tensor": "per tensor",
    "int16": "int16",
    "int8": "int8",
    "int4": "int4",
}

# What TFLite's quantization specification prescribes for an operator's output
# (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
_FIXED = {
    "L2_NORMALIZATION": "1/128 and 0",
    "LOGISTIC": "1/256 and -128",
    "LOG_SOFTMAX": "16/256 and 127",
    "SOFTMAX": "1/256 and -128",
    "TANH": "1/128 and 0",
}
_AS_ITS_INPUT = (
    *("AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "CONCATENATION", "GATHER", "MAXIMUM", "MAX_POOL_2D"),
    *("MINIMUM", "PAD", "PADV2", "RESHAPE", "RESIZE_BILINEAR", "SLICE", "SPACE_TO_BATCH_ND"),
    *("SPACE_TO_DEPTH", "SQUEEZE", "TRANSPOSE"),
)


@dataclass(frozen=True)
class Recommendation:
    """What to change, or why nothing here helps.

    Attributes:
        text: the recommendation in words.
        alternative: the name of the recommended alternative; None if there is none.
        sqnr_db: the expected SQNR of the layer's output, carried error included; None if nothing
            is recommended or no error is left.
        gain_db: `sqnr_db` less the recorded SQNR.
    """

    text: str
    alternative: str | None = None
    sqnr_db: float | None = None
    gain_db: float | None = None


def recommend(found: WhatIf) -> Recommendation:
    """The cheapest kind of change that halves the error power, or why there is none.

    The kinds, from cheap to expensive:

    1. another range;
    2. affine instead of symmetric or vice versa; not for weights or 16 bits, because TFLite allows
       only symmetric there;
    3. one scale per channel, if it gains a bit (6 dB); not for activations, because runtimes take
       one scale there;
    4. more bits. They always help, so they are recommended only if SQNR is below 20 dB.

    Carried error is assumed to stay as it is. Where the codes do the work of a ReLU, ranges that
    reach beyond it are left out, except for more bits.
    """
    layer, total, own = found.layer, found.total, found.recorded.metrics
    if not total.num_elements:
        return Recommendation("No finite element: nothing to quantize.")
    if total.mse is None or own.mse is None:
        return Recommendation("The floats are too large to square: no error power to compare.")
    if total.float_min == total.float_max:
        return Recommendation("All floats are equal: they do not show how to quantize others.")
    if (total.max_abs_error_scale or 0.0) < _EXACT_STEPS:
        return Recommendation("The recorded quantization is exact: nothing to fix.")
    if layer.kind == "bias":
        return Recommendation(
            "Nothing to choose here: a bias has the input's scale times the weights'. Its error "
            "goes away when theirs does."
        )
    if layer.kind == "activation" and layer.op in _FIXED:
        return Recommendation(
            f"Nothing to choose here: TFLite fixes the scale and zero point of {layer.op} at "
            f"{_FIXED[layer.op]}."
        )
    per_scale = total.num_elements / layer.params.channels
    for kind in ("range", "symmetry", "channels"):
        candidates = [
            each for each in found.alternatives if each.change == kind and not each.needs_clamp
        ]
        if kind == "range":
            kept = ("affine", "symmetric") if per_scale < _FEW_ELEMENTS else _SIMPLEST_RANGES
            candidates = sorted(
                (each for each in candidates if each.name in kept),
                key=lambda each: _SIMPLEST_RANGES.index(each.name),
            )
        if (kind == "channels" and layer.kind == "activation") or (
            kind == "symmetry" and (layer.kind == "weight" or layer.params.bits == _INT16_BITS)
        ):
            continue
        least = _CHANNELS_HELP_DB if kind == "channels" else HELPS_DB
        if chosen := _simplest(found, candidates, least):
            return _change(found, chosen)
    return _nothing_cheap(found)


def expected_gain_db(found: WhatIf, alternative: Alternative) -> float | None:
    """The gain in SQNR of the layer's output, in dB; infinite if no error is left.

    Error power that is not the recorded quantizer's own is assumed to stay. None if there is no
    error power to compare.
    """
    total, own, other = found.total.mse, found.recorded.metrics.mse, alternative.metrics.mse
    if total is None or own is None or other is None:
        return None
    left = other + max(total - own, 0.0)
    if not left:
        return math.inf
    return 10 * math.log10(total / left) if total else None


def _simplest(
    found: WhatIf, candidates: Sequence[Alternative], least: float = HELPS_DB
) -> Alternative | None:
    """The first candidate that gains at least `least` dB and is within `_NEAR_DB` of the best."""
    gains = [expected_gain_db(found, each) or 0.0 for each in candidates]
    enough = max(least, max(gains, default=0.0) - _NEAR_DB)
    return next(
        (each for each, gain in zip(candidates, gains, strict=True) if gain >= enough), None
    )


def _change(found: WhatIf, chosen: Alternative) -> Recommendation:
    """The recommendation to use this alternative."""
    layer, params, metrics = found.layer, chosen.params, chosen.metrics
    gain = expected_gain_db(found, chosen)
    assert gain is not None
    label = LABELS[chosen.name]
    if params.channels == 1:
        s, z = float(params.scale[0]), int(params.zero_point[0])
        low, high = representable_range(s, z, params.code_range)
        label += f", {low:.3g} to {high:.3g} (scale {significant(s)}, zero point {z})"
    else:
        label += f", one scale for each of the {params.channels} channels of axis {params.axis}"
    before = found.total.sqnr_db
    after = None if before is None or math.isinf(gain) else before + gain
    effect = (
        "no error left"
        if math.isinf(gain)
        else f"SQNR {_db(before)} -> {_db(after)} dB ({gain:+.1f} dB)"
    )
    clipped = f", {percent(metrics.clipped)} % clipped" if metrics.clipped else ""
    text = f"The smallest change that helps: {label}: {effect}{clipped}."
    if chosen.needs_clamp:
        text += " Keep the ReLU as an operator of its own: these codes reach below zero."
    if layer.kind == "activation" and layer.op in _AS_ITS_INPUT:
        text += (
            f" TFLite gives {layer.op} its input's scale and zero point: change them at the input."
        )
    return Recommendation(text, chosen.name, after, None if math.isinf(gain) else gain)


def _nothing_cheap(found: WhatIf) -> Recommendation:
    """The recommendation if only more bits could help."""
    total, own = found.total, found.recorded.metrics
    assert total.mse is not None
    assert own.mse is not None
    from_elsewhere = 1 - own.mse / total.mse
    if from_elsewhere > 0.5:
        carried = significant(total.carried_rmse_scale or 0.0)
        return Recommendation(
            f"Nothing here helps: {percent(from_elsewhere)} % of the error power is carried, not "
            f"this quantizer's own (carried rmse/scale {carried}). No other range, symmetry or "
            "type removes it."
        )
    more = [
        each
        for each in found.alternatives
        if each.change == "bits" and each.params.bits > found.layer.params.bits
    ]
    bits = found.layer.params.bits
    wider = _simplest(found, more)
    rounding = f"the error is rounding at {bits} bits, SQNR {_db(total.sqnr_db)} dB"
    if wider is None:
        return Recommendation(f"Nothing here helps: {rounding}.")
    if total.sqnr_db is not None and total.sqnr_db < LOW_SQNR_DB:
        change = _change(found, wider)
        by_channel = [each for each in found.alternatives if each.name == "per_channel"]
        if found.layer.kind == "activation" and (best := _simplest(found, by_channel)):
            return Recommendation(
                f"{change.text} One scale per channel would give {_db(best.metrics.sqnr_db)} dB, "
                "but runtimes take one scale for an activation.",
                *(change.alternative, change.sqnr_db, change.gain_db),
            )
        return change
    gain = expected_gain_db(found, wider)
    effect = "remove it" if gain is None or math.isinf(gain) else f"give {gain:+.1f} dB"
    return Recommendation(
        f"Nothing cheaper than more bits helps: {rounding}; {LABELS[wider.name]} would {effect}."
    )


def _db(value: float | None) -> str:
    """As in tables."""
    return "-" if value is None else f"{value:.1f}"
