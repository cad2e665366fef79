"""The rest of a command in a process of its own, so that a runtime that dies does not end it all.

A damaged model can make a runtime crash, and its process with it. So a command on live models is
forked: the child carries it out, and the parent waits, passes on signals and the exit status, and
says what happened if the child was killed.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from qdebug import whereabouts
from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.output import TEMPORARY
from qdebug.sources.open import is_live

# macOS has fork, but its own libraries do not always survive it.
_FORKS = hasattr(os, "fork") and sys.platform != "darwin"

# Signals that ask a program to end. From a terminal, parent and child both get them.
_ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")

_SHOW_CURSOR = "\x1b[?25h\r\x1b[K"  # click's progress bar hides it, and may have begun a line


def apart(names: Sequence[str]) -> None:
    """If live models are among the names, go on in a child of this process.

    Call it before a runtime is imported or a thread is started.

    Raises:
        QdebugError: in the parent: the child was killed.
        Exit: in the parent: the child ended, with this status.
    """
    context = click.get_current_context(silent=True)
    program: Any = None if context is None else context.find_root().command
    own_process = getattr(program, "own_process", False)  # not so in a test that calls `main`
    if not (own_process and _FORKS and is_live(names)):
        return
    whereabouts.share()
    sys.stdout.flush()
    sys.stderr.flush()
    parent_ended, open_end = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    child = os.fork()
    if child:
        os.close(parent_ended)
        _forward_signals(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _wait(child, names)
    program.forked = True
    os.close(open_end)
    _take_one_signal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    threading.Thread(target=_end_with_parent, args=[parent_ended], daemon=True).start()
    _silence_libraries()


def _forward_signals(child: int) -> None:
    def forward(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for each in _ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(each, forward)


def _take_one_signal() -> None:
    """Ignore signals after the first: it may come twice, from the terminal and the parent."""

    def take(number: int, frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        handler = handlers[number]
        assert callable(handler)
        handler(number, frame)  # type: ignore[arg-type]

    handlers = {each: signal.getsignal(each) for each in _ENDING}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, take)


def _end_with_parent(parent_ended: int) -> None:
    """Wait until the parent is gone, even by SIGKILL, and end this process, too."""
    os.read(parent_ended, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _silence_libraries() -> None:
    """Keep Python's stderr, and discard what libraries write to its descriptor.

    The C library reports a damaged heap there, before it aborts.
    """
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    os.close(sink)
    was = sys.stderr
    sys.stderr = os.fdopen(kept, "w", 1, encoding=was.encoding, errors=was.errors)


def _wait(child: int, names: Sequence[str]) -> NoReturn:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        raise click.exceptions.Exit(code)
    place = whereabouts.last()
    for path in map(Path, place.temporaries):
        if path.name.startswith(TEMPORARY):  # the memory may be damaged
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink()
    killed = signal.Signals(-code)
    if killed in _ENDING:
        raise click.exceptions.Exit(128 + killed)
    if sys.stderr.isatty():
        click.echo(_SHOW_CURSOR, nl=False, err=True)
    raise QdebugError(_said(place, killed, names))


def _said(place: whereabouts.Place, killed: signal.Signals, names: Sequence[str]) -> str:
    """What is known of the death, in one line."""
    model = printable(place.model) if place.model else " and ".join(map(printable, names))
    where = f": sample {place.sample}" if place.loaded and place.sample is not None else ""
    doing = "" if place.loaded or not place.model else " while loading it"
    who, why = place.runtime or "qdebug", f"{signal.strsignal(killed)} ({killed.name})"
    if killed.name in _CRASHES:
        return f"{model}{where}: {who} crashed{doing}: {why}; is the model damaged?"
    if killed.name == "SIGKILL":
        why += "; is there enough memory?"
    return f"{model}{where}: {who} was ended{doing}: {why}"
