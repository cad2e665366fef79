"""Layers to diagnose, of figures made by hand: a sound one, and what is otherwise."""

import math
from typing import Any

from qdebug.measure.metrics import FIGURES, REFERENCE, Metrics
from qdebug.report.diagnosis import Diagnosis, Subject, diagnose

# A step without a rounding error of its own; codes of int8 then stand for [-16, 15.875].
STEP = 0.125
N = 1 << 14

# Ten thousand floats, spread evenly over the range, with rounding alone.
SOUND: dict[str, Any] = {
    "num_elements": N,
    "non_finite": 0,
    "mean_error_scale": 0.0,
    "outward_error_scale": 0.0,
    "stddev": REFERENCE * STEP,
    "max_abs_error_scale": 0.5,
    "rmse_scale": REFERENCE,
    "rmse_scale_expected": REFERENCE,
    "rmse_scale_stderr": 0.001,
    "quantizer_rmse_scale": REFERENCE,
    "carried_rmse_scale": 0.0,
    "clipped": 0.0,
    "clipped_error_share": 0.0,
    "lost": 0.01,
    "small": 0.05,
    "range_waste": 0.0,
    "range_waste_low": 0.0,
    "range_waste_high": 0.0,
    "sqnr_db": 40.0,
    "cosine_similarity": 1.0,
    "float_min": -16.0,
    "float_max": 15.5,
    "float_mean": 0.5,
    "float_mean_abs": 8.0,
}
# The square of an error that rounding alone leaves.
ROUNDING = REFERENCE**2
# More than half a step off somewhere, and nothing that says why: `carried`.
OFF = {"max_abs_error_scale": 2.0}
# Codes on a line of twice the recorded scale.
LINE = OFF | {
    "rmse_scale": 5.0,
    "fit_scale": 2 * STEP,
    "fit_zero_point": 3.2,
    "fit_rmse_scale": 0.29,
}

_ABOUT: dict[str, Any] = {
    "dtype": "int8",
    "bits": 8,
    "qmin": -128,
    "qmax": 127,
    "scale": STEP,
    "zero_point": 0,
}
_OTHERS = ("kind", "narrow_range", "op", "shape")


def metrics(**figures: Any) -> Metrics:
    """The figures of a sound layer, except for these."""
    return Metrics(**(dict.fromkeys(FIGURES) | SOUND | figures))


def subject(**given: Any) -> Subject:
    """A sound layer, except for these figures and for what is said about it."""
    about = {key: given.pop(key) for key in list(given) if key in (*_ABOUT, *_OTHERS)}
    return Subject(metrics(**given), **(_ABOUT | about))


def found(**given: Any) -> Diagnosis:
    """What is wrong with it."""
    return diagnose(subject(**given))


def cause(**given: Any) -> str | None:
    """Its cause."""
    return found(**given).cause


def offset_of(steps: float, left: float = ROUNDING, **more: Any) -> dict[str, Any]:
    """An error of a constant offset; without it the mean squared error is `left`."""
    rmse_scale = math.sqrt(steps**2 + left)
    return OFF | {"rmse_scale": rmse_scale, "mean_error_scale": steps} | more
