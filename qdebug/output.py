"""Output files: written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qdebug.errors import QdebugError
from qdebug.names import printable


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` only when the block ends well.

    Raises:
        QdebugError: it cannot be written.
    """
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise QdebugError(f"{shown}: found a directory, expected the name of a file to write")
        target = path.resolve()  # a link stays, and what it points to is written
        if target.exists() and not target.is_file():  # a pipe or a device is not to be replaced
            with target.open("wb") as file:
                yield file
            return
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".qdebug-")
    except OSError as error:
        raise QdebugError(f"{shown}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private  # noqa: PTH101
        os.replace(temporary, target)  # noqa: PTH105
    except OSError as error:
        raise QdebugError(f"{shown}: cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
