"""Try a hostile file: run the real command in this process, and see what it took and left."""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from qdebug.cli import main

MOST_SECONDS = 5.0
MOST_MEGABYTES = 200.0

_STATUS = Path("/proc/self/status")
_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; None after an exception that was not caught.
        out: standard output.
        said: standard error.
        problem: what the promises forbid, in words; empty if all were kept.
        seconds: that it took.
        megabytes: of memory that it took beyond what this process had.
    """

    status: int | None
    out: str
    said: str
    problem: str
    seconds: float
    megabytes: float


def run(command: list[str], folder: Path, written: tuple[str, ...] = ()) -> Ended:
    """Run a command in `folder`; only the files `written` may be new there.

    Its temporary files go to a folder of their own, in which none may be left.
    """
    before = _listed(folder)
    with tempfile.TemporaryDirectory() as spool, _working(folder, spool):
        start, used = time.perf_counter(), _megabytes("VmRSS")
        _forget_peak()
        ended = CliRunner().invoke(main, command, prog_name="qdebug")
        took, grown = time.perf_counter() - start, _megabytes("VmHWM") - used
        left = os.listdir(spool)  # noqa: PTH208
    problems = []
    crashed = ended.exception is not None and not isinstance(ended.exception, SystemExit)
    if crashed:
        problems.append(f"a traceback: {ended.exception!r:.200}")
    if re.search(r"Traceback|\w+Warning: ", ended.output):
        problems.append(f"Python's own words: {ended.stderr[:200]}")
    errors = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]
    if len(errors) != (ended.exit_code == 2):
        problems.append(f"{len(errors)} errors: {ended.stderr[:200]!r}")
    page = ended.stdout.startswith("<!doctype html>")  # its own scripts may hold some
    if any(ord(c) < 32 and c != "\n" for c in (ended.stderr if page else ended.output)):
        problems.append("control characters in the output")
    if new := _listed(folder) - before - set(written):
        problems.append(f"wrote {sorted(new)}")
    if left:
        problems.append(f"left {left}")
    if took > MOST_SECONDS:
        problems.append(f"took {took:.1f} s")
    if grown > MOST_MEGABYTES:
        problems.append(f"took {grown:.0f} MB")
    status = None if crashed else ended.exit_code
    return Ended(status, ended.stdout, ended.stderr, "; ".join(problems), took, grown)


def _listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def _working(folder: Path, spool: str) -> Iterator[None]:
    """Work in `folder`, with temporary files in `spool`."""
    here, before = Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = spool
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = before


def _megabytes(name: str) -> float:
    """A figure of this process's memory; 0 where the system has none."""
    if not _STATUS.exists():
        return 0.0
    return int(_STATUS.read_text().split(f"{name}:")[1].split()[0]) / 1024


def _forget_peak() -> None:
    """Let the peak of this process's memory begin anew."""
    if _PEAK.exists():
        _PEAK.write_text("5")
