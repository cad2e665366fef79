"""Requantized: a model quantized again, and the error of its outputs before and after."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class Requantized:
    """A model that a converter has quantized again, with some operators in float.

    Attributes:
        model: the file's bytes.
        before: each output of the float model -> its SQNR in the given quantized model, in dB;
            infinite if it is exact, None if there is no signal or it is not finite.
        after: the same for the new model, on the same samples.
        samples: the number of samples.
    """

    model: bytes
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    samples: int


class OutputErrors:
    """The SQNR of a model's outputs, summed up sample by sample."""

    def __init__(self, names: Sequence[str]) -> None:
        """Begin, with the outputs' names."""
        self._signal = dict.fromkeys(names, 0.0)
        self._error = dict.fromkeys(names, 0.0)

    def add(self, reference: Sequence[ArrayLike], found: Sequence[ArrayLike]) -> None:
        """Count one sample: each output's values in the float model, and in the other."""
        for name, x, y in zip(self._signal, reference, found, strict=True):
            floats = np.asarray(x, np.float64)
            with np.errstate(all="ignore"):
                self._signal[name] += float(np.sum(floats * floats))
                self._error[name] += float(np.sum((np.asarray(y, np.float64) - floats) ** 2))

    def sqnr_db(self) -> dict[str, float | None]:
        """10 log10(sum x^2 / sum e^2) of each output, in dB.

        Infinite without an error, None without a signal or if a value is not finite.
        """
        found: dict[str, float | None] = {}
        for name, signal in self._signal.items():
            error = self._error[name]
            if not math.isfinite(signal) or not math.isfinite(error):
                found[name] = None
            elif not error:
                found[name] = math.inf
            elif not signal:
                found[name] = None
            else:
                found[name] = 10 * (math.log10(signal) - math.log10(error))
        return found
