"""Diagnosis of layers whose steps differ within a channel: by `times_expected`, not rmse/scale.

The causes are those of `diagnosis`. A cause is named if it accounts for half of the excess, the
squared error beyond that of rounding alone; all squares here are in units of the latter, so that
the whole is times_expected^2 and rounding alone 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from qdebug.formatting import significant as _g
from qdebug.measure.metrics import (
    LOW_SQNR_DB,
    REFERENCE,
    TFLITE_THRESHOLD,
    TOLERATED_TIMES,
    ChannelMetrics,
    Metrics,
    metrics_at,
    times_expected_limit,
)
from qdebug.report.diagnosis import ERRORS, Diagnosis

# As in `diagnosis`: shares of the excess, steps, cosine, elements.
_EXPLAINS = 0.5
_LEAST_OFFSET = 0.25
_SAME_TENSOR = 0.5
_FEW = 16
# A line is another scale if its slope is at least this far from 1.
_OTHER_SLOPE = 0.05
# Variance of an error uniform over one step, in squared steps.
_UNIFORM = REFERENCE**2


def diagnose_grid(metrics: Metrics, channels: ChannelMetrics | None = None) -> Diagnosis:
    """What is wrong with a layer, and with which of its channels."""
    whole = _diagnose(metrics)
    if channels is None or whole.cause == "non-finite":
        return whole
    faults: dict[str, list[tuple[float, int, Metrics]]] = {}
    for first, columns in channels.columns():
        with np.errstate(invalid="ignore"):
            limit = 1 + TOLERATED_TIMES + _chance(len(channels)) * columns["times_expected_stderr"]
            places = np.flatnonzero(columns["times_expected"] > limit)
        for place, each in zip(places.tolist(), metrics_at(columns, places), strict=True):
            found = _diagnose(each, len(channels))
            if found.cause in ERRORS:
                faults.setdefault(found.cause, []).append((_excess(each), first + place, each))
    if not faults:
        return whole
    weight = {cause: sum(excess for excess, *_ in some) for cause, some in faults.items()}
    cause = max(weight, key=lambda name: weight[name])
    if whole.cause in ERRORS and weight[cause] < _EXPLAINS * _excess(metrics):
        return whole
    _, index, worst = max(faults[cause], key=lambda fault: fault[2].times_expected or 0.0)
    found = _diagnose(worst, len(channels))
    of = f"{len(faults[cause])} of {len(channels)} channels; the worst is {index}"
    return replace(found, evidence=f"{of}: {found.evidence}")


def _chance(of: int) -> float:
    """How many standard errors the most extreme of that many may be off by chance."""
    return 3 + math.sqrt(2 * math.log(of))


def _diagnose(m: Metrics, of: int = 1) -> Diagnosis:
    """What is wrong with a layer, or with one of the `of` channels of a layer."""
    if m.non_finite:
        count = f"{m.non_finite} of {m.num_elements + m.non_finite}"
        return Diagnosis(
            "bad",
            "non-finite",
            f"{count} floats or decoded values are NaN or infinite; the other figures exclude them",
            "look for scales that are NaN or infinite in the quantized file, and for such weights "
            "in the float one",
        )
    if not m.num_elements:
        return Diagnosis("ok", "ok", "no elements", "")
    if m.lost == 1:
        return Diagnosis(
            "bad",
            "coarse-scale",
            "all floats that are not zero become zero",
            "look for scales that are zero in the quantized file; quantize the tensor again",
        )
    if m.times_expected is None:
        return _without_cells(m)
    if m.times_expected <= times_expected_limit(m, _chance(of)):
        return _sound(m)
    return next(filter(None, (rule(m) for rule in _RULES)), None) or _carried(m)


def _without_cells(m: Metrics) -> Diagnosis:
    """A format without neighbours, or a tensor without error."""
    if not m.rmse:
        return Diagnosis("ok", "ok", "all floats are exact", "")
    if _is_another(m):
        return _another(m)
    return Diagnosis(
        "ok",
        None,
        f"the format has no steps to compare with: SQNR {_db(m)}, cosine "
        f"{_g(m.cosine_similarity or 0.0)}",
        "",
    )


def _sound(m: Metrics) -> Diagnosis:
    evidence = f"{_times(m)} +- {_g(m.times_expected_stderr or 0.0)}: rounding alone"
    if m.num_elements < _FEW:
        evidence += (
            f"; only {m.num_elements} element{'s' * (m.num_elements != 1)}: too few to say more"
        )
    return Diagnosis("ok", "ok", evidence, "")


# --- causes of an error above rounding, surest first ----------------------------------------------


def _is_another(m: Metrics) -> bool:
    return m.cosine_similarity is not None and abs(m.cosine_similarity) < _SAME_TENSOR


def _another(m: Metrics) -> Diagnosis:
    return Diagnosis(
        "bad",
        "carried",
        f"{_times(m)}; floats and decoded values do not correlate (cosine "
        f"{_g(m.cosine_similarity or 0.0)})",
        "most likely they are different tensors, or one tensor in two orders or layouts: compare "
        "names, transposition, the order of rows and of codes in a byte",
    )


def _not_the_same(m: Metrics) -> Diagnosis | None:
    return _another(m) if _is_another(m) else None


def _wrong_scale(m: Metrics) -> Diagnosis | None:
    """The floats are the decoded values times a number."""
    if m.fit_scale is None or m.fit_rmse_scale is None or m.fit_zero_point is None or not m.mse:
        return None
    square = _square(m)
    left = (m.fit_rmse_scale * m.fit_scale) ** 2 / m.mse * square
    if abs(m.fit_scale - 1) < _OTHER_SLOPE or square - left < _EXPLAINS * (square - 1):
        return None
    if left > m.fit_scale**2 / _UNIFORM:  # a step or more from the line, which has steps of its own
        return None
    factor = _g(m.fit_scale)
    return Diagnosis(
        _hurts(m),
        "wrong-scale",
        f"{_times(m)}: the floats are {factor} times the decoded values; with scales of that size "
        f"it would be {_g(math.sqrt(left) / abs(m.fit_scale))} times",
        f"multiply the recorded scales by {factor}, or look for a factor that the reader of the "
        "format applies otherwise than its writer (a global scale, a power of two)",
    )


def _bias(m: Metrics) -> Diagnosis | None:
    """The error is an offset of as many of each element's own steps."""
    square = _square(m)
    shapes = [(m.mean_error_scale, "everywhere"), (m.outward_error_scale, "away from zero")]
    fits = [(steps, square - steps**2 / _UNIFORM, w) for steps, w in shapes if steps is not None]
    if not fits:
        return None
    offset, left, where = min(fits, key=lambda fit: abs(fit[1] - 1))
    if abs(offset) < _LEAST_OFFSET or square - left < _EXPLAINS * (square - 1) or left < 0:
        return None
    steps = round(offset)
    if where == "away from zero" and offset < 0:
        advice = "the codes are truncated toward zero, as a cast does: round to the nearest"
    elif steps == 0 or abs(abs(offset) - 0.5) < abs(offset - steps):
        side = "down" if offset < 0 else "up"
        advice = f"the codes are rounded {side}: round to the nearest instead of truncating"
    else:
        advice = (
            f"the zero points or offsets of the blocks are off by {-steps:+d} steps: some formats "
            "store zero points minus one"
        )
    return Diagnosis(
        _hurts(m),
        "bias",
        f"{_times(m)}: the error is {offset:+.3g} steps {where}; without it, it would be "
        f"{_g(math.sqrt(left))} times",
        advice,
    )


def _clipping(m: Metrics) -> Diagnosis | None:
    if not m.clipped or m.clipped_error_share is None:
        return None
    square = _square(m)
    if m.clipped_error_share * square < _EXPLAINS * (square - 1):
        return None
    return Diagnosis(
        _hurts(m),
        "clipping",
        f"{_times(m)}: {_percent(m.clipped)} of the floats lie beyond the last code of their "
        f"block; they make {_percent(m.clipped_error_share)} of the error",
        "widen the blocks' ranges, or choose a format with finer scales: those that are powers of "
        "two clip up to half of a block's range",
    )


_RULES: Sequence[Callable[[Metrics], Diagnosis | None]] = (
    _not_the_same,
    _wrong_scale,
    _bias,
    _clipping,
)


def _carried(m: Metrics) -> Diagnosis:
    suffers = m.sqnr_db is not None and m.sqnr_db < LOW_SQNR_DB
    return Diagnosis(
        _hurts(m) if suffers else "warn",
        "carried",
        f"{_times(m)}, SQNR {_db(m)}: the values are farther from the floats than rounding to the "
        "nearest leaves them",
        "check that both files are of the same weights; methods that let later weights correct the "
        "error of earlier ones (GPTQ), or scale channels (AWQ), exceed 1 by design",
    )


def _square(m: Metrics) -> float:
    assert m.times_expected is not None
    return m.times_expected**2


def _excess(m: Metrics) -> float:
    """Squared error beyond rounding alone, in x's unit squared, of all elements together."""
    square = _square(m)
    return m.num_elements * (m.mse or 0.0) * (1 - 1 / square) if square else 0.0


def _hurts(m: Metrics) -> str:
    return "bad" if (m.times_expected or 0.0) > TFLITE_THRESHOLD / REFERENCE else "warn"


def _times(m: Metrics) -> str:
    if m.times_expected is None:
        return f"RMSE {_g(m.rmse or 0.0)}"
    return f"{_g(m.times_expected)} times the expected error"


def _db(m: Metrics) -> str:
    return "unknown" if m.sqnr_db is None else f"{_g(m.sqnr_db)} dB"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
