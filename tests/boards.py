"""A board for tests: operators in a chain that add noise, by the converter's rule."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.run.board import BoardOperator


class Chain:
    """Operators one after the other; each tensor between two is float only where both are left.

    A tensor adds noise of its own power to the output, the same whatever else is quantized, so
    that powers add. Every operator also has a weight, which is float where its operator is.
    """

    def __init__(
        self,
        tensors: Sequence[float],
        weights: Sequence[float] | None = None,
        samples: int = 8,
        names: Sequence[str] | None = None,
        spread: float = 0.0,
        size: int = 4096,
    ) -> None:
        count = len(tensors) + 1
        rng = np.random.default_rng(5)
        names = names or [f"op{place}" for place in range(count)]
        self.operators = [BoardOperator(f"{n}:0", (n,), "Op") for n in names]
        self.neighbours = [frozenset([place, place + 1]) for place in range(count - 1)]
        self.fixed: Sequence[tuple[str, str]] = []
        self.outputs = ["y"]
        self.num_samples = samples
        self.runs = 0
        self._tensors = np.asarray(tensors, float)
        self._weights = np.zeros(count) if weights is None else np.asarray(weights, float)
        self._x = rng.normal(size=(samples, size))
        self._noise = rng.normal(size=(len(tensors) + count, size))
        self._sizes = np.exp(spread * rng.normal(size=(len(tensors) + count, samples)))

    def float_outputs(self, sample: int) -> list[np.ndarray]:
        return [self._x[sample]]

    def quantized_outputs(self, sample: int) -> list[np.ndarray]:
        return [self._output(sample, frozenset())]

    def run(
        self,
        sample: int,
        left: Collection[int] = (),
        changes: Mapping[str, QuantParams | None] | None = None,
    ) -> list[np.ndarray]:
        self.runs += 1
        return [self._output(sample, frozenset(left))]

    def _output(self, sample: int, left: frozenset[int]) -> np.ndarray:
        on = [not around <= left for around in self.neighbours]
        on += [place not in left for place in range(len(self.operators))]
        powers = np.concatenate([self._tensors, self._weights]) * on * self._sizes[:, sample]
        return self._x[sample] + np.sqrt(powers) @ self._noise
