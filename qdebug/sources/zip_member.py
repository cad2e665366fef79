"""One member of a zip file, read forwards in pieces and checked. Knows nothing of arrays.

The standard library reads the directory; the member itself is read here, so that thousands of
files need not stay open and their directories are read once.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_PIECE = 1 << 16
_ENCRYPTED = 0x1


class BrokenMemberError(Exception):
    """The member cannot be read as the zip's directory describes it."""


class MemberReader:
    """The member's bytes, in order; `read` checks length and CRC-32 with the last of them."""

    def __init__(self, file: BinaryIO, info: zipfile.ZipInfo) -> None:
        self._file = file
        self._packed = info.compress_size
        self._left = info.file_size
        self._crc = 0
        self._expected_crc = info.CRC
        self._inflate = (
            None if info.compress_type == zipfile.ZIP_STORED else zlib.decompressobj(-15)
        )

    def read(self, size: int) -> bytes:
        """The next `size` bytes, all of them.

        Raises:
            BrokenMemberError: there are fewer, or the checksum does not agree.
        """
        size = min(size, self._left)
        data = self._file.read(size) if self._inflate is None else self._inflated(size)
        if len(data) < size:
            raise BrokenMemberError(f"the file ends {self._left - len(data)} bytes too early")
        self._crc = zlib.crc32(data, self._crc)
        self._left -= size
        if not self._left and self._crc != self._expected_crc:
            raise BrokenMemberError("its checksum (CRC-32) does not agree with its data")
        return data

    def _inflated(self, size: int) -> bytes:
        assert self._inflate is not None
        pieces: list[bytes] = []
        missing = size
        while missing and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._file.read(min(_PIECE, self._packed))
                self._packed -= len(packed)
            try:
                piece = self._inflate.decompress(packed, missing)
            except zlib.error as error:
                raise BrokenMemberError(f"its compressed data is broken ({error})") from None
            if not piece and not packed:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


@contextmanager
def open_member(path: str, info: zipfile.ZipInfo) -> Iterator[MemberReader]:
    """A reader at the start of the member's data.

    Raises:
        BrokenMemberError: encrypted, compressed in another way than deflate, or not where the
            directory says.
    """
    if info.flag_bits & _ENCRYPTED:
        raise BrokenMemberError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BrokenMemberError(
            f"found compression method {info.compress_type}, expected stored or deflated"
        )
    with Path(path).open("rb") as file:
        header = b""
        if 0 <= info.header_offset <= os.fstat(file.fileno()).st_size:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
            raise BrokenMemberError("it is not where the zip's directory says")
        name_size, extra_size = _LOCAL_HEADER.unpack(header)[-2:]
        file.seek(name_size + extra_size, 1)
        yield MemberReader(file, info)
