"""One member of a zip file, read forward in pieces and checked. Knows nothing about arrays.

The standard library reads the directory. This module reads the members: every piece goes into the
same memory and is checked while it is in the cache. A stored member can be read from any offset,
so several threads or machines can share it.
"""

import struct
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

from qdebug.sources.npz.checksum import DISAGREES, RangeSum
from qdebug.sources.npz.deflate import DeflateError, crc32, decompressobj

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_PIECE = 1 << 17
_ENCRYPTED = 0x1


class BrokenMemberError(Exception):
    """The member is not what the zip's directory says, or cannot be read."""


@dataclass(frozen=True)
class Member:
    """Where a member is stored, from the zip's directory and the member's own header.

    Attributes:
        name: of the member.
        start: of its data in the file, in bytes.
        packed_size: of its data in the file.
        size: of its data once inflated.
        crc: the expected CRC-32 of its inflated data.
        stored: whether it is uncompressed, and so can be read from any offset.
    """

    name: str
    start: int
    packed_size: int
    size: int
    crc: int
    stored: bool


def read_directory(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """The members of a zip, as its directory lists them.

    Raises:
        zipfile.BadZipFile, NotImplementedError, ValueError: it is no zip, or not readable.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        if isinstance(error.__context__, OSError):  # a failed read is no zip to zipfile
            raise error.__context__ from None
        raise


def find_member(file: BinaryIO, info: zipfile.ZipInfo) -> Member:
    """Find where the data of a member is stored.

    Raises:
        BrokenMemberError: it is encrypted, compressed by a method other than deflate, or not where
            the directory says.
    """
    if info.flag_bits & _ENCRYPTED:
        raise BrokenMemberError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BrokenMemberError(
            f"found compression method {info.compress_type}, expected stored or deflated"
        )
    header = b""
    if info.header_offset >= 0:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
        raise BrokenMemberError("it is not where the zip's directory says")
    name_size, extra_size = _LOCAL_HEADER.unpack(header)[-2:]
    return Member(
        name=info.filename,
        start=info.header_offset + len(header) + name_size + extra_size,
        packed_size=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        stored=info.compress_type == zipfile.ZIP_STORED,
    )


class MemberReader:
    """A member's bytes from `start` on, in order."""

    def __init__(self, file: BinaryIO, member: Member, start: int = 0) -> None:
        """Begin at byte `start`; only stored members allow other than 0."""
        self._file = file
        self._member = member
        self._start = start
        self._done = start
        self._crc = 0
        self._place = member.start + start
        self._packed = member.packed_size
        self._inflate = None if member.stored else decompressobj(-15)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or as many as are left."""
        data = bytearray(max(min(size, self._member.size - self._done), 0))
        self.read_into(data)
        return bytes(data)

    def read_into(self, buffer: Any) -> None:
        """Fill a buffer with the next bytes.

        Raises:
            BrokenMemberError: too few are left, or they complete the member and its checksum does
                not match.
        """
        view = memoryview(buffer)
        fill = self._copy if self._inflate is None else self._inflated
        missing = min(len(view), self._member.size - self._done) - fill(view)
        if missing or self._done + len(view) > self._member.size:
            left = self._member.size - self._done - len(view) + missing
            raise BrokenMemberError(f"the file ends {left} bytes too early")
        self._crc = crc32(view, self._crc)
        self._done += len(view)
        whole = self._start == 0 and self._done == self._member.size
        if whole and self._crc != self._member.crc:
            raise BrokenMemberError(DISAGREES)

    def range_sum(self) -> RangeSum:
        """The checksum of the bytes read so far."""
        return RangeSum(
            self._member.name,
            self._start,
            self._done - self._start,
            self._crc,
            self._member.size,
            self._member.crc,
        )

    def _copy(self, view: memoryview) -> int:
        """Fill the view from the file; returns the number of bytes filled."""
        self._file.seek(self._place)
        filled = 0
        while filled < len(view):
            size = self._file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not size:
                break
            filled += size
        self._place += filled
        return filled

    def _inflated(self, view: memoryview) -> int:
        """Fill the view with inflated data; returns the number of bytes filled."""
        assert self._inflate is not None
        filled = 0
        while filled < len(view) and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                self._file.seek(self._place)
                packed = self._file.read(min(max(len(view) - filled, 512), _PIECE, self._packed))
                self._place += len(packed)
                self._packed -= len(packed)
            try:
                piece = self._inflate.decompress(packed, min(len(view) - filled, _PIECE))
            except DeflateError as error:
                raise BrokenMemberError(f"its compressed data is broken ({error})") from None
            if not piece and not packed:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled
