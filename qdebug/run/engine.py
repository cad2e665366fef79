"""Engine: run a source, part by part, to a Report; on one thread, several, or a cluster."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from qdebug.errors import LayerError, locate
from qdebug.measure.layer import Block, Layer, Part, Piece, Source, UnreadableLayer
from qdebug.measure.metrics import layers_metrics
from qdebug.measure.statistics import Statistics, measure, no_statistics
from qdebug.names import select, shown
from qdebug.report.report import LayerReport, Report, layer_report, unreadable_report, with_origins
from qdebug.run.workers import Threads, Workers
from qdebug.sources.npz.checksum import DISAGREES, RangeSum, agree
from qdebug.sources.storage import is_url

# Blocks of fewer elements are put together, up to so many: measuring one takes 0.1 ms, whatever its
# size.
_TOGETHER_ELEMENTS = 1 << 14
_TOGETHER_BLOCKS = 64

# Parts of fewer elements are measured by one thread at a time: their many short calls into NumPy
# would keep other threads waiting for the interpreter. 3000 layers of 10 000 elements took two
# threads 1.5 times as long as one; parts of so many are where two begin to be faster.
_LONE_ELEMENTS = 1 << 17
_lone = threading.Lock()

# A task for another process has no more parts than that: each is some kB to send.
_MOST_PARTS_SENT = 1024


def run(
    source: Source,
    patterns: Sequence[str] = (),
    advance: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
) -> Report:
    """The report of all layers, or of those that some glob of `patterns` names.

    What cannot be read is in it with the reason. `advance` is called with what is done and with
    all there is to do, as work goes on. Without `workers`, all is done on the calling thread.

    Raises:
        QdebugError: a glob that names no layer.
    """
    return explore(source, patterns, advance, workers)[0]


def explore(
    source: Source,
    patterns: Sequence[str] = (),
    advance: Callable[[int, int], None] | None = None,
    workers: Workers | None = None,
) -> tuple[Report, Collection[Piece]]:
    """As `run`, and the pieces that turned out to be broken, for `layer_blocks` to leave out."""
    names = select([layer.name for layer in source.layers], patterns)
    chosen = [layer for layer in source.layers if layer.name in names]
    workers = workers or Threads(1)
    parts = source.parts([layer for layer in chosen if isinstance(layer, Layer)])
    found = _run_parts(parts, advance, workers) if parts else Measured()
    problems, reasons = list(source.problems), found.reasons()
    params = {layer.name: layer.params for layer in chosen if isinstance(layer, Layer)}
    for name in params.keys() - found.layers.keys() - reasons.keys():  # without elements
        found.layers[name] = no_statistics(params[name].channels)
    figures = layers_metrics([(s, params[name]) for name, s in found.layers.items()])
    metrics = dict(zip(found.layers, figures, strict=True))

    def reported(layer: Layer | UnreadableLayer) -> LayerReport:
        problems.extend(layer.problems)
        if isinstance(layer, UnreadableLayer):
            return unreadable_report(layer)
        why = reasons.get(layer.name, [])
        if layer.name in metrics:
            problems.extend(why)
            return layer_report(layer, found.layers.pop(layer.name), metrics[layer.name])
        problems.extend(why[1:])
        return unreadable_report(UnreadableLayer(layer.name, why[0]))

    layers = with_origins([reported(layer) for layer in chosen])
    report = Report(list(source.files), layers, problems, notes_of(source))
    return report, found.broken.keys()


def notes_of(source: Source) -> list[str]:
    """What the user should know of how a source was read, a line each."""
    left_out = [f"'{shown(name)}' is left out: {reason}" for name, reason in source.skipped]
    return [*source.notes, *left_out]


def layer_blocks(source: Source, layer: Layer, without: Collection[Piece] = ()) -> Iterator[Block]:
    """The data of one layer alone, slab by slab, cut along the axis of `layer.params`.

    Pieces that are known to be broken are left out.

    Raises:
        LayerError: it turns out to be broken.
    """
    sums: dict[Piece, list[RangeSum]] = {}
    for part in source.parts([layer]):
        if part.piece in without:
            continue
        of_piece = sums.setdefault(part.piece, [])
        for _, block in part.blocks(of_piece):
            yield block
    for piece, ranges in sums.items():
        if not agree(ranges):
            raise _wrong(piece)


@dataclass
class _Begun:
    """A piece some of whose parts have been read: not yet known to be what was written."""

    statistics: dict[str, Statistics]
    sums: list[RangeSum]
    parts: int
    of: int


@dataclass
class Measured:
    """What some parts gave. Merged with what the others gave, it is that of the source.

    Attributes:
        layers: statistics of whole pieces, by layer.
        begun: pieces of which other parts are missing.
        broken: pieces that cannot be used: the reason, and the layers they are of.
    """

    layers: dict[str, Statistics] = field(default_factory=dict)
    begun: dict[Piece, _Begun] = field(default_factory=dict)
    broken: dict[Piece, tuple[str, list[str]]] = field(default_factory=dict)

    def merge(self, other: "Measured") -> "Measured":
        """Take in what `other` has; gives itself."""
        self.broken |= other.broken
        _merge(self.layers, other.layers)
        for piece, more in other.begun.items():
            begun = self.begun.setdefault(piece, _Begun({}, [], 0, more.of))
            _merge(begun.statistics, more.statistics)
            begun.sums += more.sums
            begun.parts += more.parts
            if begun.parts == begun.of:
                del self.begun[piece]
                if agree(begun.sums):
                    _merge(self.layers, begun.statistics)
                else:
                    self.broken[piece] = (str(_wrong(piece)), list(begun.statistics))
        return self

    def reasons(self) -> dict[str, list[str]]:
        """Why pieces cannot be used, by layer."""
        found: dict[str, list[str]] = {}
        for reason, layers in self.broken.values():
            for name in layers:
                found.setdefault(name, []).append(reason)
        return found


def measured(parts: Sequence[Part], step: Callable[[int], None] | None = None) -> Measured:
    """The statistics of some parts; `step` is called with the number of elements just done."""
    found = Measured()
    small = sum(part.num_elements for part in parts) < _LONE_ELEMENTS * len(parts)
    if any(is_url(part.piece[0]) for part in parts):  # a thread that waits keeps no other waiting
        small = False
    with _lone if small else nullcontext():
        for part in parts:
            found.merge(_measured(part, step))
    return found


def _measured(part: Part, step: Callable[[int], None] | None) -> Measured:
    statistics: dict[str, Statistics] = {}
    sums: list[RangeSum] = []
    try:
        blocks = part.blocks(sums)
        if part.num_elements > _TOGETHER_ELEMENTS:
            blocks = _together(blocks)
        for layer, block in blocks:
            _merge(statistics, {layer.name: measure(block, layer.params)})
            if step is not None:
                step(block.codes.size)
    except LayerError as error:
        return Measured(broken={part.piece: (str(error), [layer.name for layer in part.layers])})
    if part.of == 1:
        return Measured(statistics)
    return Measured(begun={part.piece: _Begun(statistics, sums, 1, part.of)})


def _together(blocks: Iterator[tuple[Layer, Block]]) -> Iterator[tuple[Layer, Block]]:
    """The same data, with small blocks of a layer put together: live models give one a sample."""
    waiting: dict[str, tuple[Layer, list[Block]]] = {}
    for layer, block in blocks:
        if block.codes.size >= _TOGETHER_ELEMENTS:
            yield layer, block
            continue
        _, kept = waiting.setdefault(layer.name, (layer, []))
        if kept and not _fits(block, kept[0]):
            yield layer, _joined(kept)
            kept.clear()
        kept.append(_copied(block))
        enough = len(kept) * block.codes.size >= _TOGETHER_ELEMENTS
        if enough or len(kept) == _TOGETHER_BLOCKS:
            yield layer, _joined(kept)
            kept.clear()
    for layer, kept in waiting.values():
        if kept:
            yield layer, _joined(kept)


def _fits(block: Block, other: Block) -> bool:
    """Whether two blocks can stand behind each other along the outer axis."""
    return (
        block.codes.shape[1:] == other.codes.shape[1:]
        and block.first_channel == other.first_channel
        and (block.model_float is None) == (other.model_float is None)
    )


def _joined(blocks: Sequence[Block]) -> Block:
    models = [block.model_float for block in blocks if block.model_float is not None]
    return Block(
        np.concatenate([block.floats for block in blocks]),
        np.concatenate([block.codes for block in blocks]),
        np.concatenate(models) if models else None,
        blocks[0].first_channel,
    )


def _copied(block: Block) -> Block:
    model = None if block.model_float is None else block.model_float.copy()
    return Block(block.floats.copy(), block.codes.copy(), model, block.first_channel)


def _merge(into: dict[str, Statistics], more: dict[str, Statistics]) -> None:
    for name, statistics in more.items():
        into[name] = into[name].merged(statistics) if name in into else statistics


def _wrong(piece: Piece) -> LayerError:
    return locate(DISAGREES, file=shown(piece[0]), layer=shown(piece[1]))


def _run_parts(
    parts: Sequence[Part], advance: Callable[[int, int], None] | None, workers: Workers
) -> Measured:
    tasks = list(_tasks(parts, workers))
    if workers.remote:
        report = None if advance is None else partial(_advanced, advance, len(tasks))
        return workers.reduce(measured, tasks, Measured.merge, report)
    total, done, lock = sum(part.num_elements for part in parts), 0, threading.Lock()

    def step(elements: int) -> None:
        nonlocal done
        if workers.stopped:
            raise InterruptedError
        if advance is not None:
            with lock:
                done += elements
                advance(done, total)

    return workers.reduce(partial(measured, step=step), tasks, Measured.merge)


def _advanced(advance: Callable[[int, int], None], total: int, done: int) -> None:
    advance(done, total)


def _tasks(parts: Sequence[Part], workers: Workers) -> Iterator["_Task"]:
    """The parts in their order, so many together as make up a task."""
    most_parts = _MOST_PARTS_SENT if workers.remote else len(parts)
    task: list[Part] = []
    size = 0
    for part in parts:
        task.append(part)
        size += part.num_elements
        waits = is_url(part.piece[0]) and not workers.remote  # threads can wait side by side
        if waits or size >= workers.task_elements or len(task) == most_parts:
            yield _Task(task)
            task, size = [], 0
    if task:
        yield _Task(task)


class _Task(tuple[Part, ...]):
    """Parts that are measured together; as text, what a message calls them."""

    def __str__(self) -> str:
        others = f" and {len(self) - 1} more" if len(self) > 1 else ""
        return f"{self[0]}{others}"
