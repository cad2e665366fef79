"""Workers: who does the tasks that a run of a source is cut into. Knows nothing of layers."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# More threads than that wait for memory, and each has buffers of its own.
_MOST_JOBS = 8

# Elements in a task: enough that handing it over does not count, few enough that all cores have
# work to the end, and that little is lost where a worker is.
TASK_ELEMENTS = 1 << 22


class Workers(Protocol):
    """Threads of this process, or a cluster (`qdebug.run.cluster`)."""

    @property
    def task_elements(self) -> int:
        """About how many elements a task should have."""

    @property
    def remote(self) -> bool:
        """Whether functions and tasks are sent to other processes, and so must pickle."""

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for results any more, so that functions may give up."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What `function` makes of each of the items, in their order."""

    def reduce(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        merge: Callable[[R, R], R],
        done: Callable[[int], None] | None = None,
    ) -> R:
        """What `function` makes of the tasks, one or more, merged; `merge` may change its first.

        The order of merging depends on the number of tasks alone, so that two runs give the same
        digits. `done` is called with the number of tasks done.
        """


class Threads:
    """Threads of this process. NumPy, zlib and reading leave the interpreter to the others."""

    task_elements = TASK_ELEMENTS
    remote = False
    stopped = False

    def __init__(self, jobs: int | None = None) -> None:
        """So many threads; by default as many as this process may use cores."""
        self.jobs = default_jobs() if jobs is None else jobs

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What `function` makes of each of the items, in their order."""
        return list(self._results(function, items)) if items else []

    def reduce(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        merge: Callable[[R, R], R],
        done: Callable[[int], None] | None = None,
    ) -> R:
        """What `function` makes of the tasks, merged from first to last.

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
        """The results in order; few of them wait, for they may be large."""
        self.stopped = False  # as it may be from a run before
        jobs = min(self.jobs, len(tasks))
        if jobs == 1:
            yield from map(function, tasks)
            return
        # Imported here: small sources have one task, and start sooner without.
        from concurrent.futures import Future, ThreadPoolExecutor

        pool = ThreadPoolExecutor(jobs, thread_name_prefix="qdebug")
        waiting: deque[Future[R]] = deque()
        try:
            rest = iter(tasks)
            waiting.extend(pool.submit(function, task) for task in islice(rest, 2 * jobs))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(rest, 1))
        except BaseException:  # Ctrl-C, too
            self.stopped = True
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def default_jobs() -> int:
    """The cores that this process may use, at most 8."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_JOBS)
    return min(os.cpu_count() or 1, _MOST_JOBS)
