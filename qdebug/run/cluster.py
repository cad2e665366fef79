"""Cluster: one function over many tasks, on the workers of a Dask cluster.

Knows neither sources nor statistics. Dask is imported only when a cluster is requested.
"""

import asyncio
import logging
import operator
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from functools import partial, reduce
from importlib.util import find_spec
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable, shown
from qdebug.run.workers import TASK_ELEMENTS

CONNECT_TIMEOUT = 10.0  # seconds for a scheduler, or all workers, to answer
WORKER_TIMEOUT = 30.0  # seconds without any worker before giving up
_POLL = 2.0  # seconds without a result before checking that workers are left
_PAUSE = 0.1  # seconds before asking again whether there is a worker
_CLOSE_TIMEOUT = 1.0  # seconds for a connection, or a local worker, to end by itself

# Results are merged in groups of `_FAN_IN` neighbours, and these groups again; the client fetches
# the result of each `_BLOCK`. A lost worker therefore costs at most the blocks in flight, and the
# scheduler keeps track of no more than those.
_FAN_IN = 32
_BLOCK = _FAN_IN**2
_IN_FLIGHT = 4 * _BLOCK  # tasks handed to the scheduler and not finished

# Evaluated here, by the scheduler and by every worker; all must agree. It is an expression, which
# also runs where qdebug is missing or Python differs.
_VERSIONS = (
    "{'Python': '%d.%d' % __import__('sys').version_info[:2],"
    " 'distributed': __import__('distributed').__version__,"
    " 'qdebug': __import__('qdebug').__version__}"
)
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "asyncio")

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Cluster:
    """A scheduler and its workers, made by `connect`. Each task should read about 64 MB."""

    task_elements = 3 * TASK_ELEMENTS  # of float32 and int8, 5 bytes each
    remote = True
    stopped = False

    def __init__(self, client: Any, scheduler: str, dashboard: str) -> None:
        self._client = client
        self._scheduler = scheduler
        self.dashboard = dashboard  # a link; empty if there is no dashboard

    def map(
        self,
        function: Callable[[_Task], _Result],
        items: Sequence[_Task],
        done: Callable[[int], None] | None = None,
    ) -> list[_Result]:
        """The results of `function` for all items, in their order.

        Args:
            function: applied to each item; function and items are pickled for the workers.
            items: any number.
            done: called with the number of items finished, as they finish.

        Raises:
            QdebugError: the cluster failed, or `function` raised it.
        """
        return self.reduce(partial(_alone, function), items, operator.add, done) if items else []

    def reduce(
        self,
        function: Callable[[_Task], _Result],
        tasks: Sequence[_Task],
        merge: Callable[[_Result, _Result], _Result],
        done: Callable[[int], None] | None = None,
    ) -> _Result:
        """All tasks' results merged into one; the workers merge blocks of up to `_BLOCK` tasks.

        The order of merging depends only on the number of tasks. Two runs therefore agree to the
        last digit, no matter which worker was faster or was lost.

        Args:
            function: applied to each task; function and tasks are pickled for the workers.
            tasks: one or more.
            merge: merges the results of two neighbours; associative.
            done: called with the number of tasks finished, as they finish.

        Raises:
            QdebugError: the cluster failed, or `function` raised it.
        """
        run = _Run(self._client, function, tasks, merge)
        try:
            result: _Result = self._collect(run, done)
            return result
        except Exception as error:
            explained = self._explained(error, run)
            if explained is None:
                raise
            raise explained from error
        finally:
            run.cancel()

    def _collect(self, run: "_Run", done: Callable[[int], None] | None) -> Any:
        finished, blocks = 0, {}
        while run.feed():
            future = self._next(run)
            step, index = future.key
            if step == run.block or future.status != "finished":
                blocks[index] = self._value(future)
            else:
                finished += 1
                if done is not None:
                    done(finished)
        return reduce(run.merge, [blocks[index] for index in sorted(blocks)])

    def _next(self, run: "_Run") -> Any:
        """The next future to end, with a result or an error."""
        while True:
            try:
                return run.next(_POLL)
            except Empty:
                self.require_workers()

    def _value(self, future: Any) -> Any:
        """A finished future's result, recomputed if its worker is lost; raises its error."""
        while True:
            try:
                return future.result(timeout=_POLL)
            except TimeoutError:
                if future.status == "error":  # the task raised it
                    raise
                self.require_workers()

    def require_workers(self) -> None:
        """Wait for a worker if there is none.

        Raises:
            QdebugError: there is none after `WORKER_TIMEOUT`, or the scheduler does not answer.
        """
        until = time.monotonic() + WORKER_TIMEOUT
        while not self._answer(self._client.scheduler.identity)["workers"]:
            if time.monotonic() > until:
                raise QdebugError(
                    f"scheduler {self._scheduler}: no worker in {WORKER_TIMEOUT:g} s; start one "
                    f"with 'dask worker ADDRESS' where qdebug is installed"
                )
            time.sleep(_PAUSE)

    def _answer(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What the scheduler or the workers answer.

        Raises:
            QdebugError: nothing within `CONNECT_TIMEOUT`, as from a process that is stopped.
        """

        async def answer() -> Any:
            return await ask(*args, **options)

        try:
            return self._client.sync(answer, callback_timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            raise QdebugError(
                f"scheduler {self._scheduler}: no answer in {CONNECT_TIMEOUT:g} s"
            ) from None
        except OSError:
            raise self._lost() from None

    def _lost(self) -> QdebugError:
        return QdebugError(f"scheduler {self._scheduler}: the connection was lost")

    def require_same_versions(self) -> None:
        """Check that scheduler and workers run the versions installed here.

        Raises:
            QdebugError: one of them does not.
        """
        where = f"scheduler {self._scheduler}"
        try:
            _compare(where, self._answer(self._client.run_on_scheduler, eval, _VERSIONS))
        except ImportError as error:
            _compare(where, error)
        versions = self._answer(self._client.run, eval, _VERSIONS, on_error="return")
        for address, there in versions.items():
            _compare(f"worker {printable(address)} of {where}", there)

    def _explained(self, error: Exception, run: "_Run") -> QdebugError | None:
        """`error` in words that help the user; None if the cluster is not its cause."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        if isinstance(error, CancelledError):
            return self._lost()
        if isinstance(error, KilledWorker):
            return QdebugError(
                f"{run.described(error.task)}: {error.allowed_failures + 1} workers ended while "
                f"running it, the last at {error.last_worker.address}; out of memory?"
            )
        if isinstance(error, QdebugError):
            return None
        with suppress(OSError):  # a worker may have joined since the first check
            self.require_same_versions()
        if isinstance(error, ImportError):
            return QdebugError(f"scheduler {self._scheduler}: a worker lacks a module: {error}")
        return None


class _Run:
    """Tasks submitted to the scheduler block by block, and merged on the workers."""

    def __init__(self, client: Any, function: Any, tasks: Sequence[Any], merge: Any) -> None:
        name = f"qdebug-{uuid4().hex}"
        self.leaf, self.group, self.block = f"{name}-task", f"{name}-group", f"{name}-block"
        self.tasks, self.merge = tasks, merge
        self._client, self._function = client, function
        self._submitted = 0
        self._in_flight: dict[Any, Any] = {}  # key -> future, of tasks and blocks
        self._finished: SimpleQueue[Any] = SimpleQueue()

    def feed(self) -> bool:
        """Submit blocks up to `_IN_FLIGHT` tasks; returns whether any are in flight."""
        while self._submitted < len(self.tasks) and len(self._in_flight) + _BLOCK <= _IN_FLIGHT:
            self._submit(range(self._submitted, min(self._submitted + _BLOCK, len(self.tasks))))
        return bool(self._in_flight)

    def _submit(self, indices: range) -> None:
        leaves = self._client.map(
            self._function,
            [self.tasks[index] for index in indices],
            key=[(self.leaf, index) for index in indices],
        )
        merged = partial(_merged, self.merge)
        groups = [
            self._client.submit(merged, leaves[k : k + _FAN_IN], key=(self.group, indices[k]))
            for k in range(0, len(leaves), _FAN_IN)
        ]
        block = self._client.submit(merged, groups, key=(self.block, indices[0]))
        for future in [*leaves, block]:
            self._in_flight[future.key] = future
            future.add_done_callback(self._finished.put)
        self._submitted = indices.stop

    def next(self, timeout: float) -> Any:
        """The next future to finish; raises Empty if none does within `timeout` seconds."""
        future = self._finished.get(timeout=timeout)
        del self._in_flight[future.key]
        return future

    def described(self, key: Any) -> str:
        """The step with this key, in words for a message."""
        step, index = key
        if step != self.leaf:
            return "merging of results"
        return f"task {shown(str(self.tasks[index]))}"

    def cancel(self) -> None:
        """Release everything in flight; tasks that have not started never will."""
        # Not Client.cancel: with tasks that depend on each other, it trips an assertion in the
        # scheduler (distributed 2026.8), which then drops the connection.
        for future in self._in_flight.values():
            future.release()


def _alone(function: Callable[[_Task], _Result], item: _Task) -> list[_Result]:
    return [function(item)]


def _merged(merge: Callable[[_Result, _Result], _Result], results: Sequence[_Result]) -> _Result:
    # `merge` may change its first argument, but the worker keeps that result for a second request.
    return reduce(merge, results[1:], deepcopy(results[0]))


def _compare(where: str, there: Any) -> None:
    """Check the value of `_VERSIONS`, or of a part of it, from another process."""
    here: dict[str, str] = eval(_VERSIONS)
    if isinstance(there, ImportError):
        raise QdebugError(
            f"{where}: qdebug cannot be imported ({there}); install qdebug {here['qdebug']} there"
        )
    if isinstance(there, Exception):
        return  # the worker has left, or its own error will be reported
    for name, version in there.items():
        if version != here[name]:
            raise QdebugError(f"{where}: {name} {version}, expected {here[name]} as installed here")


@contextmanager
def connect(scheduler: str, workers: int | None = None) -> Iterator[Cluster]:
    """The cluster at an address, or worker processes on this machine; closed at the end.

        with connect("local") as cluster:
            total = cluster.reduce(len, ["a", "bc"], operator.add)  # 3

    Args:
        scheduler: `local`, or an address such as `tcp://host:8786`.
        workers: number of local workers; None for one per core that this process may use.

    Raises:
        QdebugError: Dask is not installed; there is no scheduler; it has no workers; or their
            versions differ from those here.
    """
    if find_spec("distributed") is None:
        raise MissingExtraError("--scheduler needs", "dask")
    if scheduler == "local" and find_spec("cryptography") is None:
        raise MissingExtraError("--scheduler local needs", "dask")
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        local = scheduler == "local"
        address, security = (
            stack.enter_context(_local_workers(workers)) if local else (scheduler, _configured())
        )
        client = _client(address, security)
        stack.callback(client.close, timeout=_CLOSE_TIMEOUT)
        cluster = Cluster(client, printable(scheduler), dashboard="")
        if not local:
            with suppress(KeyError):
                cluster.dashboard = printable(client.dashboard_link)
        cluster.require_workers()
        cluster.require_same_versions()
        yield cluster


def _configured() -> Any:
    """The credentials in Dask's own configuration; without any, connections are not encrypted."""
    from distributed.security import Security

    return Security()


def _client(address: str, security: Any) -> Any:
    from distributed import Client
    from distributed.utils import LoopRunner, sync
    from distributed.versions import VersionMismatchWarning

    runner = LoopRunner()
    runner.start()
    try:
        there = sync(runner.loop, _greet, address, security, callback_timeout=CONNECT_TIMEOUT)
        _compare(f"scheduler {printable(address)}", there)
        with warnings.catch_warnings():  # `require_same_versions` reports it in one line
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False, security=security)
    except QdebugError:
        raise
    except Exception as error:
        root = _root(error)
        silent = isinstance(root, TimeoutError) or not str(root)
        reason = f"no answer in {CONNECT_TIMEOUT:g} s" if silent else str(root)
        raise QdebugError(
            f"no scheduler at '{shown(address)}' ({shown(reason)}); "
            f"expected 'local' or the address of a Dask scheduler, such as tcp://host:8786"
        ) from error
    finally:
        runner.stop()


async def _greet(address: str, security: Any) -> dict[str, str]:
    """The version of distributed that a scheduler runs.

    A client would wait forever for a peer that accepts the connection and then stays silent. It
    would also fail to close after it reached a worker or another version.
    """
    from distributed.core import rpc

    options = security.get_connection_args("client")
    patience = 0.9 * CONNECT_TIMEOUT  # less than the caller's, because errors here name a cause
    async with rpc(address, timeout=patience, connection_args=options) as server:
        kind = (await server.identity())["type"]
        if kind != "Scheduler":
            raise OSError(f"it is a {kind}")
        versions = await server.versions()
    return {"distributed": versions["packages"]["distributed"]}


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Threads and processes started inside ignore Ctrl-C; the main thread alone handles it.

    A terminal sends it to every process in the foreground, so workers would show tracebacks.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first worker would start it, and unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _local_workers(workers: int | None) -> Iterator[tuple[str, Any]]:
    """Run a scheduler in this process with worker processes; yields its address and credentials.

    Whoever can talk to a scheduler or a worker can run code as its user, and everybody on this
    machine can open its ports. Therefore they require a certificate that only they have, which is
    made here and kept in memory.
    """
    import dask
    from dask.system import cpu_count
    from distributed import LocalCluster
    from distributed.security import Security

    # Scheduler and workers always listen for HTTP, too, which knows no credentials.
    no_pages: dict[str, list[str]] = {
        f"distributed.{who}.http.routes": [] for who in ("scheduler", "worker")
    }
    security = Security.temporary()
    with (
        TemporaryDirectory(prefix="qdebug-") as folder,
        _main_left_alone(),
        dask.config.set({**no_pages, "temporary-directory": folder}),
    ):
        with _interrupts_blocked():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                host="127.0.0.1",
                security=security,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # its HTTP port: any
                memory_limit=None,  # a worker near a limit pauses, and may never resume
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            cluster.scale(workers or cpu_count())
            try:
                yield cluster.scheduler_address, security
            finally:
                cluster.sync(_end_workers, cluster)


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Processes started inside do not import, and thereby run, the program's main file.

    multiprocessing makes them import it if it can be found. In a script without `if __name__ ==
    "__main__":`, each worker would then start workers of its own.
    """
    main = vars(sys.modules["__main__"])
    before = {name: main.get(name) for name in ("__file__", "__spec__")}
    main.update(dict.fromkeys(before))
    try:
        yield
    finally:
        main.update(before)


async def _end_workers(cluster: Any) -> None:
    """End the workers within `_CLOSE_TIMEOUT`, even in the middle of a task."""
    nannies = list(cluster.workers.values())
    ends = [nanny.close(timeout=_CLOSE_TIMEOUT) for nanny in nannies]
    await asyncio.gather(*ends, return_exceptions=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep distributed's log off stderr: errors that a user can act on are raised."""
    import distributed  # noqa: F401  (sets its loggers' levels when it is imported)

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
