"""Layers that are healthy or have one known fault, and how often the diagnosis names it.

``python tests/faults.py`` prints the confusion matrix that docs/diagnosis.md shows.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))

from qdebug.arithmetic.affine import QuantParams, QuantScheme, params_from_range, quantize
from qdebug.measure.layer import Layer
from qdebug.measure.metrics import layers_metrics
from qdebug.report.diagnosis import CAUSES, Diagnosis
from qdebug.report.report import layer_report
from tests.visits import statistics_of

Floats = NDArray[np.float64]

DISTRIBUTIONS = (
    "normal",
    "relu",
    "uniform",
    "laplace",
    "shifted",
    "narrow",
    "bimodal",
    "grid",
    "heavy-tailed",
)
DTYPES = ("int8", "uint8", "int16")
SIZES = (16, 64, 300, 2000, 20_000, 200_000, 1_000_000)
SHARES = (0.2, 0.2, 0.2, 0.2, 0.182, 0.016, 0.002)
# The others need the layers around, or the operator's run with its quantized weights.
_ELSEWHERE = ("ok", "unreadable", "inherited", "weights", "arithmetic")
FAULTS = tuple(cause for cause in CAUSES if cause not in _ELSEWHERE)
CHANNELS = 8
EACH = 1000  # layers of each fault in docs/diagnosis.md

_TOGETHER = 500


@dataclass(frozen=True)
class Case:
    """One layer with what is true of it."""

    fault: str
    description: str
    x: Floats
    codes: NDArray[np.integer]
    params: QuantParams
    # Whether the fault at least doubles the error, or wastes more than half the range: fainter
    # ones need not be named.
    gross: bool
    kind: str | None = None
    op: str | None = None


def draw(rng: np.random.Generator, distribution: str, size: int) -> Floats:
    """Floats of some unit."""
    unit = 10 ** rng.uniform(-3, 3)
    if distribution == "uniform":
        return unit * rng.uniform(-1, 1, size)
    if distribution == "laplace":
        return unit * rng.laplace(size=size)
    if distribution == "heavy-tailed":
        return unit * rng.standard_t(6, size)
    x = rng.normal(size=size)
    if distribution == "relu":
        x = np.maximum(x, 0)
    elif distribution == "shifted":
        x = x + 5
    elif distribution == "narrow":  # in a few codes, far from zero
        x = x + 100
    elif distribution == "grid":  # few distinct values
        x = np.rint(7 * x) / 10
    elif distribution == "bimodal":
        x = 0.3 * x + np.where(rng.random(size) < 0.5, -2, 2)
    return unit * x


def shaped(rng: np.random.Generator, x: Floats, per_channel: bool) -> tuple[Floats, int | None]:
    """The floats as a tensor; per channel, each channel with a unit of its own."""
    if not per_channel:
        return x, None
    units = 10 ** rng.uniform(-1, 1, (CHANNELS, 1))
    return x.reshape(CHANNELS, -1) * units, 0


def healthy(x: Floats, dtype: str, axis: int | None) -> QuantParams:
    """Parameters from the least and largest float."""
    if axis is None:
        low, high = np.array(x.min()), np.array(x.max())
    else:
        low, high = x.min(axis=1), x.max(axis=1)
    return params_from_range(low, high, QuantScheme(dtype), axis)


def rmse_scale(x: Floats, codes: NDArray[np.integer], params: QuantParams) -> float:
    scale, zero_point = params.along(x.ndim)
    return float(np.sqrt(np.mean(((codes - zero_point) - x / scale) ** 2)))


def with_params(params: QuantParams, scale: Floats, zero_point: NDArray[np.int64]) -> QuantParams:
    return QuantParams.of(scale, zero_point, params.dtype, axis=params.axis)


def make(rng: np.random.Generator, fault: str) -> Case:
    """A layer with this fault, or a healthy one for ``ok``."""
    size = int(rng.choice(SIZES, p=SHARES))
    distribution, dtype = str(rng.choice(DISTRIBUTIONS)), str(rng.choice(DTYPES))
    if fault == "wrong-scale" and distribution == "narrow":
        # In a few codes far from zero a wrong scale is a constant offset: nobody can tell.
        distribution = "grid"
    per_channel = size >= 300 and size % CHANNELS == 0 and rng.random() < 0.4
    x, axis = shaped(rng, draw(rng, distribution, size), per_channel)
    params = healthy(x, dtype, axis)
    codes = quantize(x, params)
    what = f"{distribution} {dtype} {x.shape}"
    if fault == "ok":
        return Case(fault, what, x, codes, params, True)
    base = rmse_scale(x, codes, params)
    scale, zero_point = params.scale, params.zero_point
    qmin, qmax = params.qmin, params.qmax
    gross = True
    if fault == "clipping" and dtype == "int8" and axis is None and rng.random() < 0.3:
        # A bias whose scale, of an input and nearly zero weights, is too small for int32.
        tiny = float(np.abs(x).max() / 2**31 * 10 ** rng.uniform(-3, -0.5))
        params = QuantParams.of(tiny, 0, "int32")
        what = f"{distribution} bias {x.shape} saturated"
        return Case(fault, what, x, quantize(x, params), params, True, kind="bias")
    if fault == "clipping":
        kept = rng.uniform(0.3, 0.98)
        low, high = x.min(), x.max()
        if axis is not None:
            low, high = x.min(axis=1), x.max(axis=1)
        params = params_from_range(low * kept, high * kept, QuantScheme(dtype), axis)
        codes = quantize(x, params)
        what += f" range x {kept:.2f}"
    elif fault == "bias":
        kind = rng.choice(["zero point", "truncation", "wrapped"])
        if kind == "zero point":
            by = int(rng.choice([-20, -5, -3, -2, -1, 1, 2, 3, 5, 20]))
            off = np.clip(zero_point + by, qmin, qmax)
            gross = bool((off != zero_point).all())
            params = with_params(params, scale, off)
            what += f" zero point {by:+d}"
        elif kind == "truncation":
            along, zeros = params.along(x.ndim)
            truncated = np.floor if rng.random() < 0.5 else np.trunc
            codes = np.clip(truncated(x / along) + zeros, qmin, qmax).astype(dtype)
        else:
            # The bits of one type read as the other, with the zero point of either.
            other = dtype[1:] if dtype.startswith("u") else f"u{dtype}"
            half = 2 ** (params.bits - 1) * (1 if other.startswith("u") else -1)
            low = 0 if other.startswith("u") else qmin + half
            ours = np.clip(zero_point, max(qmin, low), min(qmax, low + 2 * abs(half) - 1))
            kept = rng.random() < 0.5 and bool((ours == zero_point).all())
            params = QuantParams.of(
                scale, zero_point if kept else zero_point + half, other, axis=axis
            )
            codes = codes.view(other)
            gross = bool((codes.min() < abs(half)) or (codes.max() >= abs(half)))
        what += f" {kind}"
    elif fault == "wrong-scale":
        by = float(rng.choice([0.5, 0.7, 0.9, 0.97, 1.03, 1.1, 1.4, 2.0]))
        params = with_params(params, scale * by, zero_point)
        what += f" scale x {by}"
    elif fault == "carried":
        noise = float(rng.choice([0.5, 0.7, 1.0, 3.0, 10.0]))
        along = params.along(x.ndim)[0]
        codes = quantize(x + noise * along * rng.normal(size=x.shape), params)
        what += f" noise {noise} steps"
    elif fault == "coarse-scale":
        kind = str(rng.choice(["outlier", "outlier", "mask", "joined", "variance"]))
        if kind != "outlier" and size >= 300:
            return several_magnitudes(rng, kind, size, dtype)
        by = float(rng.choice([30, 100, 300, 1000]))
        peak = np.abs(x).max() if axis is None else np.abs(x).max(axis=1)
        x = x.copy()
        if axis is None:
            x.flat[rng.integers(x.size)] = by * peak
        else:
            x[:, 0] = by * peak
        params = healthy(x, dtype, axis)
        codes = quantize(x, params)
        # Coarse: the bulk within a few steps.
        rest = np.where(np.abs(x) == np.abs(x).max(axis=-1, keepdims=True), 0, np.abs(x))
        bulk = rest.sum(axis=-1) / np.maximum(np.count_nonzero(rest, axis=-1), 1)
        gross = bool((bulk < 3 * params.scale).all())
        what += f" outlier x {by:.0f}"
    elif fault == "range-waste":
        by = float(rng.choice([1.5, 2.5, 4.0, 8.0]))
        params = with_params(params, scale * by, zero_point)
        codes = quantize(x, params)
        used = (int(codes.max()) - int(codes.min())) / (qmax - qmin)
        lost = 1 - healthy(x, dtype, axis).scale / params.scale
        gross = bool(used < 0.45 and (lost > 0.55).all())
        what += f" range x {by}"
    elif fault == "constant":
        x = np.full(x.shape, x.flat[0] or 1.0)
        params = healthy(x, dtype, axis)
        codes = quantize(x, params)
    elif fault == "non-finite":
        x = x.copy()
        x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
    if fault in ("clipping", "bias", "wrong-scale", "carried"):
        gross = gross and rmse_scale(x, codes, params) >= 2 * max(base, 1e-9)
    return Case(fault, what, x, codes, params, gross)


def several_magnitudes(rng: np.random.Generator, kind: str, size: int, dtype: str) -> Case:
    """A tensor whose parts differ in magnitude by more than the codes can hold."""
    if dtype == "int16":
        dtype = "int8"
    x = draw(rng, str(rng.choice(["normal", "uniform", "laplace", "bimodal"])), size)
    peak = float(np.abs(x).max())
    here = rng.random(size) < rng.uniform(0.2, 0.7)
    op = None
    if kind == "mask":  # of attention: -inf as a float
        x = np.where(here, float(rng.choice([-1e4 * peak, -1e30, -3.4e38])), x)
    elif kind == "joined":  # boxes and scores
        x = np.where(here, np.sign(x) * 1000 * peak * rng.random(size), x)
        op = "Concat"
    else:  # variances: squares over several orders of magnitude
        x = 10 ** rng.uniform(-3, 3) * np.exp(3 * rng.normal(size=size))
    params = healthy(x, dtype, None)
    codes = quantize(x, params)
    zero = int(params.zero_point[0])
    lost = float(np.mean(codes[x != 0] == zero))
    return Case("coarse-scale", f"{kind} {dtype} {x.shape}", x, codes, params, lost > 0.25, op=op)


def diagnosed(cases: Iterable[Case]) -> Iterator[tuple[str, str, Diagnosis]]:
    """Each case's fault, its description, and what qdebug says of the layer.

    The figures of many layers are made at once, as for the layers of a model.
    """
    cases = iter(cases)
    while batch := [
        (
            case.fault,
            case.description,
            Layer("layer", case.params, case.x.shape, case.op, case.kind),
            statistics_of(case.x, case.codes, case.params),
        )
        for case in islice(cases, _TOGETHER)
    ]:
        figures = layers_metrics([(statistics, layer.params) for _, _, layer, statistics in batch])
        for (fault, description, layer, statistics), metrics in zip(batch, figures, strict=True):
            assert metrics.num_elements
            found = layer_report(layer, statistics, metrics).diagnosis
            assert found is not None
            yield fault, description, found


def healthy_layers(seed: int, count: int) -> Iterator[Case]:
    """Healthy layers."""
    rng = np.random.default_rng(seed)
    return (make(rng, "ok") for _ in range(count))


def cases(seed: int, each: int) -> Iterator[Case]:
    """Healthy layers, and as many of each fault."""
    rng = np.random.default_rng(seed)
    for fault in ("ok", *FAULTS):
        for _ in range(each):
            yield make(rng, fault)


def confusion(seed: int, each: int) -> Counter[tuple[str, str]]:
    """How often each (fault, cause named) occurs among layers whose fault is gross."""
    gross = (case for case in cases(seed, each) if case.gross)
    return Counter((fault, str(found.cause)) for fault, _, found in diagnosed(gross))


def matrix(counts: Counter[tuple[str, str]]) -> str:
    """The counts as a table, with the share named right."""
    names = ("ok", *FAULTS)
    rows = []
    for fault in names:
        row = [counts[fault, cause] for cause in names]
        right = 100 * counts[fault, fault] / max(sum(row), 1)
        rows.append([fault, *(n or "." for n in row), f"{right:.1f} %"])
    return tabulate(rows, headers=["true", *names, "right"], tablefmt="simple", stralign="right")


def shown(counts: Counter[tuple[str, str]]) -> str:
    """What docs/diagnosis.md shows."""
    counted = counts.total() - sum(n for (fault, _), n in counts.items() if fault == "ok")
    total = EACH * len(FAULTS)
    return f"{matrix(counts)}\n\n{counted} of {total} faults double the error or more\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        gross = (case for case in cases(1, 300) if case.gross)
        wrong = (x for x in diagnosed(gross) if x[2].cause != x[0])
        for fault, description, found in islice(wrong, int(sys.argv[1])):
            print(fault, "->", found.cause, "|", description, "|", found.evidence)
    else:
        print(shown(confusion(0, EACH)), end="")
