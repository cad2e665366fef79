"""Hostile pair files: the zip around the arrays, and what is no file at all."""

import copy
import os
import struct
import zipfile
from pathlib import Path

from tests.hostile.cases import Cases
from tests.hostile.npz import bomb, forged, members, npy, packed, shaped, zipped

PAIRS = Cases("pair file", "x.npz", ["report", "{}"])


@PAIRS.refused("x.npz: File is not a zip file; expected an .npz file")
def empty(path: Path) -> None:
    """Nothing in it."""
    path.write_bytes(b"")


@PAIRS.refused("x.npz: no layer: found nothing, expected arrays named")
def no_members(path: Path) -> None:
    """A zip with nothing in it."""
    zipped(path, {})


@PAIRS.refused("x.npz: found a single array")
def one_array(path: Path) -> None:
    """A .npy that was renamed."""
    path.write_bytes(packed([1.0]))


@PAIRS.refused("layer 'l': it is not where the zip's directory says")
def directory_elsewhere(path: Path) -> None:
    """The directory begins beyond the end of the file."""
    zipped(path, members())
    data = bytearray(path.read_bytes())
    data[-6:-2] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)


@PAIRS.refused("x.npz: .*expected an .npz file")
def zip64_of_nothing(path: Path) -> None:
    """A zip64 directory of 2^62 bytes is announced."""
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 62, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    last = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0
    )
    path.write_bytes(end + locator + last)


@PAIRS.refused("layer 'l': it is not where the zip's directory says")
def member_outside(path: Path) -> None:
    """A member begins a terabyte behind the end of the file."""
    forged(path, lambda entries: setattr(entries[0], "header_offset", 1 << 40))


@PAIRS.refused("layer 'l': it is not where the zip's directory says")
def member_within_another(path: Path) -> None:
    """A member begins within another's data."""
    forged(path, lambda entries: setattr(entries[0], "header_offset", 40))


@PAIRS.refused("x.npz: members 'l/float.npy' and 'l/quantized.npy' overlap")
def overlapping(path: Path) -> None:
    """Two members share their data: so a small file can hold a petabyte."""
    forged(path, lambda entries: setattr(entries[1], "header_offset", entries[0].header_offset))


@PAIRS.refused("x.npz: members 'l/float.npy' and 'l0/float.npy' overlap")
def many_times_the_same(path: Path) -> None:
    """A hundred thousand entries of the directory point to three members."""

    def repeat(entries: list[zipfile.ZipInfo]) -> None:
        for number in range(33_333):
            for entry in entries[:3]:
                again = copy.copy(entry)
                again.filename = entry.filename.replace("l/", f"l{number}/")
                entries.append(again)

    forged(path, repeat)


@PAIRS.refused("layer 'l': field 'float': found 2 arrays of this name, expected one")
def duplicate(path: Path) -> None:
    """Two members of one name: other readers may take the other one."""
    content = members() | {"l/FLOAT.npy": packed([1.0])}
    forged(path, lambda entries: setattr(entries[-1], "filename", "l/float.npy"), content)


@PAIRS.refused("layer 'l': it is encrypted")
def encrypted(path: Path) -> None:
    """A member that needs a password."""
    forged(path, lambda entries: setattr(entries[0], "flag_bits", 1))


@PAIRS.refused("layer 'l': .*compression method 14, expected stored or deflated")
def lzma(path: Path) -> None:
    """Packed by a method that NumPy never writes."""
    zipped(path, members(), zipfile.ZIP_LZMA)


@PAIRS.refused("layer 'l': its checksum .CRC-32. does not agree with its data")
def wrong_checksum(path: Path) -> None:
    """The CRC-32 of the floats is another."""
    forged(path, lambda entries: setattr(entries[0], "CRC", 1))


@PAIRS.refused("layer 'l': (its compressed data is broken|the file ends 282 bytes too early)")
def broken_deflate(path: Path) -> None:
    """Stored data is called deflated."""
    forged(path, lambda entries: setattr(entries[0], "compress_type", zipfile.ZIP_DEFLATED))


@PAIRS.refused("layer 'l': .*the file ends .* bytes too early")
def larger_than_its_data(path: Path) -> None:
    """A packed member announces 4 GB, and its header the same; the data is of 40 floats."""
    content = members(float=shaped("(1000000000,)", bytes(160)))
    content |= {"l/quantized.npy": shaped("(1000000000,)", bytes(40), "'|i1'")}
    zipped(path, content, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other", b"")
        for info, itemsize in zip(archive.filelist, (4, 1), strict=False):
            info.file_size += (1_000_000_000 - 40) * itemsize


@PAIRS.read()
def zeros_packed_a_thousandfold(path: Path) -> None:
    """100 MB in 100 kB: read block by block, it is a layer of zeros like any other."""
    count = 20_000_000
    floats, codes = shaped(f"({count},)"), shaped(f"({count},)", descr="'|i1'")
    bomb(
        path,
        {
            "l/float.npy": (floats, 4 * count),
            "l/quantized.npy": (codes, count),
            "l/scale.npy": (packed(0.1), 0),
        },
    )


@PAIRS.refused("layer 'l': field 'op': found 960 MB of text, expected 16 MB at most")
def text_packed_a_thousandfold(path: Path) -> None:
    """An operator's name of 240 million characters in a megabyte."""
    sound = {name: (data, 0) for name, data in members().items()}
    bomb(path, sound | {"l/op.npy": (shaped("()", descr="'<U240000000'"), 960_000_000)})


@PAIRS.read()
def behind_a_hole(path: Path) -> None:
    """A sparse file whose members lie behind 5 GB of nothing: zip64, and sound."""
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in members().items():
            archive.writestr(name, data)


@PAIRS.read()
def behind_a_program(path: Path) -> None:
    """A zip may follow something else: that is never run."""
    zipped(path, members())
    path.write_bytes(b"#!/bin/sh\ntouch escaped\n" + path.read_bytes())


@PAIRS.read()
def link(path: Path) -> None:
    """A symbolic link to a sound file is that file."""
    zipped(path.with_suffix(".zip"), members())
    path.symlink_to(path.with_suffix(".zip"))


@PAIRS.refused("x.npz: (Too many levels of symbolic links|Symlink loop)")
def link_to_itself(path: Path) -> None:
    """A symbolic link that never arrives."""
    path.symlink_to(path.name)


@PAIRS.refused("x.npz: found no regular file")
def link_to_a_device(path: Path) -> None:
    """A symbolic link to a device that never ends."""
    path.symlink_to("/dev/zero")


@PAIRS.refused("x.npz: found no regular file")
def pipe(path: Path) -> None:
    """A pipe into which nobody writes: opening it would wait for ever."""
    os.mkfifo(path)


@PAIRS.refused("x.npz: Is a directory")
def folder(path: Path) -> None:
    """A directory with the name of a file."""
    path.mkdir()


@PAIRS.refused("x.npz: .*expected an .npz file")
def name_that_is_no_text(path: Path) -> None:
    """A member's name is said to be UTF-8 and is not."""
    zipped(path, {name.replace("l", "ü"): data for name, data in members().items()})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xfe"))


@PAIRS.read()
def name_in_an_old_code_page(path: Path) -> None:
    """A member's name without the mark of UTF-8 is read as code page 437, as every zip is."""
    zipped(path, members("~~~~"))
    path.write_bytes(path.read_bytes().replace(b"~~~~", b"\xff\x80\x81\xe1"))


@PAIRS.refused("layer 'l': field 'float': found no .npy array")
def no_array(path: Path) -> None:
    """A member that is too short for any array."""
    zipped(path, members(float=b"\x93NUMPY"))


@PAIRS.refused("layer 'l': field 'float': found no .npy array")
def nothing_for_an_array(path: Path) -> None:
    """An empty member."""
    zipped(path, members(float=b""))


@PAIRS.refused("layer 'l': field 'float': found a .npy header of 4294967295 bytes")
def long_header(path: Path) -> None:
    """A .npy header of 4 GB is announced."""
    zipped(path, members(float=b"\x93NUMPY\x02\0\xff\xff\xff\xff" + npy("")))
