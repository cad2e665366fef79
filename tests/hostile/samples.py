"""Hostile inputs: files of samples for a live pair of sound models."""

import os
import zipfile
from pathlib import Path

import numpy as np

from tests.hostile.cases import FLOAT, INT8, Cases
from tests.hostile.npz import bomb, npy, packed, shaped, zipped

SAMPLES = Cases("inputs", "x.npz", ["report", FLOAT, INT8, "--inputs", "{}"])

_IMAGE = "(2, 8, 8, 1)"


@SAMPLES.refused("x.npz: .*expected an .npz or .npy file")
def empty(path: Path) -> None:
    """Nothing in it."""
    path.write_bytes(b"")


@SAMPLES.refused("x.npz: found 0 arrays")
def no_members(path: Path) -> None:
    """A zip with nothing in it."""
    zipped(path, {})


@SAMPLES.refused("x.npz: array 'image': found pickled objects, expected an array of numbers")
def pickled(path: Path) -> None:
    """An object array: loading it would run what it says."""
    zipped(path, {"image.npy": packed(np.array([Path("x")] * 2, object))})


@SAMPLES.refused("x.npy: .*expected an .npz or .npy file", file="x.npy")
def pickled_alone(path: Path) -> None:
    """An object array in a .npy."""
    path.write_bytes(packed(np.array([Path("x")] * 2, object)))


@SAMPLES.refused("x.npy: .*expected an .npz or .npy file", file="x.npy")
def header_of_code(path: Path) -> None:
    """A .npy header that is a call."""
    path.write_bytes(npy("__import__('os').system('touch escaped')"))


@SAMPLES.refused("x.npy: .*expected an .npz or .npy file", file="x.npy")
def deep_header(path: Path) -> None:
    """A .npy header of nested brackets."""
    path.write_bytes(npy("[" * 5000))


@SAMPLES.refused("x.npy: .*expected an .npz or .npy file", file="x.npy")
def elements_10_to_14(path: Path) -> None:
    """A .npy that claims more than there is."""
    path.write_bytes(shaped("(100000000000, 8, 8, 1)", bytes(256)))


@SAMPLES.refused("x.npy: .*expected an .npz or .npy file", file="x.npy")
def negative_length(path: Path) -> None:
    """A .npy of a negative number of samples."""
    path.write_bytes(shaped("(-1, 8, 8, 1)", bytes(256)))


@SAMPLES.read(file="x.npy")
def written_by_python_2(path: Path) -> None:
    """Lengths with an L behind them, as Python 2 wrote them; NumPy warns of it."""
    path.write_bytes(shaped("(2L, 8L, 8L, 1L)", bytes(512)))


@SAMPLES.refused("x.npz: array 'image': sample 0: found nan, expected finite float32 values")
def nan(path: Path) -> None:
    """A sample that is no number."""
    zipped(path, {"image.npy": packed(np.full((2, 8, 8, 1), np.nan, np.float32))})


@SAMPLES.refused("found 1e.300, expected finite float32 values")
def beyond_float32(path: Path) -> None:
    """Values that the model's type cannot hold."""
    zipped(path, {"image.npy": packed(np.full((2, 8, 8, 1), 1e300))})


@SAMPLES.refused("found float32 of shape|found shape")
def wrong_shape(path: Path) -> None:
    """Samples of another model."""
    zipped(path, {"image.npy": packed(np.zeros((2, 9, 9, 1), np.float32))})


@SAMPLES.refused("expected float32")
def text(path: Path) -> None:
    """Samples of text."""
    zipped(path, {"image.npy": packed(np.full((2, 8, 8, 1), "x"))})


@SAMPLES.refused("found 0 samples, expected one or more")
def no_samples(path: Path) -> None:
    """No sample."""
    zipped(path, {"image.npy": packed(np.zeros((0, 8, 8, 1), np.float32))})


@SAMPLES.refused(r"found \d+ samples, expected one or more|found shape")
def samples_of_nothing(path: Path) -> None:
    """2^62 samples without an element."""
    zipped(path, {"image.npy": shaped("(4611686018427387904, 0, 8, 1)")})


@SAMPLES.read("report", FLOAT, INT8, "--inputs", "{}", "--samples", "2")
def a_hundred_megabytes_of_zeros(path: Path) -> None:
    """100 MB in 100 kB: only the samples asked for are read."""
    bomb(path, {"image.npy": (shaped("(400000, 8, 8, 1)"), 400_000 * 256)})


@SAMPLES.refused("x.npz: .*encrypted")
def encrypted(path: Path) -> None:
    """A member that needs a password."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", shaped(_IMAGE, bytes(512)))
        archive.filelist[0].flag_bits = 1


@SAMPLES.refused("x.npz: .*checksum")
def wrong_checksum(path: Path) -> None:
    """The CRC-32 of the samples is another."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", shaped(_IMAGE, bytes(512)))
        archive.filelist[0].CRC = 1


@SAMPLES.refused("x.npz: Is a directory")
def folder(path: Path) -> None:
    """A directory with the name of a file."""
    path.mkdir()


@SAMPLES.refused("x.npz: found no regular file")
def pipe(path: Path) -> None:
    """A pipe into which nobody writes: opening it would wait for ever."""
    os.mkfifo(path)


@SAMPLES.refused("x.npz: found no regular file")
def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


@SAMPLES.refused("found no array 'image'|found 2 arrays")
def hostile_names(path: Path) -> None:
    """Arrays whose names are escapes."""
    zipped(path, {"\x1b[2J.npy": packed(np.zeros(1)), "../x.npy": packed(np.zeros(1))})
