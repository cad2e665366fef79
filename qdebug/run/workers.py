"""Workers: they carry out the tasks of a run over a source. Knows nothing about layers."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import reduce
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Beyond this, threads are memory-bound, and each needs its own buffers.
_MOST_JOBS = 8

# Seconds for threads to end after an error or Ctrl-C; they stop at their next block.
_PATIENCE = 2.0

# Elements in a task: enough to make the overhead per task negligible, few enough to keep all cores
# busy to the end and to lose little with a lost worker.
TASK_ELEMENTS = 1 << 22


class Workers(Protocol):
    """Threads of this process, or a cluster (`qdebug.run.cluster`)."""

    @property
    def task_elements(self) -> int:
        """The approximate number of elements that a task should have."""

    @property
    def remote(self) -> bool:
        """Whether functions and tasks go to other processes, and so must be picklable."""

    @property
    def stopped(self) -> bool:
        """Whether the results are no longer needed, so that functions may stop early."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of `function` for all items, in their order."""

    def reduce(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        merge: Callable[[R, R], R],
        done: Callable[[int], None] | None = None,
    ) -> R:
        """The results of `function` for one or more tasks, merged into one.

        `merge` may change its first argument. The order of merging depends only on the number of
        tasks, so two runs give the same digits. `done` is called with the number of tasks done.
        """


class Threads:
    """Threads of this process. NumPy, zlib and file reads release the interpreter lock."""

    task_elements = TASK_ELEMENTS
    remote = False
    stopped = False

    def __init__(self, jobs: int | None = None) -> None:
        """`jobs` threads; None for one per core that this process may use, at most `_MOST_JOBS`."""
        self.jobs = default_jobs() if jobs is None else jobs

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of `function` for all items, in their order."""
        return list(self._results(function, items)) if items else []

    def reduce(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        merge: Callable[[R, R], R],
        done: Callable[[int], None] | None = None,
    ) -> R:
        """The results of `function` for all tasks, merged from first to last.

        >>> Threads(2).reduce(str, [1, 2, 3], lambda a, b: a + b)
        '123'
        """

        def counted() -> Iterator[R]:
            for number, result in enumerate(self._results(function, tasks), 1):
                yield result
                if done is not None:
                    done(number)

        return reduce(merge, counted())

    def _results(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """The results in order; at most 2 * `jobs` are held, because they may be large."""
        self.stopped = False  # a previous run may have set it
        jobs = min(self.jobs, len(tasks))
        if jobs == 1:
            yield from map(function, tasks)
            return
        # Imported here: small sources have one task and start faster without it.
        from concurrent.futures import Future

        todo: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
        waiting: deque[Future[R]] = deque()

        def hand_out(tasks: Iterable[T]) -> None:
            for task in tasks:
                waiting.append(Future())
                todo.put((waiting[-1], task))

        def work() -> None:
            while (job := todo.get()) is not None:
                future, task = job
                try:
                    future.set_result(function(task))
                except BaseException as error:
                    future.set_exception(error)

        # Not a ThreadPoolExecutor, whose threads the program waits for when it ends, even if one
        # waits for a server that has fallen silent.
        threads = [Thread(target=work, name=f"qdebug_{k}", daemon=True) for k in range(jobs)]
        try:
            for thread in threads:
                thread.start()
            rest = iter(tasks)
            hand_out(islice(rest, 2 * jobs))
            while waiting:
                yield waiting.popleft().result()
                hand_out(islice(rest, 1))
        except BaseException:  # Ctrl-C, too
            self.stopped = True
            with suppress(Empty):
                while True:
                    todo.get_nowait()
            raise
        finally:
            for _ in threads:
                todo.put(None)
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                if thread.ident is not None:  # started
                    thread.join(max(deadline - time.monotonic(), 0))


def default_jobs() -> int:
    """The number of cores that this process may use, at most `_MOST_JOBS`."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_JOBS)
    return min(os.cpu_count() or 1, _MOST_JOBS)
