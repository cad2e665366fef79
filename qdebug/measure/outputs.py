"""Outputs: how far a quantized model's outputs are from the float model's, sample by sample."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import Float64Array

Sample = TypeVar("Sample")

# Below this SQNR, in dB, a signal is ruined: the error has a third of its amplitude.
RUINED_DB = 10.0

# What is kept of one sample, in this order. f: the float model's output, g: the quantized model's.
# Sums are over the elements where both are finite.
SUMS = (
    "num_elements",
    "non_finite",  # elements where f is finite and g is not
    "float_square",  # f^2
    "quantized_square",  # g^2
    "product",  # f * g
    "error_square",  # (g - f)^2
    "max_abs_error",  # largest |g - f|
    "num_rows",  # rows of scores
    "agreeing",  # rows whose largest score is at the same place in both
)


@dataclass(frozen=True, eq=False)
class Output:
    """One output of a pair of models over some samples.

    Attributes:
        name: as in the float model: untrusted data.
        sums: one row per sample, shape (samples, len(SUMS)).
    """

    name: str
    sums: Float64Array


@dataclass(frozen=True)
class OutputMetrics:
    """The figures of one output of a model; None for a figure that does not exist.

    f: the output of the float model, g: that of the quantized model, both as floats, each in its
    own run on the same samples.
    """

    name: str
    """As in the float model."""
    num_samples: int
    """Samples that both models were run on."""
    num_elements: int
    """Elements of all samples that are finite in both; the figures below cover these."""
    non_finite: int
    """Elements that are finite in the float model but not in the quantized one."""
    sqnr_db: float | None
    """10 log10(sum f^2 / sum (g - f)^2), in dB."""
    cosine_similarity: float | None
    """Cosine of the angle between f and g: 1 for the same direction."""
    rmse: float | None
    """sqrt(mean((g - f)^2)), in the output's unit."""
    max_abs_error: float | None
    """max |g - f|, in the output's unit."""
    worst_sqnr_db: float | None
    """The lowest sqnr_db of any sample, in dB."""
    worst_sample: int | None
    """The sample that has it, counted from 0."""
    top1: float | None
    """Share of the rows of scores whose largest score is at the same place in both."""
    num_rows: int
    """Rows of scores: one per item of a batch if each item's output has one axis, else 0."""


def compared(floats: ArrayLike, quantized: ArrayLike) -> Float64Array:
    """What is kept of one sample's output, shape (len(SUMS),).

    Args:
        floats: the float model's output, any shape; axis 0 is the batch if there are several axes.
        quantized: the quantized model's output as floats, of the same shape.

    >>> sums = dict(zip(SUMS, compared([[1.0, 2.0]], [[1.0, 1.5]])))
    >>> float(sums["error_square"]), int(sums["agreeing"])
    (0.25, 1)
    """
    f, g = (np.asarray(values, np.float64) for values in (floats, quantized))
    sound = np.isfinite(f)
    both = sound & np.isfinite(g)
    scores = rows = np.zeros((0, 1))
    if f.size and max(f.shape[1:], default=0) == math.prod(f.shape[1:]) >= 2:
        scores, rows = (np.nan_to_num(v.reshape(f.shape[0], -1), nan=-np.inf) for v in (f, g))
    fs, gs = np.where(both, f, 0.0), np.where(both, g, 0.0)
    with np.errstate(over="ignore"):
        error = gs - fs
        return np.array(
            [
                np.count_nonzero(both),
                np.count_nonzero(sound) - np.count_nonzero(both),
                np.vdot(fs, fs),
                np.vdot(gs, gs),
                np.vdot(fs, gs),
                np.vdot(error, error),
                np.abs(error).max(initial=0.0),
                len(scores),
                np.count_nonzero(scores.argmax(axis=1) == rows.argmax(axis=1)),
            ]
        )


def output_metrics(output: Output) -> OutputMetrics:
    """The figures of one output, from the sums of its samples."""
    kept = {name: output.sums[:, place] for place, name in enumerate(SUMS)}
    total = {name: math.fsum(column) for name, column in kept.items()}
    count, rows = int(total["num_elements"]), int(total["num_rows"])
    of_samples = [
        sqnr_db(signal, error)
        for signal, error in zip(kept["float_square"], kept["error_square"], strict=True)
    ]
    known = [(value, sample) for sample, value in enumerate(of_samples) if value is not None]
    worst, worst_sample = min(known, default=(None, None))
    lengths = math.sqrt(total["float_square"]) * math.sqrt(total["quantized_square"])
    return OutputMetrics(
        name=output.name,
        num_samples=len(output.sums),
        num_elements=count,
        non_finite=int(total["non_finite"]),
        sqnr_db=sqnr_db(total["float_square"], total["error_square"]),
        cosine_similarity=(
            min(max(total["product"] / lengths, -1.0), 1.0) if _usable(lengths) else None
        ),
        rmse=math.sqrt(total["error_square"] / count) if count else None,
        max_abs_error=float(kept["max_abs_error"].max()) if count else None,
        worst_sqnr_db=worst,
        worst_sample=worst_sample,
        top1=total["agreeing"] / rows if rows else None,
        num_rows=rows,
    )


def is_ruined(output: OutputMetrics) -> bool:
    """Whether the output is useless: values that are not finite, or SQNR below 10 dB."""
    if output.non_finite or output.sqnr_db is None:
        return bool(output.non_finite or output.rmse)
    return output.sqnr_db < RUINED_DB


def sqnr_db(signal: float, error: float) -> float | None:
    """10 log10(signal / error) of two sums of squares; None if not finite."""
    if not (_usable(signal) and _usable(error)):
        return None
    return 10 * (math.log10(signal) - math.log10(error))


def _usable(value: float) -> bool:
    return 0 < value < math.inf


class OutputRuns:
    """The outputs of the samples run so far; a sample that is run again counts once."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, Float64Array]] = {}
        self._seen: set[int] = set()

    def note(self, sample: int, outputs: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Keep a sample's sums; `outputs`: name -> the float and the quantized model's values."""
        if sample in self._seen:
            return
        self._seen.add(sample)
        for name, (floats, quantized) in outputs.items():
            self._sums.setdefault(name, {})[sample] = compared(floats, quantized)

    def completed(
        self,
        count: int,
        samples: Iterable[Sample],
        run: Callable[[int, Sample], Mapping[str, tuple[NDArray[Any], NDArray[Any]]]],
    ) -> list[Output]:
        """All outputs, after a run of the samples that were not run so far.

        `samples`, `count` of them, are read only if some were not.
        """
        if len(self._seen) < count:
            for number, sample in enumerate(samples):
                if number not in self._seen:
                    self.note(number, run(number, sample))
        return self.outputs()

    def outputs(self) -> list[Output]:
        """All outputs, with their samples in order."""
        return [
            Output(name, np.array([of[sample] for sample in sorted(of)]))
            for name, of in self._sums.items()
        ]
