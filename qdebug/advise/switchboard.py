"""Switchboard: finds the operators to leave in float by running the model with them in float.

Works on any `Board`; knows no format. docs/selective.md has measurements on real models.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qdebug.advise.meter import LEAST_GAIN_DB, Advance, Errors, Gain, Meter, OutOfTimeError
from qdebug.advise.parts import Part
from qdebug.advise.tuning import Change, collected, tuned
from qdebug.report.report import Measured
from qdebug.run.board import Board, BoardOperator, TunableBoard

# Samples that all moves are tried on first: fewer for large models, to limit the runs.
_FEW, _LEAST_FEW = 4, 2
_SCREENING_RUNS = 1200

# Under a time limit, this many stretches of consecutive operators are tried first, to find the
# most promising part of the model.
_SEGMENTS = 16

# With fewer samples than this, none are held out.
_SPLIT_FROM = 8

# In each step, moves that are tried again on few samples: the most promising, and those next to
# what was just left in float, because they gain most from it. The best are tried on more samples.
_LOOKS, _NEAR_LOOKS, _FINALISTS = 12, 12, 3

# Moves that may be taken without a gain beyond chance, before the search gives up.
_PATIENCE = 8

# Moves whose layers are tuned, besides those of the steps.
_TUNED_MOVES = 5

# The largest share of all operators in one move. Larger moves are hardly selective.
_LARGEST_SHARE = 0.5

# A rival set must be better by this to replace the set found step by step.
_TIE_DB = 0.01


@dataclass(frozen=True)
class Step:
    """Operators that are left in float in one step.

    Attributes:
        operators: one or several.
        gain: over the steps before.
        total: over the quantized model, with all operators so far in float.
    """

    operators: Sequence[BoardOperator]
    gain: Gain
    total: Gain


@dataclass(frozen=True)
class Move:
    """Operators that could be left in float together, and what that gains by itself."""

    operators: Sequence[BoardOperator]
    gain: Gain


@dataclass(frozen=True)
class Found:
    """What leaving operators in float gains at the model's outputs.

    Attributes:
        outputs: the names of the outputs.
        parts: what of them is judged: the figures in dB are means over these.
        own_db: SQNR of the quantized model's own outputs.
        all_on_db: SQNR with every switch on quantized; should equal `own_db`.
        all_off_db: SQNR with every switch on float.
        steps: the operators to leave in float, in the order found.
        best_single: the operator that gains most by itself; None if nothing was measured.
        larger: operators that gain more together than `steps`, but exceed the limit.
        fixed: tensors without a switch: name and reason.
        changes: other ways to quantize layers, instead of leaving operators in float.
        num_operators: how many operators can be left in float.
        num_samples: how many samples the gains were measured on.
        runs: how often the model was run.
        timed_out: whether the time limit ended the search.
        enough: whether the search ended because the target or the budget was reached.
    """

    outputs: Sequence[str]
    parts: Sequence[Part]
    own_db: float
    all_on_db: float
    all_off_db: float
    steps: Sequence[Step]
    best_single: Move | None
    larger: Move | None
    fixed: Sequence[tuple[str, str]]
    changes: Sequence[Change]
    num_operators: int
    num_samples: int
    runs: int
    timed_out: bool
    enough: bool

    @property
    def operators(self) -> list[BoardOperator]:
        """All operators of all steps."""
        return [operator for step in self.steps for operator in step.operators]


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        top: stop at this many operators.
        budget: stop when this share of the outputs' error power is gone.
        target_db: stop when the outputs' SQNR is at least this.
    """

    top: int | None = None
    budget: float | None = None
    target_db: float | None = None


def alone(meter: Meter, place: int) -> Measured:
    """What one operator gains in float, and costs alone: two runs of the board per sample.

    Raises:
        OutOfTimeError: the meter's time limit is reached.
        QdebugError: the runtime fails.
    """
    gain = meter.gain(meter.errors(), meter.errors([place]))
    others = [other for other in range(len(meter.board.operators)) if other != place]
    return Measured(gain.db, gain.stderr_db, meter.decibels(meter.errors(others)))


def search(
    board: Board,
    limits: Limits = Limits(),
    *,
    time_limit: float | None = None,
    advance: Advance | None = None,
) -> Found:
    """The operators that gain most in float, found by trying.

    Moves are single operators, all operators around one tensor, and all operators of one name
    scope. Each step takes the move that gains most per operator, on top of the steps before. At the
    end, two other sets of the same size are tried: the operators that gain most by themselves, and
    those that cost most when quantized alone. The best set is returned.

    The best of many noisy gains is partly luck. Moves are therefore chosen on half of the samples,
    and count only if they gain more than chance on all, and some on the other half. Moves that do
    so only together become one step.

    Under a time limit, stretches of consecutive operators are tried first, and then the moves in
    the most promising stretch. The result is the same if the time suffices.

    Args:
        board: the pair's switchboard.
        limits: when to stop.
        time_limit: seconds; after this time, the best so far is returned.
        advance: called to report progress.

    Raises:
        QdebugError: the float model's outputs are not finite, or the runtime fails.
    """
    return _Search(board, limits, time_limit, advance).found()


class _Search:
    def __init__(
        self, board: Board, limits: Limits, time_limit: float | None, advance: Advance | None
    ) -> None:
        self._board, self._limits = board, limits
        self._count = len(board.operators)
        self._most = min(limits.top or self._count, self._count)
        self._moves = _moves(board, self._most)
        self.meter = Meter(board, advance=advance)
        self._before = self.meter.errors()
        samples = _worst_first(self._before)
        split = len(samples) >= _SPLIT_FROM
        self._chosen_on = samples[::2] if split else samples
        self._held_out = samples[1::2] if split else samples
        few = min(max(_SCREENING_RUNS // len(self._moves), _LEAST_FEW), _FEW)
        self._few = self._chosen_on[:: max(1, len(self._chosen_on) // few)][:few]
        looks = (_LOOKS + _NEAR_LOOKS) * len(self._few) + _FINALISTS * len(samples)
        looks += (_TUNED_MOVES + 10) * len(self._few)
        self.meter.planned = (2 * self._count + len(self._moves)) * len(self._few) + looks * min(
            self._most, 10
        )
        self._all_off = self.meter.errors(range(self._count))
        self.meter.limit(time_limit)
        self._in_haste = time_limit is not None
        self._estimates: dict[frozenset[int], Gain] = {}
        self._best_single: frozenset[int] | None = None

    def found(self) -> Found:
        """The best set of operators within the limits and the time."""
        steps: list[frozenset[int]] = []
        timed_out = False
        if not self.meter.is_exact:
            try:
                self._screen()
                alone = dict(self._estimates)
                self._walk(steps)
                self._estimates = alone
                steps = self._best_of(steps, self._rivals(_union(steps)))
                if steps:  # a smaller set that is better leaves room
                    self._walk(steps)
            except OutOfTimeError:
                timed_out = True
        if timed_out and not steps:
            self.meter.limit(None)  # finish measuring what was found
            steps = self._best_screened()
        changes: list[Change] = []
        if not timed_out and not self.meter.is_exact and isinstance(self._board, TunableBoard):
            changes, timed_out = collected(self._tuned(steps))
        self.meter.limit(None)
        own = [
            self.meter.compared(self._board.quantized_outputs(sample), sample)
            for sample in self.meter.samples
        ]
        return Found(
            outputs=self._board.outputs,
            parts=self.meter.parts,
            own_db=self.meter.decibels(np.array(own)),
            all_on_db=self.meter.decibels(self._before),
            all_off_db=self.meter.decibels(self._all_off),
            steps=self._steps(steps),
            best_single=None if self._best_single is None else self._move(self._best_single),
            larger=self._larger(steps),
            fixed=self._board.fixed,
            changes=changes,
            num_operators=self._count,
            num_samples=len(self.meter.samples),
            runs=self.meter.runs,
            timed_out=timed_out,
            enough=self._is_enough(_union(steps)),
        )

    def _tuned(self, steps: Sequence[frozenset[int]]) -> Iterator[Change]:
        """Changes of the layers of the operators that matter most."""
        best = sorted(self._estimates, key=self._promise)[:_TUNED_MOVES]
        places = _union([*steps, *best])
        return tuned(self.meter, places, self._few, self._chosen_on, self._held_out)

    def _screen(self) -> None:
        """Estimate what each move gains by itself: on few samples; for the best moves, on more."""
        for move in self._by_segment() if self._in_haste else self._moves:
            self._estimates[move] = self._gain_of(move, frozenset(), self._few)
        self._estimates = {move: self._estimates[move] for move in self._moves}  # ties: by place
        best = sorted((m for m in self._moves if len(m) == 1), key=self._promise)
        for move in best[: max(_LOOKS, 2 * min(self._limits.top or 0, self._count))]:
            self._estimates[move] = self._gain_of(move, frozenset(), self._chosen_on)
        self._best_single = min(best, key=self._promise)

    def _by_segment(self) -> list[frozenset[int]]:
        """The moves, those in the segments that gain most first."""
        gains: list[float] = []  # of each operator's segment, per operator
        for segment in np.array_split(np.arange(self._count), min(_SEGMENTS, self._count)):
            gain = self._gain_of(frozenset(segment.tolist()), frozenset(), self._few)
            gains += [gain.db / len(segment)] * len(segment)
        return sorted(self._moves, key=lambda move: -sum(gains[each] for each in move) / len(move))

    def _walk(self, steps: list[frozenset[int]]) -> None:
        """Take the best move, again and again, until a limit is reached or none helps."""
        sure = _union(steps)  # gains more than chance
        left, last = sure, sure
        tries = 0
        while len(left) < self._most and tries < _PATIENCE and not self._is_enough(sure):
            found = self._next(left, last)
            if found is None:
                return
            last, left = found, left | found
            tries += 1
            if self._is_real(left - sure, sure):
                steps.append(left - sure)
                sure, tries = left, 0
        if steps and self._is_enough(sure):
            steps[-1] = self._fewest(steps[-1], sure - steps[-1])

    def _fewest(self, last: frozenset[int], before: frozenset[int]) -> frozenset[int]:
        """The last step, less the operators that the limit can do without."""
        for place in sorted(last):
            fewer = last - {place}
            if fewer and self._is_enough(before | fewer) and self._is_real(fewer, before):
                last = fewer
        return last

    def _is_enough(self, left: frozenset[int]) -> bool:
        errors = self.meter.errors(left)
        gained = self.meter.gain(self._before, errors).db
        target, budget = self._limits.target_db, self._limits.budget
        return (target is not None and self.meter.decibels(errors) >= target) or (
            budget is not None and 1 - 10 ** (-gained / 10) >= budget
        )

    def _next(self, left: frozenset[int], last: frozenset[int]) -> frozenset[int] | None:
        """The operators to leave in float next; None if no move gains anything."""
        room = self._most - len(left)
        rest: dict[frozenset[int], frozenset[int]] = {}  # new operators -> their move
        for move in sorted(self._estimates, key=self._promise):
            if 0 < len(move - left) <= room:
                rest.setdefault(move - left, move)
        looks = list(rest)[:_LOOKS]
        if last:
            around = frozenset().union(*(n for n in self._board.neighbours if n & last))
            near = [new for new in rest if new & around and new not in looks]
            looks += near[:_NEAR_LOOKS]
            for new in looks:
                self._estimates[rest[new]] = self._gain_of(new, left, self._few)

        def by_promise(new: frozenset[int]) -> float:
            return self._promise(rest[new]) * len(rest[new]) / len(new)

        looks = sorted(looks, key=by_promise)[:_FINALISTS]
        gains = {new: self._gain_of(new, left, self._chosen_on) for new in looks}
        best = max(looks, key=lambda new: gains[new].db / len(new), default=None)
        return None if best is None or gains[best].db <= 0 else best

    def _is_real(self, new: frozenset[int], left: frozenset[int]) -> bool:
        """Whether a gain exceeds chance on all samples, and also shows on those held out."""
        before, after = self.meter.errors(left), self.meter.errors(left | new)
        return self.meter.is_real(before, after, self._held_out)

    def _promise(self, move: frozenset[int]) -> float:
        """A key that sorts the most promising move first."""
        return -self._estimates[move].db / len(move)

    def _gain_of(
        self, new: frozenset[int], left: frozenset[int], samples: Sequence[int] | None = None
    ) -> Gain:
        before = self.meter.errors(left, samples=samples)
        after = self.meter.errors(left | new, samples=samples)
        return self.meter.gain(before, after, samples)

    def _rivals(self, ours: frozenset[int]) -> list[list[frozenset[int]]]:
        """Other sets of this size: the best by themselves, and the worst when quantized alone."""
        size = max(len(ours), min(self._limits.top or 0, self._count))
        if not size:
            return []
        singles = sorted((m for m in self._estimates if len(m) == 1), key=self._promise)
        for move in singles[: max(_LOOKS, 2 * size)]:  # all samples are surer than half
            self._estimates[move] = self._gain_of(move, frozenset())
        singles.sort(key=self._promise)
        everything = frozenset(range(self._count))
        alone = {
            move: self.meter.decibels(
                self.meter.errors(everything - move, samples=self._few), self._few
            )
            for move in singles
        }
        rankings = (singles, sorted(singles, key=alone.__getitem__))
        # Half as many only if something was found: the more sets, the more gain by chance.
        sizes = (size, (size + 1) // 2) if ours else (size,)
        return [ranked[:n] for n in sizes for ranked in rankings]

    def _best_of(
        self, steps: list[frozenset[int]], rivals: Sequence[list[frozenset[int]]]
    ) -> list[frozenset[int]]:
        """The set that gains most; a larger set only if it gains more than chance."""
        for rival in rivals:
            ours, theirs = _union(steps), _union(rival)
            before, after = self.meter.errors(ours), self.meter.errors(theirs)
            if self.meter.gain(before, after).db > _TIE_DB and (
                len(theirs) <= len(ours) or self.meter.is_real(before, after, self._held_out)
            ):
                steps = rival
        return steps

    def _best_screened(self) -> list[frozenset[int]]:
        """The best move so far, if it is better than chance."""
        best = sorted((m for m in self._estimates if len(m) <= self._most), key=self._promise)[:1]
        return [m for m in best if self._is_real(m, frozenset())]

    def _steps(self, path: Sequence[frozenset[int]]) -> list[Step]:
        """The path in steps that each gain more than chance, where possible."""
        groups: list[frozenset[int]] = []
        sure: frozenset[int] = frozenset()
        waiting: frozenset[int] = frozenset()
        for new in path:
            waiting |= new
            if self._gain_of(waiting, sure).is_real:
                groups.append(waiting)
                sure, waiting = sure | waiting, frozenset()
        if waiting:
            groups = [*groups[:-1], _union([*groups[-1:], waiting])]
        steps = []
        left: frozenset[int] = frozenset()
        for new in groups:
            gain = self._gain_of(new, left)
            left |= new
            total = self.meter.gain(self._before, self.meter.errors(left))
            steps.append(Step(self._operators(new), gain, total))
        return steps

    def _larger(self, path: Sequence[frozenset[int]]) -> Move | None:
        """The best move that is larger than the limit, if it gains more than all steps."""
        large = [m for m in self._estimates if len(m) > self._most]
        best = max(large, key=lambda m: self._estimates[m].db, default=None)
        if best is None:
            return None
        gain = self._gain_of(best, frozenset())
        reached = self.meter.gain(self._before, self.meter.errors(_union(path))).db
        return Move(self._operators(best), gain) if gain.db > max(reached, LEAST_GAIN_DB) else None

    def _move(self, move: frozenset[int]) -> Move:
        return Move(self._operators(move), self._gain_of(move, frozenset()))

    def _operators(self, places: Iterable[int]) -> list[BoardOperator]:
        return [self._board.operators[place] for place in sorted(places)]


def _worst_first(errors: Errors) -> list[int]:
    """The samples by their share of the error: every second one makes a comparable half."""
    total = errors.sum(axis=0)
    shares = (errors / np.where(total > 0, total, 1.0)).sum(axis=1)
    return [int(sample) for sample in np.argsort(-shares, kind="stable")]


def _union(path: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*path)


def _moves(board: Board, most: int) -> list[frozenset[int]]:
    """Single operators, operators around one tensor, and name scopes; each set once."""
    count = len(board.operators)
    largest = max(2, int(count * _LARGEST_SHARE))
    singles = [frozenset([place]) for place in range(count)]
    around = [group for group in board.neighbours if 1 < len(group) <= min(most, largest)]
    scopes = [scope for scope in _scopes(board.operators) if 1 < len(scope) <= largest]
    return list(dict.fromkeys([*singles, *around, *scopes]))


def _scopes(operators: Sequence[BoardOperator]) -> list[frozenset[int]]:
    """The operators below each common prefix of their names, at a slash."""
    found: dict[str, set[int]] = {}
    for place, operator in enumerate(operators):
        parts = (operator.nodes[0] if operator.nodes else operator.layer).split("/")
        for length in range(1, len(parts)):
            found.setdefault("/".join(parts[:length]), set()).add(place)
    return [frozenset(places) for places in found.values()]
