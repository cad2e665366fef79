"""Parts of pair files to be spoiled: arrays as bytes, sound members, a forged zip directory."""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[list[zipfile.ZipInfo]], object]


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with any text as its header."""
    text = header.encode() if isinstance(header, str) else header
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def shaped(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    """A .npy file that claims this shape and type, both as Python text."""
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", data)


def packed(array: Any) -> bytes:
    """An array as numpy.save writes it."""
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=True)
    return out.getvalue()


def members(layer: str = "l", **fields: Any) -> dict[str, bytes]:
    """The members of a sound layer; `fields` are added, as arrays or as bytes."""
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    sound = {"float": x, "quantized": np.rint(x * 99).astype(np.int8), "scale": 1 / 99}
    return {
        f"{layer}/{field}.npy": value if isinstance(value, bytes) else packed(value)
        for field, value in (sound | fields).items()
    }


def zipped(path: Path, content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def forged(path: Path, change: Change, content: Mapping[str, bytes] | None = None) -> None:
    """A file whose data is sound, with a directory that `change` has altered."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content or members()).items():
            archive.writestr(name, data)
        change(archive.filelist)


def bomb(path: Path, content: Mapping[str, tuple[bytes, int]]) -> None:
    """Members that begin with some bytes and go on with so many zeros, packed a thousandfold."""
    zeros = bytes(1 << 20)
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    million = pack.compress(zeros) + pack.flush(zlib.Z_FULL_FLUSH)  # can be repeated
    with zipfile.ZipFile(path, "w") as archive:
        for name, (start, count) in content.items():
            rest = zlib.compressobj(9, zlib.DEFLATED, -15)
            head = zlib.compressobj(9, zlib.DEFLATED, -15)
            data = head.compress(start) + head.flush(zlib.Z_FULL_FLUSH)
            data += million * (count >> 20)
            data += rest.compress(zeros[: count & 0xFFFFF]) + rest.flush()
            crc = zlib.crc32(start)
            for _ in range(count >> 20):
                crc = zlib.crc32(zeros, crc)
            archive.writestr(name, data)
            info = archive.filelist[-1]
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = len(start) + count
            info.CRC = zlib.crc32(zeros[: count & 0xFFFFF], crc)
