"""Output files: written whole or not at all."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qdebug import whereabouts
from qdebug.errors import QdebugError
from qdebug.names import printable

# How the names of temporaries begin.
TEMPORARY = ".qdebug-"

_DIRECTORY = "found a directory, expected the name of a file to write"


def check_writable(path: Path) -> None:
    """Check, before anything is read, that this file can probably be written.

    Raises:
        QdebugError: it is a directory, or its folder is missing or not writable.
    """
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise QdebugError(f"{shown}: {_DIRECTORY}")
        target = path.resolve()
        if target.exists() and not target.is_file():
            return
        folder = target.parent
        mode = folder.stat().st_mode
    except OSError as error:
        raise QdebugError(f"{shown}: cannot be written: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise QdebugError(f"{shown}: cannot be written: {os.strerror(errno.ENOTDIR)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise QdebugError(f"{shown}: cannot be written: {os.strerror(errno.EACCES)}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that is renamed to `path` only if the block ends without an error.

    Raises:
        QdebugError: it cannot be written.
    """
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise QdebugError(f"{shown}: {_DIRECTORY}")
        target = path.resolve()  # keep a link and write the file that it points to
        if target.exists() and not target.is_file():  # do not replace a pipe or a device
            with target.open("wb") as file:
                yield file
            return
        # Named before it is made: a signal may arrive as soon as it is there.
        temporary = target.parent / f"{TEMPORARY}{os.urandom(8).hex()}"
        try:
            with whereabouts.temporary(temporary):
                with open(temporary, "xb", opener=_private) as file:
                    yield file
                os.chmod(temporary, _mode_of(target))  # noqa: PTH101
                os.replace(temporary, target)  # noqa: PTH105
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise QdebugError(f"{shown}: cannot be written: {error.strerror}") from None


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner can read until it is whole."""
    return os.open(path, flags, 0o600)


def _mode_of(target: Path) -> int:
    """The permissions of the existing file, else those of a new file."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
