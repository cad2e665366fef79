"""Meter: how well a board's outputs agree with the float model's, in dB. Does no search.

The figure is the signal-to-quantization-noise ratio of the outputs: 10 log10(sum x^2 / sum e^2)
over all samples; the mean in dB if a model has several outputs, or parts of them (see `parts`).
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdebug.advise.parts import Part, parts_of
from qdebug.arithmetic.affine import QuantParams
from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.run.board import Board, Outputs

# Beyond these an output is exact (only float rounding is left) or lost (NaN).
MOST_DB, LEAST_DB = 120.0, -100.0

# Gains smaller than this, in dB, are not worth an operator.
LEAST_GAIN_DB = 0.05

# A gain within this number of standard errors of zero may be chance.
CHANCE = 2.0

# A gain beyond chance on all samples must also exceed this many on the samples held out.
_HELD_OUT_ERRORS = 1.0

# Called with (done, total), in runs of the model.
Advance = Callable[[int, int], None]

# Sums of squared errors, shape (samples, parts of the outputs).
Errors = NDArray[np.float64]
Changes = Mapping[str, QuantParams | None]


class OutOfTimeError(Exception):
    """The time limit is reached; what was measured so far still counts."""


@dataclass(frozen=True)
class Gain:
    """A change of the outputs' SQNR.

    Attributes:
        db: the change; positive is better.
        stderr_db: its standard error over the samples; None for a single sample.
        consistency: the mean of the gains on single samples, in standard errors of that mean.
    """

    db: float
    stderr_db: float | None
    consistency: float = 0.0

    @property
    def is_real(self) -> bool:
        """Whether it exceeds chance and is large enough to matter."""
        return self.exceeds(CHANCE)

    def exceeds(self, errors: float) -> bool:
        """Whether it matters, and is more than so many standard errors above zero.

        Either on single samples, or on all together. The latter does not suffice: a few samples may
        hold most of the error, and then it says how these few change. Single samples must gain at
        least half as many standard errors.
        """
        if self.db <= LEAST_GAIN_DB:
            return False
        if self.stderr_db is None or self.consistency > errors:
            return True
        return self.db > errors * self.stderr_db and self.consistency > errors / 2


class Meter:
    """Runs a board and compares its outputs.

    Attributes:
        board: what is measured.
        samples: all its samples.
        parts: what is judged: each output, or the parts of one that joins different magnitudes.
        runs: how often the board was run.
        planned: the number of runs to report progress against; 0 to report none.
    """

    def __init__(self, board: Board, *, advance: Advance | None = None) -> None:
        """Run both models on all samples.

        Args:
            board: what to measure.
            advance: called to report progress.

        Raises:
            QdebugError: an output of the float model is not finite, or all are zero.
        """
        self.board = board
        self.samples = range(board.num_samples)
        self.runs = 0
        self.planned = 0
        self._advance = advance
        self._deadline = math.inf
        self._floats = [[np.asarray(x, np.float64) for x in board.float_outputs(s)]
                        for s in self.samples]  # fmt: skip
        for sample, outputs in enumerate(self._floats):
            for name, x in zip(board.outputs, outputs, strict=True):
                if not np.isfinite(x).all():
                    raise QdebugError(
                        f"output '{printable(name)}': found NaN or Inf in the float model's own "
                        f"run of sample {sample}, expected finite values"
                    )
        if not any(x.any() for xs in self._floats for x in xs):
            raise QdebugError("found only zeros in the float model's outputs, expected a signal")
        quantized = [
            [np.asarray(y, np.float64) for y in self._run(sample, (), None)]
            for sample in self.samples
        ]
        self.parts: Sequence[Part] = parts_of(self._floats, quantized)
        self._signal = np.array(
            [[_power(part.of(xs[part.output])) for part in self.parts] for xs in self._floats]
        )
        own = [self.compared(outputs, sample) for sample, outputs in enumerate(quantized)]
        self._known = {frozenset[int](): dict(enumerate(own))}
        # Parts that quantization leaves exact say nothing about it.
        self._judged = self._signal.any(axis=0) & np.any(own, axis=0)

    def limit(self, seconds: float | None) -> None:
        """Let `errors` raise `OutOfTimeError` this many seconds from now; None: never."""
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def is_exact(self) -> bool:
        """Whether the quantized model's outputs are the float model's."""
        return not self._judged.any()

    def errors(
        self,
        left: Collection[int] = (),
        changes: Changes | None = None,
        samples: Sequence[int] | None = None,
    ) -> Errors:
        """The parts' squared errors with operators left in float; each set is run once.

        With `changes`, even an empty mapping, the board uses its arithmetic for changes.

        Raises:
            OutOfTimeError: the time limit is reached.
            QdebugError: the runtime fails.
        """
        chosen = self.samples if samples is None else samples
        known = {} if changes is not None else self._known.setdefault(frozenset(left), {})
        for sample in chosen:
            if sample not in known:
                known[sample] = self.compared(self._run(sample, left, changes), sample)
        return np.array([known[sample] for sample in chosen])

    def _run(self, sample: int, left: Collection[int], changes: Changes | None) -> Outputs:
        if time.monotonic() > self._deadline:
            raise OutOfTimeError
        outputs = self.board.run(sample, left, changes)
        self.runs += 1
        if self._advance and self.planned:
            self._advance(min(self.runs, self.planned), self.planned)
        return outputs

    def compared(self, outputs: Outputs, sample: int) -> NDArray[np.float64]:
        """The squared error of each part; one that is not finite counts as lost."""
        errors = []
        for part, signal in zip(self.parts, self._signal[sample], strict=True):
            x, y = self._floats[sample][part.output], np.asarray(outputs[part.output], np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                error = _power(part.of(y - x))
            lost = (signal or 1.0) * 10 ** (-LEAST_DB / 10)
            errors.append(error if error < lost else lost)  # NaN is not less
        return np.array(errors)

    def decibels(self, errors: Errors, samples: Sequence[int] | None = None) -> float:
        """The SQNR over samples, in dB; the mean over parts."""
        signal = self._signal if samples is None else self._signal[list(samples)]
        return float(self._decibels(errors.sum(axis=0), signal.sum(axis=0)))

    def gain(self, before: Errors, after: Errors, samples: Sequence[int] | None = None) -> Gain:
        """What `after` gains over `before`; the samples are paired.

        The standard error is the jackknife estimate: each gain leaves out one sample.
        """
        signal = self._signal if samples is None else self._signal[list(samples)]
        count = len(signal)

        def change(without: int | None) -> float:
            b, a, x = (
                v.sum(axis=0) - (0.0 if without is None else v[without])
                for v in (before, after, signal)
            )
            return float(self._decibels(a, x) - self._decibels(b, x))

        db = change(None)
        if count < 2:
            return Gain(db, None)
        spread = np.array([change(sample) for sample in range(count)])
        stderr = float(np.sqrt((count - 1) * np.mean(np.square(spread - spread.mean()))))
        single = np.array(
            [
                self._decibels(a, x) - self._decibels(b, x)
                for b, a, x in zip(before, after, signal, strict=True)
            ]
        )
        of_mean = float(single.std(ddof=1)) / math.sqrt(count)
        mean = float(single.mean())
        return Gain(db, stderr, mean / of_mean if of_mean else math.copysign(math.inf, mean))

    def is_real(self, before: Errors, after: Errors, held_out: Sequence[int]) -> bool:
        """Whether `after` gains more than chance on all samples, and some on those held out.

        Args:
            before: errors on all samples.
            after: errors on all samples.
            held_out: samples that were not used to choose what `after` measures.
        """
        held = list(held_out)
        there = self.gain(before[held], after[held], held_out)
        return there.exceeds(_HELD_OUT_ERRORS) and self.gain(before, after).is_real

    def _decibels(self, errors: NDArray[np.float64], signal: NDArray[np.float64]) -> float:
        judged = self._judged if self._judged.any() else signal > 0
        x, e = signal[judged], np.maximum(errors[judged], 0.0)
        most, least = 10 ** (-MOST_DB / 10), 10 ** (-LEAST_DB / 10)
        x = np.where(x > 0, x, 1.0)
        return float(np.mean(-10 * np.log10(np.clip(e / x, most, least))))


def _power(x: NDArray[np.float64]) -> float:
    return float(np.vdot(x, x).real)
