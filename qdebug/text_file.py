"""Text files that are read whole: saved reports, tables, configurations."""

import os
import stat
from pathlib import Path

from qdebug.errors import QdebugError
from qdebug.names import printable


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The text in a file, with its line ends as they are. A pipe is read to its end.

    Raises:
        QdebugError: it is a device, which may have no end: a link in somebody's folder can lead
            to ``/dev/zero``.
        OSError, UnicodeDecodeError: as `pathlib.Path.read_text`.
    """
    with Path(path).open(encoding=encoding, newline="") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise QdebugError(f"{printable(str(path))}: found a device, expected a file")
        return file.read()
