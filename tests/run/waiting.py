"""Waiting for other processes, never without end."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Result = TypeVar("_Result")


def until(condition: Callable[[], _Result], seconds: float = 40.0) -> _Result:
    """What `condition` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not in {seconds:g} s"
        time.sleep(0.02)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block, even where waiting for it took too long."""
    with process:
        try:
            yield process
        finally:
            process.kill()
