"""Engine: workers read the parts of a source; what they gather is merged by layer.

Knows neither files nor figures: the caller decides what is gathered, and a part's whole checks the
part's receipt.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from qdebug.errors import LayerError
from qdebug.measure.layer import Block, Layer, Part, Whole, are_alike, joined
from qdebug.run.workers import Workers

# Measuring a block has a fixed cost of 0.1 ms. Blocks of a layer with fewer than
# `_TOGETHER_ELEMENTS` are concatenated, at most `_TOGETHER_BLOCKS` of them.
_TOGETHER_ELEMENTS = 1 << 14
_TOGETHER_BLOCKS = 64

# Tasks whose parts average fewer than `_LONE_ELEMENTS` are read by one thread at a time: their many
# short NumPy calls would keep other threads waiting for the interpreter lock. 3000 layers of 10 000
# elements took two threads 1.5 times as long as one; from this size on, two are faster.
_LONE_ELEMENTS = 1 << 17
_lone = threading.Lock()

# Parts in a task for another process: each takes a few kB.
_MOST_PARTS_SENT = 1024


class Gatherer(Protocol):
    """Gathers something about one layer, block by block; gatherers merge in block order."""

    def add(self, layer: Layer, block: Block) -> None:
        """Take one block; `layer` is as the source passed it."""

    def merge(self, other: Self) -> None:
        """Add what `other` gathered from later blocks."""


G = TypeVar("G", bound=Gatherer)

# Called with the amount done and the total, in elements or in tasks.
Advance = Callable[[int, int], None]


@dataclass
class _Unfinished(Generic[G]):
    """A whole with parts still missing."""

    layers: dict[str, G]
    receipts: list[Any]


@dataclass
class Gathered(Generic[G]):
    """What was gathered from some parts; merged over all parts, it covers the source.

    Attributes:
        layers: what was gathered, by layer.
        failed: name and reason of each layer whose data in a part cannot be used.
        broken: wholes that cannot be used: the reason, and the layers whose data they hold.
        unfinished: wholes with parts still missing.
    """

    layers: dict[str, G] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    broken: dict[Whole, tuple[str, list[str]]] = field(default_factory=dict)
    unfinished: dict[Whole, _Unfinished[G]] = field(default_factory=dict)

    def merge(self, other: "Gathered[G]") -> "Gathered[G]":
        """Add what `other` has; returns itself."""
        self.failed += other.failed
        self.broken |= other.broken
        _merge(self.layers, other.layers)
        for whole, more in other.unfinished.items():
            begun = self.unfinished.setdefault(whole, _Unfinished({}, []))
            _merge(begun.layers, more.layers)
            begun.receipts += more.receipts
            if len(begun.receipts) == whole.parts:
                del self.unfinished[whole]
                try:
                    whole.check(begun.receipts)
                except LayerError as error:
                    self.broken[whole] = (str(error), list(begun.layers))
                else:
                    _merge(self.layers, begun.layers)
        return self

    def reasons(self) -> dict[str, list[str]]:
        """Why data cannot be used, by layer."""
        found: dict[str, list[str]] = {}
        for reason, layers in self.broken.values():
            for name in layers:
                found.setdefault(name, []).append(reason)
        for name, reason in self.failed:
            found.setdefault(name, []).append(reason)
        return found


def gather(
    parts: Sequence[Part],
    begin: Mapping[str, Callable[[], G]],
    workers: Workers,
    advance: Advance | None = None,
) -> Gathered[G]:
    """Read the parts, each once.

    Args:
        parts: what to read.
        begin: makes the gatherer of a layer, by the layer's name.
        workers: read the parts.
        advance: called as the work proceeds.
    """
    tasks = list(tasks_of(parts, workers))
    if not tasks:
        return Gathered()
    if workers.remote:
        count = None if advance is None else partial(_advanced, advance, len(tasks))
        return workers.reduce(partial(_read, begin=begin), tasks, Gathered.merge, count)
    total, done, lock = sum(part.num_elements for part in parts), 0, threading.Lock()

    def step(elements: int) -> None:
        nonlocal done
        if workers.stopped:
            raise InterruptedError
        if advance is not None:
            with lock:
                done += elements
                advance(done, total)

    return workers.reduce(partial(_read, begin=begin, step=step), tasks, Gathered.merge)


def without(parts: Sequence[Part], broken: Collection[Whole]) -> list[Part]:
    """The parts that do not belong to a broken whole."""
    return [part for part in parts if part.whole is None or part.whole not in broken]


def _advanced(advance: Advance, total: int, done: int) -> None:
    advance(done, total)


class Task(tuple[Part, ...]):
    """Parts that one worker reads together; its text is their name in a message."""

    def __str__(self) -> str:
        others = f" and {len(self) - 1} more" if len(self) > 1 else ""
        return f"{self[0]}{others}"


def tasks_of(parts: Sequence[Part], workers: Workers) -> Iterator[Task]:
    """The parts in their order; small ones share a task."""
    most_parts = _MOST_PARTS_SENT if workers.remote else len(parts)
    task: list[Part] = []
    size = 0
    for part in parts:
        task.append(part)
        size += part.num_elements
        side_by_side = part.waits and not workers.remote
        if side_by_side or size >= workers.task_elements or len(task) == most_parts:
            yield Task(task)
            task, size = [], 0
    if task:
        yield Task(task)


def _read(
    parts: Sequence[Part],
    begin: Mapping[str, Callable[[], G]],
    step: Callable[[int], None] | None = None,
) -> Gathered[G]:
    """Read some parts; `step` is called with the number of elements just read."""
    found: Gathered[G] = Gathered()
    small = sum(part.num_elements for part in parts) < _LONE_ELEMENTS * len(parts)
    alone = small and not any(part.waits for part in parts)
    with _lone if alone else nullcontext():
        for part in parts:
            found.merge(_read_part(part, begin, step))
    return found


def _read_part(
    part: Part, begin: Mapping[str, Callable[[], G]], step: Callable[[int], None] | None
) -> Gathered[G]:
    reading = _Reading(part, begin, step)
    try:
        receipt = part.read(reading)
        reading.finish()
    except LayerError as error:
        names = [layer.name for layer in part.layers]
        if part.whole is None:
            return Gathered(failed=[(name, str(error)) for name in names])
        return Gathered(broken={part.whole: (str(error), names)})
    if part.whole is None:
        return Gathered(reading.layers, reading.failed)
    # Merging into an empty `Gathered` checks a whole that has one part.
    unfinished = {part.whole: _Unfinished(reading.layers, [receipt])}
    return Gathered[G]().merge(Gathered(failed=reading.failed, unfinished=unfinished))


class _Reading(Generic[G]):
    """The visitor of one part: passes blocks to gatherers, joining a layer's small ones."""

    def __init__(
        self,
        part: Part,
        begin: Mapping[str, Callable[[], G]],
        step: Callable[[int], None] | None,
    ) -> None:
        self.layers: dict[str, G] = {}
        self.failed: list[tuple[str, str]] = []
        self._begin = begin
        self._step = step
        self._waiting: dict[str, list[tuple[Layer, Block]]] = {}
        self._joins = part.num_elements > _TOGETHER_ELEMENTS

    def take(self, layer: Layer, block: Block) -> None:
        if self._step is not None:
            self._step(block.codes.size)
        if not self._joins or block.codes.size >= _TOGETHER_ELEMENTS:
            self._add(layer, block)
            return
        waiting = self._waiting.setdefault(layer.name, [])
        if waiting and not _fits(waiting[0], (layer, block)):
            self._join(waiting)
        waiting.append((layer, _copied(block)))
        enough = len(waiting) * block.codes.size >= _TOGETHER_ELEMENTS
        if enough or len(waiting) == _TOGETHER_BLOCKS:
            self._join(waiting)

    def fail(self, layer: Layer, reason: str) -> None:
        if layer.name not in dict(self.failed):
            self.failed.append((layer.name, reason))

    def finish(self) -> None:
        """Pass on the blocks still waiting, and drop the layers that failed."""
        for waiting in self._waiting.values():
            if waiting:
                self._join(waiting)
        for name, _ in self.failed:
            self.layers.pop(name, None)

    def _join(self, waiting: list[tuple[Layer, Block]]) -> None:
        layer, first = waiting[0]
        blocks = [block for _, block in waiting]
        self._add(layer, joined(blocks, np.concatenate, first.first_channel))
        waiting.clear()

    def _add(self, layer: Layer, block: Block) -> None:
        if layer.name not in self.layers:
            self.layers[layer.name] = self._begin[layer.name]()
        self.layers[layer.name].add(layer, block)


def _fits(one: tuple[Layer, Block], other: tuple[Layer, Block]) -> bool:
    """Whether two blocks can be concatenated along the outer axis."""
    (layer, block), (other_layer, other_block) = one, other
    return (
        layer.view == other_layer.view
        and block.codes.shape[1:] == other_block.codes.shape[1:]
        and block.first_channel == other_block.first_channel
        and are_alike(block, other_block)
    )


def _copied(block: Block) -> Block:
    return joined([block], lambda arrays: arrays[0].copy(), block.first_channel)


def _merge(into: dict[str, G], more: Mapping[str, G]) -> None:
    for name, gathered in more.items():
        if name in into:
            into[name].merge(gathered)
        else:
            into[name] = gathered
