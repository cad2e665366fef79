"""Requantized: a model quantized again, and the error of its outputs before and after."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qdebug.measure.outputs import OutputMetrics, OutputRuns, output_metrics


@dataclass(frozen=True, eq=False)
class Requantized:
    """A model that a converter has quantized again, with some operators in float.

    Attributes:
        model: the file's bytes.
        before: the outputs of the given quantized model, against those of the float model.
        after: the outputs of the new model, on the same samples.
    """

    model: bytes
    before: Sequence[OutputMetrics]
    after: Sequence[OutputMetrics]


def outputs_of(
    names: Sequence[str], runs: Iterable[tuple[Sequence[ArrayLike], Sequence[ArrayLike]]]
) -> list[OutputMetrics]:
    """The figures of outputs of these names.

    Args:
        names: of the outputs.
        runs: for each sample, the outputs of the float model and those of the other.
    """
    kept = OutputRuns()
    for sample, (floats, found) in enumerate(runs):
        values = zip(map(np.asarray, floats), map(np.asarray, found), strict=True)
        kept.note(sample, dict(zip(names, values, strict=True)))
    return [output_metrics(output) for output in kept.outputs()]
