"""Diagnosis: verdict, cause, evidence and advice for a layer's error, from its Metrics alone.

Each rule below tests for one cause; docs/diagnosis.md shows them all. The data is not read again.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import (
    Float64Array,
    QuantScheme,
    middle_code,
    params_from_range,
    representable_range,
)
from qdebug.measure.metrics import (
    LOW_SQNR_DB,
    REFERENCE,
    TFLITE_THRESHOLD,
    ChannelMetrics,
    Columns,
    Metrics,
    metrics_at,
    tolerated_excess,
)

CAUSES = (
    "ok",
    "clipping",
    "bias",
    "wrong-scale",
    "carried",
    "weights",
    "arithmetic",
    "inherited",
    "coarse-scale",
    "range-waste",
    "constant",
    "non-finite",
    "unreadable",
)
# Causes of an error larger than rounding.
ERRORS = ("clipping", "bias", "wrong-scale", "carried", "weights", "arithmetic")

# Causes in channels that may be the layer's.
_IN_CHANNELS = (*ERRORS, "coarse-scale", "range-waste")

# A cause is named where it explains this share of the excess of the squared error.
_EXPLAINS = 0.5
# Codes other than the best ones are a cause only if they make at least this share of the excess.
_LEAST_CARRIED = 0.25
# Real kernels leave offsets below this many steps (sums, ties rounded one way).
_LEAST_OFFSET = 0.25
# The line through the codes explains more than an offset does if it leaves less than this share of
# the error that the offset leaves.
_LINE_IS_BETTER = 0.5
# A difference of squares below this share of them has lost too many digits.
_CANCELLED = 1e-6
# Below this cosine, floats and codes are hardly the same tensor.
_SAME_TENSOR = 0.5
# A scale is coarse if the mean magnitude of the bulk is below `_COARSE_STEPS` steps and the largest
# float exceeds it more than `_COARSE_PEAK` times. Four steps are 23 dB.
_COARSE_STEPS = 4.0
_COARSE_PEAK = 25.0
# Of floats that spread over the four steps that `Metrics.small` counts, one in nine becomes zero.
# If a tensor holds values of different magnitudes, the small ones lie within one step, and at least
# `_GONE_SHARE` of them become zero. They matter if they are `_SOME` of the non-zero floats. If
# `_GONE` of the non-zero floats become zero, the information is gone.
_GONE_SHARE = 0.3
_LOST_OF_SMALL = 0.2
_SOME = 0.1
_GONE = 0.5
# Operators whose results are probabilities, and the rounding allowed in a sum of them.
_PROBABILITIES = ("Softmax", "SOFTMAX", "Sigmoid", "LOGISTIC", "HardSigmoid")
_ROUNDED = 1e-3
# Symmetric codes of floats that are never negative waste half their range by design.
_WASTE = 0.55
# With fewer elements, chance alone moves rmse/scale by more than a tenth.
_FEW = 16


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a layer.

    Attributes:
        verdict: how bad it is: ``ok``, ``warn``, ``bad`` or ``unreadable``.
        cause: one of `CAUSES`; None if the available figures do not show it.
        evidence: the figures that show the cause.
        advice: one step to take; empty if there is nothing to do.
    """

    verdict: str
    cause: str | None
    evidence: str
    advice: str


@dataclass(frozen=True)
class Subject:
    """What is diagnosed: the figures of a layer or channel and how it is quantized.

    `scale` is None if each channel has its own.
    """

    metrics: Metrics
    dtype: str
    bits: int
    qmin: int
    qmax: int
    scale: float | None
    zero_point: int | None
    kind: str | None = None
    narrow_range: bool = False
    op: str | None = None
    shape: tuple[int, ...] = ()

    @property
    def scheme(self) -> QuantScheme:
        """The scheme to quantize it again: symmetric if its zero point is the middle code."""
        symmetric = self.zero_point == middle_code((self.qmin, self.qmax))
        return QuantScheme(self.dtype, self.bits, self.narrow_range, symmetric)


def unreadable(reason: str) -> Diagnosis:
    """The diagnosis of a layer whose arrays do not make a pair."""
    return Diagnosis(
        verdict="unreadable",
        cause="unreadable",
        evidence=reason,
        advice="write the layer's arrays again; docs/pair-file.md has the format",
    )


def diagnose(subject: Subject, of: int = 1) -> Diagnosis:
    """What is wrong with a layer, or with one of the `of` channels of a layer."""
    m = subject.metrics
    if m.non_finite:
        count = f"{m.non_finite} of {m.num_elements + m.non_finite}"
        return Diagnosis(
            "bad",
            "non-finite",
            f"{count} floats are NaN or infinite; the other figures exclude them",
            "find the operator that makes them in the float model: quantization cannot repair it",
        )
    if not m.num_elements:
        return Diagnosis("ok", "ok", "no elements", "")
    if m.rmse_scale is None:
        return Diagnosis(
            "warn", None, "rmse/scale is unknown: finding the cause needs the tensors", ""
        )
    if m.rmse_scale - _expected(m) > tolerated_excess(m, _chance(of)):
        error = next(filter(None, (rule(subject) for rule in _ERROR_RULES)), None)
        if error is not None:
            return error
    return next(filter(None, (rule(subject) for rule in _RANGE_RULES)), None) or _sound(m)


def diagnose_channels(
    subject: Subject, channels: ChannelMetrics, channel: Callable[[int, Metrics], Subject]
) -> Diagnosis:
    """What is wrong with a layer, and with which of its channels, each of which has its own scale.

    There may be very many: `channel` makes the subject of those that may have a cause.
    """
    whole = diagnose(subject)
    if whole.cause == "non-finite":
        return whole
    faults: dict[str, _Fault] = {}
    for first, columns in channels.columns():
        places = np.flatnonzero(_suspect(columns, channels.scale(first), len(channels)))
        for place, metrics in zip(places.tolist(), metrics_at(columns, places), strict=True):
            each = channel(first + place, metrics)
            cause = diagnose(each, len(channels)).cause
            if cause in _IN_CHANNELS:
                faults.setdefault(cause, _Fault()).add(first + place, each)
    cause = _channels_cause(whole, subject.metrics, faults, len(channels))
    return whole if cause is None else faults[cause].diagnosis(len(channels))


def _chance(of: int) -> float:
    """How many standard errors the most extreme `of` that many may be off by chance."""
    return 3 + math.sqrt(2 * math.log(of))


def _expected(m: Metrics) -> float:
    return REFERENCE if m.rmse_scale_expected is None else m.rmse_scale_expected


def _rmse_scale(m: Metrics) -> float:
    assert m.rmse_scale is not None
    return m.rmse_scale


def _excess(m: Metrics) -> float:
    """Mean squared error beyond rounding alone, in squared steps."""
    return _rmse_scale(m) ** 2 - _expected(m) ** 2


def _explains(m: Metrics, left: float) -> bool:
    """Whether a cause explains the excess; without it the mean squared error would be `left`."""
    return _rmse_scale(m) ** 2 - left >= _EXPLAINS * _excess(m)


def _own_rounding(m: Metrics) -> bool:
    """Whether the codes are as good as any others: this quantizer makes all of the error itself."""
    if m.quantizer_rmse_scale is None or m.max_abs_error_scale is None:
        return False
    carried = _rmse_scale(m) ** 2 - m.quantizer_rmse_scale**2
    return m.max_abs_error_scale < 0.501 or carried < _LEAST_CARRIED * _excess(m)


def _hurts(m: Metrics) -> str:
    return "bad" if _rmse_scale(m) > TFLITE_THRESHOLD else "warn"


# --- causes of an error above rounding, surest first ---------------------------------------------


def _wrapped(s: Subject) -> Diagnosis | None:
    """Codes read as the other type with as many bits (int8 as uint8).

    If only the codes were misread, those of one sign are off by the whole code range. If the zero
    point is the other type's, all are off by half of it, up or down.
    """
    m, turn = s.metrics, 2.0**s.bits
    if m.max_abs_error_scale is None or m.mean_error_scale is None or _own_rounding(m):
        return None
    square = _rmse_scale(m) ** 2
    whole = abs(m.max_abs_error_scale - turn) <= 1 and (
        abs(square - turn * abs(m.mean_error_scale)) <= 0.02 * square
    )
    half = abs(m.max_abs_error_scale - turn / 2) <= 1 and abs(_rmse_scale(m) - turn / 2) <= 1
    if not whole and not half:
        return None
    share = abs(m.mean_error_scale) / turn if whole else 1.0
    other = s.dtype[1:] if s.dtype.startswith("u") else f"u{s.dtype}"
    return Diagnosis(
        _hurts(m),
        "bias",
        f"{_percent(share)} of the codes are {turn if whole else turn / 2:.0f} steps off, "
        f"{'a whole turn' if whole else 'half a turn'} of {s.bits} bits",
        f"the codes were most likely {other}, read as {s.dtype}: read them as {other}",
    )


def _offset(s: Subject) -> tuple[float, float, str]:
    """The constant offset that fits the error best, in steps; the squared error it leaves; where.

    Exact zeros stay exact if codes are rounded down or truncated toward zero, but not if the zero
    point is off. All are tried; the one that leaves an error closest to rounding is taken.
    """
    m = s.metrics
    assert m.mean_error_scale is not None
    square, mean = _rmse_scale(m) ** 2, m.mean_error_scale
    not_zero = (_expected(m) / REFERENCE) ** 2
    left = square - mean**2
    if left < _CANCELLED * square and m.stddev is not None and s.scale is not None:
        left = (m.stddev / s.scale) ** 2  # the same, with all its digits
    fits = [(mean, left, "everywhere")]
    if not_zero * m.num_elements >= 4:  # with fewer elements any offset leaves little
        shapes = [(mean, "wherever x is not zero"), (m.outward_error_scale, "away from zero")]
        for shape, where in shapes:
            # The mean of an offset cannot exceed its root mean square.
            if shape is not None and shape**2 <= square * not_zero:
                fits.append((shape / not_zero, square - shape**2 / not_zero, where))
    return min(fits, key=lambda fit: abs(fit[1] - _expected(m) ** 2))


def _line_left(s: Subject) -> float | None:
    """The squared error that the least-squares line leaves, in squared steps, if known."""
    m = s.metrics
    if m.fit_scale is None or m.fit_rmse_scale is None or not s.scale or m.fit_scale <= 0:
        return None
    if m.fit_rmse_scale > 1:  # not a line: bent by clipping, or a cloud
        return None
    return (m.fit_rmse_scale * m.fit_scale / s.scale) ** 2


def _wrong_scale(s: Subject) -> Diagnosis | None:
    m, left = s.metrics, _line_left(s)
    if left is None or m.mean_error_scale is None or not _explains(m, left) or _own_rounding(m):
        return None
    if left >= _LINE_IS_BETTER * _offset(s)[1]:
        return None
    assert m.fit_scale is not None
    assert m.fit_zero_point is not None
    assert s.scale is not None
    zero_point = round(m.fit_zero_point)
    advice = "quantize with the recorded scale"
    if s.qmin <= zero_point <= s.qmax:
        advice = f"record scale {_g(m.fit_scale, 6)} and zero point {zero_point}, or {advice}"
    else:
        advice += f": zero point {zero_point} of that line is outside {s.qmin} to {s.qmax}"
    return Diagnosis(
        _hurts(m),
        "wrong-scale",
        f"the codes lie on a line with scale {_g(m.fit_scale)} and zero point "
        f"{_g(m.fit_zero_point)}, {_g(m.fit_rmse_scale)} of its steps from the floats; recorded "
        f"are {_g(s.scale)} and {s.zero_point}",
        advice,
    )


def _bias(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if m.mean_error_scale is None or _own_rounding(m):
        return None
    offset, left, where = _offset(s)
    if abs(offset) < _LEAST_OFFSET or left > 1 or not _explains(m, left):
        return None
    steps = round(offset)
    evidence = (
        f"the error is {offset:+.3g} steps {where}; without it rmse/scale would be "
        f"{_g(math.sqrt(max(left, 0.0)))} instead of {_g(_rmse_scale(m))}"
    )
    if where == "away from zero" and offset < 0:
        advice = "the codes are truncated toward zero, as a cast does: round to the nearest"
    elif steps == 0 or abs(abs(offset) - 0.5) < abs(offset - steps):
        side = "down" if offset < 0 else "up"
        advice = f"the codes are rounded {side}: round to the nearest instead of truncating"
    elif s.zero_point is None:
        advice = f"the recorded zero points are off by {-steps:+d}"
    elif s.qmin <= s.zero_point + steps <= s.qmax:
        advice = f"the zero point is off by {-steps:+d}: {s.zero_point + steps} would fit"
    else:
        advice = (
            f"the codes are {abs(steps)} too {'low' if steps < 0 else 'high'}, and no zero point "
            f"can correct that ({s.zero_point + steps} is outside {s.qmin} to {s.qmax}): quantize "
            "the floats again"
        )
        if m.float_min is not None and m.float_max is not None:
            again = params_from_range(m.float_min, m.float_max, s.scheme)
            advice += (
                f", with scale {_g(float(again.scale[0]))} and zero point {again.zero_point[0]} "
                f"for [{_g(m.float_min)}, {_g(m.float_max)}]"
            )
    return Diagnosis(_hurts(m), "bias", evidence, advice)


def _clipping(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if m.quantizer_rmse_scale is None or not m.clipped or m.clipped_error_share is None:
        return None
    own = m.quantizer_rmse_scale**2 - _expected(m) ** 2
    if m.clipped_error_share < 0.5 or own < _EXPLAINS * _excess(m):
        return None
    where = "outside the representable range"
    advice = "calibrate with more data, or widen the range"
    if s.scale is not None and s.zero_point is not None:
        assert m.float_min is not None
        assert m.float_max is not None
        low, high = representable_range(s.scale, s.zero_point, (s.qmin, s.qmax))
        ends = []
        if m.float_max > high + s.scale / 2:
            ends.append(f"above {_g(high)}, the largest representable value")
        if m.float_min < low - s.scale / 2:
            ends.append(f"below {_g(low)}, the least representable value")
        where = " or ".join(ends) or where
        wider = params_from_range(min(m.float_min, low), max(m.float_max, high), s.scheme)
        advice += (
            f" to [{_g(min(m.float_min, low))}, {_g(max(m.float_max, high))}]: scale "
            f"{_g(float(wider.scale[0]))}"
        )
    if s.kind == "bias" and s.scale is not None:
        advice = (
            f"the bias's scale {_g(s.scale)} is the input's scale times the weights', and the "
            "weights are nearly zero here: give them a scale no smaller than that of the other "
            "channels, or leave the operator in float"
        )
    return Diagnosis(
        _hurts(m),
        "clipping",
        f"{_percent(m.clipped)} of the floats lie {where}; they make "
        f"{_percent(m.clipped_error_share)} of this quantizer's error",
        advice,
    )


def _carried(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if m.quantizer_rmse_scale is None or m.carried_rmse_scale is None:
        return Diagnosis(
            _hurts(m),
            None,
            f"rmse/scale {_g(_rmse_scale(m))}; finding the cause needs the tensors",
            "capture the layer's tensors and report on them",
        )
    if _rmse_scale(m) - m.quantizer_rmse_scale <= tolerated_excess(m):
        return None  # rounding alone, of floats not spread evenly between the codes
    suffers = m.sqnr_db is not None and m.sqnr_db < LOW_SQNR_DB
    look = {
        "weight": "the weights were not quantized with the recorded parameters: convert them again",
        "bias": "the bias was not quantized with the recorded scale: convert it again",
    }.get(
        s.kind or "",
        "check what feeds this layer: its weights (per channel? 16 bits?), its kernel, the layers "
        "before it",
    )
    expected = m.quantizer_rmse_scale - _expected(m) <= tolerated_excess(m)
    if m.cosine_similarity is not None and m.cosine_similarity < _SAME_TENSOR:
        look = (
            "floats and codes do not correlate: most likely they are different tensors, or one "
            "tensor in two orders or layouts (NCHW, NHWC)"
        )
    own = (
        f"the quantizer itself leaves {_g(m.quantizer_rmse_scale)} steps"
        f"{', as it should' if expected else f', {_g(_expected(m))} expected'}; "
    )
    cause, said = "carried", f"the codes are {_g(m.carried_rmse_scale)} steps from the best ones"
    if (found := _split(m)) is not None and s.kind not in ("weight", "bias"):
        cause, said, look = found
    return Diagnosis(_hurts(m) if suffers else "warn", cause, own + said, look)


def _split(m: Metrics) -> tuple[str, str, str] | None:
    """Whether the weights or the kernel brought the error: cause, evidence and advice."""
    weights, kernel = m.weights_rmse_scale, m.arithmetic_rmse_scale
    if weights is None or kernel is None:
        return None
    if weights >= kernel:
        beside = f", its kernel's arithmetic by {_g(kernel)}" if kernel else ""
        return (
            "weights",
            f"the operator's quantized weights move its output by {_g(weights)} steps{beside}",
            "quantize its weights finer: a scale per channel, more bits, or train with quantized "
            "weights",
        )
    beside = f"; its weights move the output by {_g(weights)} steps" if weights else ""
    return (
        "arithmetic",
        f"the kernel's codes are {_g(kernel)} steps from those of its own inputs and weights in "
        f"float{beside}",
        "compare the kernel with the specification (qdebug replay), and with other kernels; report "
        "it if it is at fault",
    )


_ERROR_RULES: Sequence[Callable[[Subject], Diagnosis | None]] = (
    _wrapped,
    _wrong_scale,
    _bias,
    _clipping,
    _carried,
)


# --- causes that rmse/scale does not show ---------------------------------------------------------


def _constant(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if m.num_elements < 2 or m.float_min is None or m.float_min != m.float_max:
        return None
    if s.kind in ("weight", "bias"):  # by design: a bias that is not used, a table of strides
        return None
    return Diagnosis(
        "warn",
        "constant",
        f"all {m.num_elements} floats are {_g(m.float_min + 0.0)}",
        "calibrate and measure with real data; a tensor that is constant by design can be folded",
    )


def _is_gone(m: Metrics) -> bool:
    """Whether there are many small floats and they lie within one step."""
    if m.lost is None or m.small is None or m.small < _SOME:
        return False
    not_zero = (_expected(m) / REFERENCE) ** 2 * m.num_elements
    small, lost = m.small * not_zero, m.lost * not_zero
    if small < _FEW:
        return False
    # Among few, chance alone can reach the share: allow four standard deviations.
    by_chance = _LOST_OF_SMALL * small + 4 * math.sqrt(_LOST_OF_SMALL * small)
    return m.lost >= max(_GONE_SHARE * m.small, _SOME) and lost > by_chance


def _coarse_scale(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if s.scale is None or m.float_mean_abs is None or m.num_elements < _FEW or _probabilities(s):
        return None
    if s.kind == "bias":  # its step follows from input and weights, and is finer than needed
        return None
    assert m.float_min is not None
    assert m.float_max is not None
    peak = max(abs(m.float_min), abs(m.float_max))
    if _is_gone(m):
        assert m.lost is not None
        assert m.small is not None
        # More than a constant at the end of the range has if its error is uniform over a step:
        # nearly all of the signal lies exactly on codes, as that of a mask does.
        exact = m.sqnr_db is not None and m.sqnr_db > 20 * math.log10(2**s.bits / REFERENCE)
        advice = "use 16 bits or a scale per channel, or leave the operators around it in float"
        if exact and m.float_min == -peak:
            advice = (
                "in the float model, clip large values that carry no information, such as a mask's "
                f"{_g(m.float_min)}; or leave the operators around it in float"
            )
        return Diagnosis(
            "bad" if exact or m.lost >= _GONE else "warn",
            "coarse-scale",
            f"{_percent(m.lost)} of the floats that are not zero become zero: the step is "
            f"{_g(s.scale)}, the largest magnitude {_g(peak)}; {_percent(m.small)} lie within four "
            "steps of zero",
            advice,
        )
    others = (_expected(m) / REFERENCE) ** 2 * m.num_elements - 1  # non-zero, but for the peak
    if others < 1:
        return None
    bulk = (m.float_mean_abs * m.num_elements - peak) / others
    if bulk >= _COARSE_STEPS * s.scale or peak <= _COARSE_PEAK * bulk:
        return None
    # A signal of this size against an error uniform over one step.
    sqnr_db = 20 * math.log10(max(bulk / s.scale, 1e-9) / REFERENCE)
    return Diagnosis(
        "warn",
        "coarse-scale",
        f"the largest float is {_g(peak)}, {_g(peak / bulk) if bulk else 'many'} times the mean "
        f"magnitude of the others, {_g(bulk)}: {_g(bulk / s.scale)} steps, an SQNR of about "
        f"{_g(sqnr_db)} dB for the bulk",
        "use 16 bits or a scale per channel, or exclude outliers that do not matter from the range",
    )


def _probabilities(s: Subject) -> bool:
    """Whether the floats are probabilities: the small ones may become zero without harm.

    The operator says so, or the sums of all rows along an axis are 1.
    """
    m = s.metrics
    if m.float_min is None or m.float_max is None or m.float_mean is None:
        return False
    if m.float_min < 0 or m.float_max > 1 + _ROUNDED or m.non_finite:
        return False
    sums = (abs(m.float_mean * length - 1) for length in s.shape if length > 1)
    return s.op in _PROBABILITIES or any(off < _ROUNDED for off in sums)


def wasted(share: float) -> bool:
    """Whether this share of unused codes counts as range waste."""
    return share > _WASTE


def _range_waste(s: Subject) -> Diagnosis | None:
    m = s.metrics
    if m.range_waste is None or not wasted(m.range_waste) or s.scale is None:
        return None
    if m.num_elements < _FEW:
        return None
    assert m.range_waste_low is not None
    assert m.range_waste_high is not None
    assert m.float_min is not None
    assert m.float_max is not None
    # A range must include zero; the codes that this wastes are no fault.
    finer = params_from_range(m.float_min, m.float_max, s.scheme).scale[0]
    if finer >= (1 - _WASTE) * s.scale:
        return None
    return Diagnosis(
        "warn",
        "range-waste",
        f"{_percent(m.range_waste)} of the codes are never used: {_percent(m.range_waste_low)} at "
        f"the lower end, {_percent(m.range_waste_high)} at the upper",
        f"calibrate with data as the model meets it: for [{_g(m.float_min)}, "
        f"{_g(m.float_max)}] the scale could be {_g(float(finer))} instead of {_g(s.scale)}",
    )


_RANGE_RULES: Sequence[Callable[[Subject], Diagnosis | None]] = (
    _constant,
    _coarse_scale,
    _range_waste,
)


def _sound(m: Metrics) -> Diagnosis:
    """Rounding alone."""
    evidence = f"rmse/scale {_g(_rmse_scale(m))}, expected {_g(_expected(m))}"
    if m.rmse_scale_stderr is not None:
        evidence += f" +- {_g(m.rmse_scale_stderr)}"
    if m.exceeds_reference:
        evidence += ": still rounding alone, of floats not spread evenly between the codes"
    if m.num_elements < _FEW:
        evidence += (
            f"; only {m.num_elements} element{'s' * (m.num_elements != 1)}: too few to say more"
        )
    return Diagnosis("ok", "ok", evidence, "")


# --- channels -------------------------------------------------------------------------------------


def _suspect(columns: Columns, scale: Float64Array, channels: int) -> NDArray[np.bool_]:
    """Channels that may have a cause: what the rules ask for at least, of arrays."""
    c, n = columns, columns["num_elements"]
    with np.errstate(all="ignore"):
        expected = c["rmse_scale_expected"]
        above = c["rmse_scale"] - expected > _chance(channels) * c["rmse_scale_stderr"]
        gone = (c["small"] >= _SOME) & (c["lost"] >= _SOME)
        peak = np.maximum(np.abs(c["float_min"]), np.abs(c["float_max"]))
        bulk = (c["float_mean_abs"] * n - peak) / ((expected / REFERENCE) ** 2 * n - 1)
        coarse = (bulk < _COARSE_STEPS * scale) & (peak > _COARSE_PEAK * bulk)
        suspect: NDArray[np.bool_] = above | gone | coarse | (c["range_waste"] > _WASTE)
    return suspect


class _Fault:
    """The channels with one cause: how many, how much of the error is theirs, the worst."""

    def __init__(self) -> None:
        self.count, self.weight = 0, 0.0
        self._worst: tuple[float, int, Subject] | None = None

    def add(self, index: int, subject: Subject) -> None:
        """Add a channel."""
        self.count += 1
        self.weight += subject.metrics.num_elements * _excess(subject.metrics)
        rmse_scale = _rmse_scale(subject.metrics)
        if self._worst is None or rmse_scale > self._worst[0]:
            self._worst = rmse_scale, index, subject

    def diagnosis(self, channels: int) -> Diagnosis:
        """The diagnosis of the worst channel, and how many of all channels have the cause."""
        assert self._worst is not None
        rmse_scale, index, subject = self._worst
        found = diagnose(subject, channels)
        return replace(
            found,
            evidence=f"{self.count} of {channels} channels; the worst is {index} (rmse/scale "
            f"{_g(rmse_scale)}): {found.evidence}",
        )


def _channels_cause(
    whole: Diagnosis, metrics: Metrics, faults: Mapping[str, _Fault], channels: int
) -> str | None:
    """The cause in the channels that explains the layer, by weight; None if none does."""
    errors = [cause for cause in faults if cause in ERRORS]
    if errors:
        cause = max(errors, key=lambda name: faults[name].weight)
        if whole.cause not in ERRORS:  # the whole layer's error may even be too large for float64
            return cause
        excess = max(metrics.num_elements * _excess(metrics), 0.0)
        if faults[cause].weight >= _EXPLAINS * excess:
            return cause
    for cause in ("coarse-scale", "range-waste"):
        if whole.cause == "ok" and cause in faults and faults[cause].count > channels / 2:
            return cause
    return None


# --- where a model's error began ------------------------------------------------------------------


def origin(
    metrics: Sequence[Metrics | None],
    names: Sequence[str],
    place: int,
    feeders: Sequence[Collection[int]] | None = None,
) -> str | None:
    """Whether the model's error at a layer was made there or inherited, and since which layer.

    None if there is no run of the float model to compare with.

    Args:
        metrics: of all layers; None if unreadable.
        names: of all layers.
        place: of the layer.
        feeders: for each layer, the layers that feed it, the one with the most error first. If
            None, the layers form a chain.
    """
    here = metrics[place]
    if here is None or here.model_rmse_scale is None or here.inherited_rmse_scale is None:
        return None
    if here.rmse_scale is None or here.model_sqnr_db is None:
        return None
    said = (
        f"against the float model's own run {_g(here.model_rmse_scale)} steps: "
        f"{_g(here.inherited_rmse_scale)} inherited, {_g(here.rmse_scale)} made here"
    )
    whole = here.model_rmse_scale * here.model_rmse_scale
    parts = (
        here.inherited_rmse_scale * here.inherited_rmse_scale + here.rmse_scale * here.rmse_scale
    )
    if abs(whole - parts) <= _ADD_WITHIN * whole:
        said += " (they add in squares)"
    if here.inherited_rmse_scale <= here.rmse_scale:
        return said
    if feeders is None:
        feeders = [range(max(each - 1, 0), each) for each in range(len(metrics))]
    # Go back past layers that had lost nearly as much, to where the signal was better.
    first, at = None, place
    while feeders[at]:
        at = next(iter(feeders[at]))
        earlier = metrics[at]
        if earlier is None or earlier.model_sqnr_db is None:
            continue
        if earlier.model_sqnr_db > here.model_sqnr_db + _NEARLY_DB:
            break
        first = names[at]
    return said if first is None else f"{said}, seen first at '{first}'"


_NEARLY_DB = 3.0

# Two errors add in squares if the sum of their squares is within this share of the square of the
# whole. Errors that are not independent do not.
_ADD_WITHIN = 0.1


def _g(value: float | None, digits: int = 3) -> str:
    return "?" if value is None else f"{value:.{digits}g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
