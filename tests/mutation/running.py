"""Run tests on mutants: collected once, then a fork for each mutant.

A fault inside a function is planted into the function that lives; a fault in what runs on import
(constants, classes, functions that modules call while they are imported) is planted before qdebug
and the tests are imported anew. Only tests that run the fault's statement are run, quick ones
first.
"""

import ast
import functools
import gc
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from _pytest.doctest import DoctestItem
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.targets import Target
from tests.paths import ROOT

# A mutant may take this many times the CPU time of its tests, and some seconds.
_TIMES, _SECONDS = 5, 20
_MEMORY = 8 << 30

# Ends of a mutant.
KILLED, SURVIVED, TIMED_OUT, NOT_RUN = "killed", "survived", "timed out", "no test runs it"

Ended = Callable[[Mutant, str], None]


def run(target: Target, ended: Ended) -> None:
    """Try every mutant of a target, and tell `ended` how it ended.

    Raises:
        SystemExit: the tests fail without any fault.
    """
    os.environ.update(target.environment)
    # The same examples in each run; what failed need not be made smaller.
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")
    trial = _Trial(target, ended)
    trial.recorder.start()
    status = pytest.main(_arguments(target), plugins=[trial])
    if trial.failure or not trial.seconds:
        raise SystemExit(f"{target.file}: {trial.failure or status} without a mutation")


def _arguments(target: Target) -> list[str]:
    options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["--assert=plain"]  # pytest would load what it is given itself
    options += [f"--basetemp={tempfile.gettempdir()}/qdebug-mutation-{os.getuid()}"]
    return [*options, *(str(ROOT / each) for each in (target.file, *target.tests))]


class _Trial:
    """A plugin of pytest that runs the collected tests on all mutants instead of once."""

    def __init__(self, target: Target, ended: Ended) -> None:
        self.target, self.ended = target, ended
        self.recorder = _Recorder(str(target.path))
        self.seconds: dict[pytest.Item, float] = {}
        self.failure = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        on_import = self.recorder.stop()
        reached: dict[int, set[pytest.Item]] = defaultdict(set)
        for item in session.items:
            self.recorder.start()
            start = time.process_time()
            passed = _passes(session, [item])
            self.seconds[item] = time.process_time() - start
            for line in self.recorder.stop():
                reached[line].add(item)
            if not passed:
                self.failure = f"{item.nodeid} fails"
                return True
        functions = _functions(str(self.target.path))
        _clear_caches()
        sound = compile(self.target.source, str(self.target.path), "exec")
        if self._forked(_anew(self.target, sound), session.items) != SURVIVED:
            self.failure = "the tests, imported anew, fail"
            return True
        for mutant, tree in mutants(self.target.source):
            items = {item for line in mutant.lines for item in reached[line]}
            chosen = sorted(items, key=lambda item: (self.seconds[item], item.nodeid))
            code = compile(ast.fix_missing_locations(tree), str(self.target.path), "exec")
            alive = functions.get((mutant.function, mutant.first_line))
            if mutant.function and not chosen and on_import.isdisjoint(mutant.lines):
                self.ended(mutant, NOT_RUN)
            elif alive and on_import.isdisjoint(mutant.lines):
                self.ended(mutant, self._forked(_in_place(session, chosen, alive, code), chosen))
            else:
                self.ended(mutant, self._forked(_anew(self.target, code), session.items))
        return True

    def _forked(self, passes: Callable[[], bool], items: list[pytest.Item]) -> str:
        limit = _SECONDS + int(_TIMES * sum(self.seconds[item] for item in items))
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            status = 1
            try:
                status = int(not passes())
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGXCPU, signal.SIGKILL):
            return TIMED_OUT
        return SURVIVED if ended == 0 else KILLED


def _passes(session: pytest.Session, items: list[pytest.Item]) -> bool:
    for place, item in enumerate(items):
        following = items[place + 1] if place + 1 < len(items) else None
        names = dict(item.dtest.globs) if isinstance(item, DoctestItem) and item.dtest else {}
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if isinstance(item, DoctestItem) and item.dtest:
            item.dtest.globs.update(names)  # it has cleared them
        if session.testsfailed:
            return False
    return True


def _in_place(
    session: pytest.Session, items: list[pytest.Item], alive: list[FunctionType], code: CodeType
) -> Callable[[], bool]:
    """Tests of functions that get the code of their name in `code`."""

    def passes() -> bool:
        for function in alive:
            first = function.__code__.co_firstlineno
            (function.__code__,) = (
                each
                for each in _codes(code)
                if (each.co_qualname, each.co_firstlineno) == (function.__code__.co_qualname, first)
            )
        return _passes(session, items)

    return passes


def _anew(target: Target, code: CodeType) -> Callable[[], bool]:
    """Tests that are imported again, with qdebug, in which the target's code is `code`."""

    def passes() -> bool:
        for name in [*sys.modules]:
            if name.partition(".")[0] in ("qdebug", "tests"):
                del sys.modules[name]
        sys.meta_path.insert(0, _Finder(target, code))
        return pytest.main(_arguments(target)) == 0

    return passes


class _Finder(MetaPathFinder):
    def __init__(self, target: Target, code: CodeType) -> None:
        self._target, self._code = target, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self._target.module:
            return None
        loader = _Loader(name, str(self._target.path))
        loader.code = self._code
        return importlib.util.spec_from_file_location(name, self._target.path, loader=loader)


class _Loader(SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def _functions(path: str) -> dict[tuple[str, int], list[FunctionType]]:
    """The functions of a file, by qualified name and first line."""
    found = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == path:
            found[each.__code__.co_qualname, each.__code__.co_firstlineno].append(each)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _clear_caches() -> None:
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("qdebug"):
            each.cache_clear()


class _Recorder:
    """The lines of one file that run between `start` and `stop`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: set[int] = set()

    def start(self) -> None:
        self._lines = set()
        threading.settrace(self._called)
        sys.settrace(self._called)

    def stop(self) -> set[int]:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        return self._lines

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != self._path:
            return None
        self._lines.add(frame.f_lineno)
        return self._ran

    def _ran(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._lines.add(frame.f_lineno)
        return self._ran
