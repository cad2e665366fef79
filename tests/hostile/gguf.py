"""Hostile GGUF files, each as the quantized side of a sound float file beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.gguf_files import IQ2_XXS, Q4_0, Q8_0, Entry, architecture, fact, floats, gguf, q8_0
from tests.hostile.cases import Cases

GGUF = Cases("GGUF", "q.gguf", ["report", "{folder}/f.gguf", "{}"])

_X = np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64)


def _written(path: Path, entries: Sequence[Entry], facts: Sequence[bytes] = ()) -> bytes:
    """Write both files; the bytes of the quantized one."""
    data = gguf(entries, facts)
    path.write_bytes(data)
    path.with_name("f.gguf").write_bytes(gguf([floats(_X)]))
    return data


@GGUF.refused("q.gguf: the file ends too early")
def cut_in_its_header(path: Path) -> None:
    """The text that names the model is cut."""
    data = _written(path, [q8_0(_X)], architecture())
    path.write_bytes(data[:120])


@GGUF.refused("q.gguf: layer 'blk.0.ffn_up.weight': the file ends too early: found")
def cut_in_its_data(path: Path) -> None:
    """The last tensor is cut: its figures would be those of another tensor."""
    path.write_bytes(_written(path, [q8_0(_X)])[:-100])


@GGUF.refused("q.gguf: layer 'blk.0.ffn_up.weight': the file ends too early: found")
def quadrillion_elements(path: Path) -> None:
    """A shape that no file has room for."""
    _written(path, [Entry("blk.0.ffn_up.weight", (1 << 25, 1 << 25), Q8_0, b"x" * 34)])


@GGUF.refused("expected fewer elements")
def elements_beyond_64_bits(path: Path) -> None:
    """A product of lengths that 64 bits cannot hold."""
    _written(path, [Entry("w", (1 << 40, 1 << 40), Q8_0, b"x" * 34)])


@GGUF.refused("found 1125899906842624 tensors, expected as many as the file has room for")
def quadrillion_tensors(path: Path) -> None:
    """A count that would take memory before the first tensor is read."""
    _written(path, [])
    path.write_bytes(gguf([], counts=(1 << 50, 0)))


@GGUF.refused("found 1152921504606846976 texts, expected as many as the file has room for")
def quintillion_tokens(path: Path) -> None:
    """A list of texts that is longer than the file."""
    _written(path, [q8_0(_X)], [fact("t", 9, b"\x08\0\0\0" + (1 << 60).to_bytes(8, "little"))])


@GGUF.refused("its data overlaps that of")
def two_tensors_in_one_place(path: Path) -> None:
    """A small file that holds any number of tensors."""
    entry = q8_0(_X)
    _written(path, [entry, Entry("other", (4, 64), Q8_0, entry.data, start=32)])


@GGUF.refused("field 'shape': found rows of 40, expected a multiple of 32, the block of Q4_0")
def rows_that_end_within_a_block(path: Path) -> None:
    """A row of another length than whole blocks: codes would belong to two rows."""
    _written(path, [Entry("blk.0.ffn_up.weight", (4, 40), Q4_0, b"x" * 90)])


@GGUF.refused("field 'shape': found shape .2, 128. in .*q.gguf, expected shape .4, 64. as in")
def another_shape(path: Path) -> None:
    """As many elements, in rows of another length."""
    _written(path, [q8_0(_X.reshape(2, 128))])


@GGUF.refused("found it twice, expected different names")
def one_name_twice(path: Path) -> None:
    """It is unknown which tensor is meant."""
    _written(path, [q8_0(_X), q8_0(_X)])


@GGUF.refused(r"found no tensor of .*f.gguf's names, expected some of 'blk.0.ffn_up.weight'")
def name_that_clears_the_screen(path: Path) -> None:
    """A terminal would obey it."""
    _written(path, [q8_0(_X, "\x1b[2J\n")])


@GGUF.refused("found no GGUF header, expected a .gguf file")
def zip_archive(path: Path) -> None:
    """Another format under this name."""
    _written(path, [])
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)


@GGUF.refused("found floats only, expected quantized tensors")
def not_quantized(path: Path) -> None:
    """The float file again."""
    _written(path, [floats(_X)])


@GGUF.refused("found two weight files|f.gguf: No such file or directory")
def float_file_that_is_missing(path: Path) -> None:
    """There is nothing to compare with."""
    path.write_bytes(gguf([q8_0(_X)]))


@GGUF.read()
def unknown_type_beside_known_ones(path: Path) -> None:
    """A type of tomorrow is named in a note, and the other tensors are reported."""
    _written(path, [q8_0(_X), Entry("new", (32,), 250, b"x" * 18)])


@GGUF.read()
def scales_of_nan(path: Path) -> None:
    """Scales that are not finite are a finding."""
    entry = q8_0(_X)
    nan = np.array([np.nan], np.float16).tobytes()
    _written(path, [Entry(entry.name, entry.shape, Q8_0, nan + entry.data[2:])])


@GGUF.read()
def codes_of_noise(path: Path) -> None:
    """Any bytes are codes, also of a vector type."""
    noise = np.random.default_rng(0).bytes(66)
    _written(path, [q8_0(_X), Entry("v", (1, 256), IQ2_XXS, noise)])


@GGUF.read()
def empty_tensors(path: Path) -> None:
    """No row, or rows of nothing."""
    none = [Entry(n, s, Q8_0, b"") for n, s in (("a", (0, 32)), ("b", (4, 0)), ("c", (0,)))]
    _written(path, [q8_0(_X), *none])
    zero = [floats(np.ones(e.shape, np.float32), e.name) for e in none]
    path.with_name("f.gguf").write_bytes(gguf([floats(_X), *zero]))


@GGUF.refused(
    "--inputs goes with a float and a quantized model",
    "report",
    "{folder}/f.gguf",
    "{}",
    "--inputs",
    "x.npz",
)
def inputs_for_weights(path: Path) -> None:
    """Nothing is run."""
    _written(path, [q8_0(_X)])


@GGUF.refused("expected two weight files", "report", "{}")
def one_file_alone(path: Path) -> None:
    """There is nothing to compare with."""
    _written(path, [q8_0(_X)])
