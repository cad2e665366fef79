"""What the tests of clusters have workers do; workers import it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qdebug.errors import FieldError, QdebugError
from qdebug.run.cluster import Cluster, connect


def third(task: int) -> float:
    return task / 3


def slowly(task: int) -> float:
    time.sleep(0.02)
    return task / 3


def dies_once(task: int) -> float:
    """A third; the first time that task 5 comes, it takes its worker along."""
    marker = Path(os.environ["QDEBUG_TEST_MARKER"])
    if task == 5 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slowly(task)


def dies(task: str) -> str:
    if task == "poison\x1b[2J":
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def lasting(task: int) -> int:
    time.sleep(60)
    return task


def bad_field(task: int) -> int:
    raise FieldError("scale", found="-1", expected="more")


def faulty(task: int) -> float:
    return 1 / (task - 3)


def timing_out(task: int) -> int:
    raise TimeoutError("no byte in 30 s")


def nothing(task: int) -> None:
    pass


def lacking(task: int) -> int:
    raise ModuleNotFoundError("No module named 's3fs'")


def in_tree_order(values: list[float]) -> float:
    """The sum, added up as the cluster does: 32 neighbours, 32 of these sums, the rest."""
    for width in (32, 32, len(values)):
        groups = [values[k : k + width] for k in range(0, len(values), width)]
        values = [sum(group[1:], group[0]) for group in groups]
    return values[0]


def error_of(address: str, use: Callable[[Cluster], Any] = lambda it: None) -> str:
    """The one line that connecting to `address`, and `use`, ends with."""
    with pytest.raises(QdebugError) as info, connect(address) as connected:
        use(connected)
    assert "\n" not in str(info.value)
    return str(info.value)
