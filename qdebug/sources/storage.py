"""Bytes of a file, local or behind a URL that fsspec can open. Knows no file format."""

import errno
import glob
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO

from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable

# `s3://bucket/key`, `simplecache::https://host/file`; a single letter is a Windows drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")

# In HTTP URLs, `?` begins a query and `[` an IPv6 address; neither is a glob.
_WEB = re.compile(r"(.*::)?https?://")

# Prefixes such as `simplecache::`, before the URL that can be listed.
_CHAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*")

# Bytes per request to a URL. Read-ahead starts at `_FIRST_SPAN`, so a small layer fetches no more
# than that. It doubles on sequential reads, up to `_SPAN`, where latency no longer dominates. Each
# open file keeps at most `_MOST_SPANS` spans.
_FIRST_SPAN = 1 << 16
_SPAN = 4 << 20
_MOST_SPANS = 4

# Ranges at most `_GAP` bytes apart are fetched as one, with the bytes between them.
_GAP = 1 << 14

# Seconds for a web server to accept a connection, and between two pieces of its answer.
_STALL = 30.0

# Small reads are served from a buffer of `_BUFFER` bytes; larger ones bypass it.
_BUFFER = 4096

# Advice for a server that does not support byte ranges.
_INSTEAD = "; 'simplecache::' in front of the URL fetches the whole file once"


def is_url(path: str) -> bool:
    """Whether a source is a URL for fsspec.

    >>> is_url("s3://bucket/run.npz"), is_url("C:/run.npz"), is_url("run.npz")
    (True, False, False)
    """
    return _URL.match(path) is not None


def expand_url(pattern: str) -> list[str]:
    """The URLs that match a URL with ``*``, sorted; a URL without ``*`` stands for itself.

    Raises:
        QdebugError: fsspec or its backend for the URL is not installed, or the listing fails.
    """
    if "*" not in pattern and (_WEB.match(pattern) or not glob.has_magic(pattern)):
        return [pattern]
    # Only the part of `simplecache::s3://bucket/*.npz` after the prefix can be listed.
    chain = _CHAIN.match(pattern)[0]  # type: ignore[index]  # always matches, if only ""
    try:
        system, path = _file_system(pattern.removeprefix(chain))
        found = sorted(_asked(system.glob, path))
    except OSError as error:
        raise QdebugError(
            f"{printable(pattern)}: {printable(str(error.strerror or error))}"
        ) from None
    return [chain + str(system.unstrip_protocol(name)) for name in found]


def absolute(path: str) -> str:
    """The name by which another process on this machine can open the file."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - any text


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading and seeking.

    Raises:
        QdebugError: it is not a regular file, or fsspec is not installed.
        OSError: as `open`; for a URL, any error of its file system.
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
    """Announce ranges (start, size) that will be read, to fetch a URL's in few requests."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, _Remote):
        file.raw.prefetch(ranges)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and do not wait for a writer where it is a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Remote(io.RawIOBase):
    """A URL's bytes, fetched by range; the last `_MOST_SPANS` spans are kept."""

    def __init__(self, url: str) -> None:
        self._system, self._path = _file_system(url)
        size = _asked(_behind_cache(self._system).info, self._path).get("size")
        if size is None:
            raise OSError(f"its size is not known; expected a size, to read byte ranges{_INSTEAD}")
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
        """Fetch these ranges together and keep them."""
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
        """The kept bytes at the start of a range; if there are none, fetch it with read-ahead."""
        if kept := self._kept(start, stop):
            return kept
        before = (data for first, data in self._spans.items() if first + len(data) == start)
        ahead = min(2 * len(next(before, b"")), _SPAN) or _FIRST_SPAN
        end = min(max(stop, start + ahead), self._size)
        # The end of the file holds a zip's directory, which is read backwards.
        first = max(min(start, end - _FIRST_SPAN), 0) if end == self._size else start
        data = self._whole(_asked(self._system.cat_file, self._path, first, end), first, end)
        while len(self._spans) >= _MOST_SPANS:
            del self._spans[next(iter(self._spans))]
        self._spans[first] = data
        return data[start - first : stop - first]

    def _kept(self, start: int, stop: int) -> bytes:
        """The kept bytes at the start of a range; empty if there are none."""
        for kept in (self._heads, self._spans):
            for first, data in kept.items():
                if first <= start < first + len(data):
                    return data[start - first : stop - first]
        return b""

    def _whole(self, data: Any, start: int, stop: int) -> bytes:
        """The bytes fetched for a range, checked for their number.

        Raises:
            OSError: there are more, as from a server without byte ranges, or fewer.
        """
        if len(data) != stop - start:
            raise OSError(
                f"found {len(data)} bytes, expected the {stop - start} requested from offset "
                f"{start}{_INSTEAD if len(data) == self._size else ''}"
            )
        return bytes(data)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(f"{printable(url)}: URLs need", "dask") from None
    system, path = _asked(url_to_fs, url, **_web_options(url))
    return system, str(path)


def _web_options(url: str) -> dict[str, Any]:
    """Options by scheme: a web server may be slow, but not silent.

    Without them, aiohttp would wait five minutes for one that says nothing, and give up one that
    takes longer for an answer.
    """
    schemes = re.findall(r"(?:\A|::)(https?)://", url)
    if not (schemes and find_spec("aiohttp")):  # fsspec names the missing package
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_STALL, sock_read=_STALL)
    return {scheme: {"client_kwargs": {"timeout": timeout}} for scheme in schemes}


def _behind_cache(system: Any) -> Any:
    """The file system to ask for a size: a cache would list the whole folder for it."""
    from fsspec.implementations.cached import CachingFileSystem

    return system.fs if isinstance(system, CachingFileSystem) else system


def _asked(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a file system answers; any error becomes an OSError with a message."""
    try:
        return function(*args, **options)
    except MemoryError:
        raise
    except TimeoutError:
        raise OSError("the server stopped answering") from None
    except ImportError as error:  # s3:// without s3fs; the message names it
        raise OSError(str(error)) from None
    except FileNotFoundError as error:  # over HTTP every failure is one; its cause says more
        known = error.__cause__ is not None and not isinstance(error.__cause__, LookupError)
        raise OSError(str(error.__cause__) if known else os.strerror(errno.ENOENT)) from None
    except Exception as error:
        if isinstance(error, OSError) and (error.strerror or str(error)):
            raise
        raise OSError(f"{type(error).__name__}: {error}".removesuffix(": ")) from None
