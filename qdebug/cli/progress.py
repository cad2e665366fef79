"""A progress bar on stderr, for work that takes longer than `_PATIENCE`."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

_PATIENCE = 1.0  # seconds

# Called with (done, total), in elements.
Advance = Callable[[int, int], None]


@contextmanager
def progress() -> Iterator[Advance | None]:
    """A function to call as the work proceeds; None if stderr is not a terminal."""
    context = click.get_current_context(silent=True)
    if not sys.stderr.isatty() or (context is not None and context.obj == "quiet"):
        yield None
        return
    with ExitStack() as stack:
        start = time.monotonic()
        bar: Any = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - start > _PATIENCE:
                bar = stack.enter_context(click.progressbar(length=total, file=sys.stderr))
            if bar is not None:
                bar.update(done - bar.pos)

        yield advance
