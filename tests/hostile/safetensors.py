"""Hostile safetensors files, each as the quantized side of a sound float file beside it."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Cases

SAFETENSORS = Cases("safetensors", "q.safetensors", ["report", "{folder}/f.safetensors", "{}"])

_X = np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64)
_CODES = np.rint(_X * 127).astype(np.int8).tobytes()
_SCALE = np.float32(1 / 127).tobytes()
_WEIGHT = {"dtype": "I8", "shape": [4, 64], "data_offsets": [0, 256]}
_OF_SCALE = {"dtype": "F32", "shape": [1], "data_offsets": [256, 260]}
_HEADER = {"w.weight": _WEIGHT, "w.weight_scale": _OF_SCALE}


def _file(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _written(path: Path, header: Any, data: bytes = _CODES + _SCALE, **more: Any) -> None:
    """Write both files."""
    path.write_bytes(_file(header, data, **more))
    plain = {"w.weight": {"dtype": "F32", "shape": [4, 64], "data_offsets": [0, 1024]}}
    path.with_name("f.safetensors").write_bytes(_file(plain, _X.tobytes()))


@SAFETENSORS.read()
def sound(path: Path) -> None:
    """The file that the others are made of."""
    _written(path, _HEADER)


@SAFETENSORS.refused("found a header of 18446744073709551615 bytes, expected a .safetensors file")
def header_of_16_exabytes(path: Path) -> None:
    """A length that would be taken from memory before anything is read."""
    _written(path, _HEADER, length=2**64 - 1)


@SAFETENSORS.refused("the file ends too early: found .* bytes, expected a header of 99000000")
def header_longer_than_the_file(path: Path) -> None:
    """A length within the format's bound, which the file has no room for."""
    _written(path, _HEADER, length=99_000_000)


@SAFETENSORS.refused("found JSON that is nested too deeply|found no JSON")
def header_nested_deeply(path: Path) -> None:
    """A parser that recurses would overflow its stack."""
    _written(path, b"[" * 100_000)


@SAFETENSORS.refused("'w.weight': found it twice, expected different names")
def one_name_twice(path: Path) -> None:
    """It is unknown which tensor is meant."""
    entry = json.dumps(_WEIGHT)
    _written(path, f'{{"w.weight": {entry}, "w.weight": {entry}}}'.encode())


@SAFETENSORS.refused("tensor 'w.weight': the file ends too early")
def cut_in_its_data(path: Path) -> None:
    """The last tensor is cut."""
    _written(path, _HEADER, _CODES[:100])


@SAFETENSORS.refused("tensor 'w.weight': field 'data_offsets': found 256 bytes, expected 1e.15")
def quadrillion_elements(path: Path) -> None:
    """A shape that its bytes have no room for."""
    _written(path, _HEADER | {"w.weight": _WEIGHT | {"shape": [10**6, 10**9]}})


@SAFETENSORS.refused("tensor 'w.weight': field 'shape': found .* expected fewer elements")
def elements_beyond_64_bits(path: Path) -> None:
    """A product of lengths that 64 bits cannot hold."""
    _written(path, _HEADER | {"w.weight": _WEIGHT | {"shape": [2**40, 2**40]}})


@SAFETENSORS.refused("field 'shape': found .-4, -64., expected a list of whole numbers, 0 or more")
def negative_lengths(path: Path) -> None:
    """Two negative lengths have a positive product."""
    _written(path, _HEADER | {"w.weight": _WEIGHT | {"shape": [-4, -64]}})


@SAFETENSORS.refused("field 'data_offsets': found .256, 0., expected a start and an end")
def end_before_its_start(path: Path) -> None:
    """Its size would be negative."""
    _written(path, _HEADER | {"w.weight": _WEIGHT | {"data_offsets": [256, 0]}})


@SAFETENSORS.refused("its data overlaps that of")
def two_tensors_in_one_place(path: Path) -> None:
    """A small file that holds any number of tensors."""
    _written(path, _HEADER | {"x.weight": _WEIGHT})


@SAFETENSORS.refused("expected the end of the file")
def bytes_that_nobody_owns(path: Path) -> None:
    """Something may be hidden there, as in a file that is two formats at once."""
    _written(path, _HEADER, _CODES + _SCALE + b"PK\x03\x04")


@SAFETENSORS.refused(r"expected|found no tensor")
def name_that_clears_the_screen(path: Path) -> None:
    """A terminal would obey it."""
    header = {"\x1b[2J\n.weight": _WEIGHT, "\x1b[2J\n.weight_scale": _OF_SCALE}
    _written(path, header)


@SAFETENSORS.read()
def scale_of_nan(path: Path) -> None:
    """A scale that is not finite is a finding."""
    _written(path, _HEADER, _CODES + np.float32(np.nan).tobytes())


@SAFETENSORS.refused(r"field 'weight_scale': found shape \(3,\), expected one that divides")
def scales_of_another_number(path: Path) -> None:
    """Three scales for four rows: it is left out, and nothing else is there."""
    three = {"dtype": "F32", "shape": [3], "data_offsets": [256, 268]}
    _written(path, _HEADER | {"w.weight_scale": three}, _CODES + 3 * _SCALE)


@SAFETENSORS.refused("tensor '../../x': found|expected", "report", "{folder}/f.safetensors", "{}")
def not_a_header(path: Path) -> None:
    """Numbers where an array should be described."""
    _written(path, {"../../x": 3})


def _index(folder: Path, shard: str) -> None:
    text = json.dumps({"weight_map": {"w.weight": shard}})
    (folder / "model.safetensors.index.json").write_text(text)


@SAFETENSORS.refused(
    "tensor 'w.weight': found '../../etc/passwd.safetensors', expected a .safetensors file beside",
    "report",
    "{folder}/f.safetensors",
    "{folder}/model.safetensors.index.json",
)
def index_that_leaves_its_folder(path: Path) -> None:
    """A shard's name is data: it must not become a path elsewhere."""
    _written(path, _HEADER)
    _index(path.parent, "../../etc/passwd.safetensors")


@SAFETENSORS.refused(
    "gone.safetensors: No such file or directory",
    "report",
    "{folder}/f.safetensors",
    "{folder}/model.safetensors.index.json",
)
def index_of_a_missing_shard(path: Path) -> None:
    """A part of the model is not there."""
    _written(path, _HEADER)
    _index(path.parent, "gone.safetensors")
