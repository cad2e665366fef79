"""What the engine does with parts: receipts, layers that fail, threads that stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.errors import LayerError
from qdebug.measure.layer import Block, Layer, Part, Visitor
from qdebug.measure.outputs import Output
from qdebug.run.engine import gather
from qdebug.run.session import Session
from qdebug.run.workers import Threads


@dataclass(frozen=True)
class Whole:
    """Two parts whose receipts must add up to `expected`."""

    name: str
    parts: int
    expected: int

    def check(self, receipts: Sequence[int]) -> None:
        if sum(receipts) != self.expected:
            raise LayerError(f"{self.name}: found {sum(receipts)}, expected {self.expected}")


@dataclass(frozen=True, eq=False)
class Given:
    """A part that hands over `values` for each of its layers, and gives a receipt."""

    layers: Sequence[Layer]
    values: Sequence[float]
    whole: Whole | None = None
    receipt: int = 0
    failing: str = ""
    waits: bool = False
    read_by: list[str] = field(default_factory=list)

    @property
    def num_elements(self) -> int:
        return len(self.values) * len(self.layers)

    def read(self, visitor: Visitor) -> int:
        self.read_by.append("somebody")
        for value in self.values:
            for layer in self.layers:
                if layer.name == self.failing and value == self.values[-1]:
                    visitor.fail(layer, f"{layer.name}: broken at {value}")
                    continue
                x = np.full((1, 1, 4), value)
                visitor.take(layer, Block(x, np.rint(x / 0.5).astype(np.int8)))
        return self.receipt


def layer(name: str) -> Layer:
    return Layer(name, QuantParams.of(0.5), (4,))


@dataclass
class Source:
    given: Sequence[Part]
    files: Sequence[str] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def layers(self) -> list[Layer]:
        return list({each.name: each for part in self.given for each in part.layers}.values())

    def outputs(self) -> Sequence[Output]:
        return ()

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        return self.given


class Collected:
    """A gatherer that keeps every value."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, layer: Layer, block: Block) -> None:
        self.values += block.floats.ravel().tolist()

    def merge(self, other: "Collected") -> None:
        self.values += other.values


def collected(*parts: Part, jobs: int = 1) -> Any:
    begin: dict[str, Callable[[], Collected]] = {
        each.name: Collected for part in parts for each in part.layers
    }
    return gather(parts, begin, Threads(jobs))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_whole_counts_when_all_its_receipts_agree(jobs: int) -> None:
    whole = Whole("w", 2, expected=3)
    parts = [Given([layer("a")], [1.0], whole, 1), Given([layer("a")], [2.0], whole, 2)]
    found = collected(*parts, jobs=jobs)
    assert found.layers["a"].values == [1.0] * 4 + [2.0] * 4
    assert not found.unfinished
    assert not found.broken


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_whole_whose_receipts_disagree_is_dropped_and_the_others_stay(jobs: int) -> None:
    good, bad = Whole("good", 1, 1), Whole("bad", 2, 3)
    parts = [
        Given([layer("a")], [1.0], bad, 1),
        Given([layer("a")], [2.0], good, 1),
        Given([layer("a")], [3.0], bad, 1),
    ]
    found = collected(*parts, jobs=jobs)
    assert found.layers["a"].values == [2.0] * 4
    assert found.reasons() == {"a": ["bad: found 2, expected 3"]}
    report = Session(Source(parts), Threads(jobs)).report()
    assert report.layers[0].metrics is not None
    assert report.layers[0].metrics.num_elements == 4
    assert report.problems == ["bad: found 2, expected 3"]


def test_a_broken_whole_is_not_read_again() -> None:
    bad = Given([layer("a")], [1.0], Whole("bad", 1, 3), 1)
    good = Given([layer("a")], [2.0], Whole("good", 1, 1), 1)
    session = Session(Source([bad, good]))
    found = session.distributions(session.report())
    assert found["a"].floats.counts.sum() == 4
    assert len(bad.read_by) == 1


def test_a_layer_that_fails_takes_no_other_with_it() -> None:
    part = Given([layer("a"), layer("b")], [1.0, 2.0], failing="b")
    report = Session(Source([part])).report()
    a, b = report.layers
    assert a.metrics is not None
    assert a.metrics.num_elements == 8
    assert b.metrics is None
    assert b.unreadable == "b: broken at 2.0"


def test_threads_that_failed_once_can_be_used_again() -> None:
    threads = Threads(2)

    def fails(task: int) -> int:
        raise ValueError(task)

    with pytest.raises(ValueError, match="1"):
        threads.reduce(fails, [1, 2, 3], max)
    whole = Whole("w", 1, 1)
    part = Given([layer("a")], [1.0], whole, 1)
    assert gather([part], {"a": Collected}, threads).layers["a"].values == [1.0] * 4


def test_a_layer_that_fails_keeps_its_place_in_the_graph() -> None:
    fed = Layer("b", QuantParams.of(0.5), (4,), inputs=("a",))
    part = Given([layer("a"), fed], [1.0], failing="b")
    report = Session(Source([part])).report()
    assert report.layers[1].metrics is None
    assert report.layers[1].inputs == ["a"]
