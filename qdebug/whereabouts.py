"""Where this process is, in memory that its parent reads if a runtime kills it.

A runtime that crashes leaves no time to say anything. So what it is given is noted before. Nothing
is noted until `share` is called: only a process with a parent that reads it does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmap import mmap

# Enough for the names of a model and its temporaries: none is longer than 4096 bytes.
_SIZE = 1 << 16
_LENGTH = 4  # bytes in front of the text, which hold its length


@dataclass(frozen=True)
class Place:
    """Where a process is.

    Attributes:
        model: the model that a runtime was last given, by the user's name; empty if none was.
        runtime: its name.
        loaded: whether it accepted the model.
        sample: what the models are run on, counted from 0; None if that is not known.
        temporaries: files and folders to remove.
    """

    model: str = ""
    runtime: str = ""
    loaded: bool = False
    sample: int | None = None
    temporaries: tuple[str, ...] = ()


_memory: "mmap | None" = None
_here = Place()


def share() -> None:
    """Note from now on, in memory that processes forked from this one share with it."""
    global _memory
    from mmap import mmap

    _memory = mmap(-1, _SIZE)
    _note()


def given(model: str, runtime: str, *, loaded: bool) -> None:
    """A runtime is about to load a model, or to run one that it has loaded."""
    if (_here.model, _here.runtime, _here.loaded) != (model, runtime, loaded):
        _note(model=model, runtime=runtime, loaded=loaded)


def at_sample(number: int) -> None:
    """The models are about to be run on this sample."""
    _note(sample=number)


@contextmanager
def temporary(path: str | os.PathLike[str]) -> Iterator[None]:
    """A file or folder that the caller removes at the end of the block, if it is still alive."""
    _note(temporaries=(*_here.temporaries, os.fspath(path)))
    try:
        yield
    finally:
        _note(temporaries=_here.temporaries[:-1])


def _note(**changes: Any) -> None:
    global _here
    if _memory is None:
        return
    _here = replace(_here, **changes)
    sample = "" if _here.sample is None else str(_here.sample)
    about = (_here.model, _here.runtime, "loaded" * _here.loaded, sample, *_here.temporaries)
    text = os.fsencode("\0".join(about))[: _SIZE - _LENGTH]
    _memory[: _LENGTH + len(text)] = len(text).to_bytes(_LENGTH) + text


def last() -> Place:
    """Where the process was that shares memory with this one."""
    assert _memory is not None
    end = _LENGTH + int.from_bytes(_memory[:_LENGTH])
    model, runtime, loaded, sample, *temporaries = os.fsdecode(_memory[_LENGTH:end]).split("\0")
    number = int(sample) if sample else None
    return Place(model, runtime, bool(loaded), number, tuple(temporaries))
