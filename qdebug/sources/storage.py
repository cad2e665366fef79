"""Bytes of a file, on this machine or behind a URL that fsspec knows. Knows no format."""

import errno
import glob
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable

# `s3://bucket/key`, `simplecache::https://host/file`; one letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")

# In these, `?` begins a query and `[` an address.
_WEB = re.compile(r"(.*::)?https?://")

# `simplecache::` and the like, in front of what can be listed.
_CHAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*")

# What is fetched at once from a URL. Who reads on gets twice as much each time, up to so much that
# waiting for the answer does not count, and little enough for some per thread; a small layer costs
# no more than the first.
_FIRST_SPAN = 1 << 16
_SPAN = 4 << 20
_MOST_SPANS = 4

# Ranges as near as that are fetched as one, with what is between them.
_GAP = 1 << 14

# Small reads are served from so much at once; larger ones go straight into the reader's memory.
_BUFFER = 4096

# What to do about a server that gives no byte ranges.
_INSTEAD = "; 'simplecache::' in front of the URL fetches the whole file once"


def is_url(path: str) -> bool:
    """Whether a source is for fsspec.

    >>> is_url("s3://bucket/run.npz"), is_url("C:/run.npz"), is_url("run.npz")
    (True, False, False)
    """
    return _URL.match(path) is not None


def expand_url(pattern: str) -> list[str]:
    """The URLs that a URL with ``*`` names, in order; one without is itself.

    Raises:
        QdebugError: fsspec or what it needs is not installed, or the listing fails.
    """
    if "*" not in pattern and (_WEB.match(pattern) or not glob.has_magic(pattern)):
        return [pattern]
    # Of `simplecache::s3://bucket/*.npz` the part behind is what can be listed.
    chain = _CHAIN.match(pattern)[0]  # type: ignore[index]  # it matches nothing, too
    try:
        system, path = _file_system(pattern.removeprefix(chain))
        found = sorted(_asked(system.glob, path))
    except OSError as error:
        raise QdebugError(
            f"{printable(pattern)}: {printable(str(error.strerror or error))}"
        ) from None
    return [chain + str(system.unstrip_protocol(name)) for name in found]


def absolute(path: str) -> str:
    """The name by which another process on this machine finds the file."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - any text


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """A file to read and seek in.

    Raises:
        QdebugError: no regular file, or fsspec is not installed.
        OSError: as `open`; of a URL with whatever its file system raised.
    """
    if is_url(path):
        with io.BufferedReader(_Remote(path), _BUFFER) as remote:
            yield remote
        return
    with open(path, "rb", _BUFFER, opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise QdebugError(f"{printable(path)}: found no regular file, expected an .npz file")
        yield file


def prefetch(file: BinaryIO, ranges: Sequence[tuple[int, int]]) -> None:
    """Say that these ranges (start, size) will be read: a URL's then come in few requests."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, _Remote):
        file.raw.prefetch(ranges)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file so that a pipe without a writer is no reason to wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Remote(io.RawIOBase):
    """A URL's bytes, fetched by range; the last few spans are kept."""

    def __init__(self, url: str) -> None:
        self._system, self._path = _file_system(url)
        size = _asked(_behind_cache(self._system).info, self._path).get("size")
        if size is None:
            raise OSError(f"its size is not known; expected one to read byte ranges by{_INSTEAD}")
        self._size = int(size)
        self._position = 0
        self._heads: dict[int, bytes] = {}
        self._spans: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if start >= stop:
            return 0
        data = self._bytes(start, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch these ranges together, and keep them."""
        from fsspec.utils import merge_offset_ranges

        self._heads = {}
        wanted = [(start, min(start + size, self._size)) for start, size in ranges]
        missing = [
            (start, stop) for start, stop in wanted if len(self._kept(start, stop)) < stop - start
        ]
        _, firsts, ends = merge_offset_ranges(
            [self._path] * len(missing),
            [start for start, _ in missing],
            [stop for _, stop in missing],
            max_gap=_GAP,
            max_block=_SPAN,
        )
        paths = [self._path] * len(firsts)
        found = _asked(self._system.cat_ranges, paths, firsts, ends, on_error="raise")
        for first, end, data in zip(firsts, ends, found, strict=True):
            self._heads[first] = self._whole(data, first, end)

    def _bytes(self, start: int, stop: int) -> bytes:
        """What is at hand of a range, or the range and what follows it."""
        if kept := self._kept(start, stop):
            return kept
        before = (data for first, data in self._spans.items() if first + len(data) == start)
        ahead = min(2 * len(next(before, b"")), _SPAN) or _FIRST_SPAN
        end = min(max(stop, start + ahead), self._size)
        # What ends the file, a zip's directory, is read from its end to its start.
        first = max(min(start, end - _FIRST_SPAN), 0) if end == self._size else start
        data = self._whole(_asked(self._system.cat_file, self._path, first, end), first, end)
        while len(self._spans) >= _MOST_SPANS:
            del self._spans[next(iter(self._spans))]
        self._spans[first] = data
        return data[start - first : stop - first]

    def _kept(self, start: int, stop: int) -> bytes:
        """What is at hand of a range, from its start on."""
        for kept in (self._heads, self._spans):
            for first, data in kept.items():
                if first <= start < first + len(data):
                    return data[start - first : stop - first]
        return b""

    def _whole(self, data: Any, start: int, stop: int) -> bytes:
        """The bytes of a range that was fetched, if it is that.

        Raises:
            OSError: there are more, as from a server that knows no ranges, or fewer.
        """
        if len(data) != stop - start:
            raise OSError(
                f"found {len(data)} bytes, expected the {stop - start} from {start} on that were "
                f"asked for{_INSTEAD if len(data) == self._size else ''}"
            )
        return bytes(data)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(f"{printable(url)}: URLs need", "dask") from None
    system, path = _asked(url_to_fs, url)
    return system, str(path)


def _behind_cache(system: Any) -> Any:
    """The file system that knows of sizes: a cache's own answer is a listing of the folder."""
    from fsspec.implementations.cached import CachingFileSystem

    return system.fs if isinstance(system, CachingFileSystem) else system


def _asked(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a file system answers; its errors, of any kind, as OSError that says something."""
    try:
        return function(*args, **options)
    except MemoryError:
        raise
    except ImportError as error:  # s3:// needs s3fs, and says so
        raise OSError(str(error)) from None
    except FileNotFoundError as error:  # over HTTP whatever went wrong is one, with its cause
        known = error.__cause__ is not None and not isinstance(error.__cause__, LookupError)
        raise OSError(str(error.__cause__) if known else os.strerror(errno.ENOENT)) from None
    except Exception as error:
        if isinstance(error, OSError) and (error.strerror or str(error)):
            raise
        raise OSError(f"{type(error).__name__}: {error}".removesuffix(": ")) from None
