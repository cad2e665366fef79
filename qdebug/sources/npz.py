"""Pair files: the float and quantized tensors of each layer in .npz (docs/pair-file.md)."""

import glob
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.affine import CODE_DTYPES, FLOAT_DTYPES, QuantParams, code_range
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.layer import Block, Layer, Part, UnreadableLayer
from qdebug.names import nearest, shown
from qdebug.sources.npy_array import (
    StoredArray,
    read_header,
    read_small,
    taking,
    taking_reordered,
)
from qdebug.sources.slabs import slabs
from qdebug.sources.zip_member import BrokenMemberError

FIELDS = (
    "float",
    "quantized",
    "scale",
    "zero_point",
    "axis",
    "bits",
    "narrow_range",
    "model_float",
    "op",
    "kind",
    "nodes",
)
KINDS = ("activation", "weight", "bias")

# What a file must be when it is not.
_EXPECTED = "an .npz file as numpy.savez writes it"


@dataclass(frozen=True)
class _Piece:
    """What one file holds of a layer."""

    path: str
    floats: StoredArray
    codes: StoredArray
    model_floats: StoredArray | None
    params: QuantParams
    op: str | None
    kind: str | None
    nodes: tuple[str, ...]


class PairFiles:
    """The source of one or more pair files; same-named layers are one layer.

    Raises:
        QdebugError: no file can be read, or none holds a layer.
    """

    def __init__(self, patterns: Sequence[str], keys: Mapping[str, str] | None = None) -> None:
        """Read the directories and parameters of all files that `patterns` name.

        Args:
            patterns: files or globs.
            keys: field -> template of its arrays' names, ``{}`` for the layer, where it is not
                ``{}/field``.
        """
        templates = {field: f"{{}}/{field}" for field in FIELDS} | dict(keys or {})
        self.files: list[str] = _expand(patterns)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self._pieces: dict[str, list[_Piece]] = {}
        broken: dict[str, str] = {}
        for path in self.files:
            try:
                members = _members(path, templates)
            except QdebugError as error:
                self.problems.append(str(error))
                continue
            for name, fields in members.items():
                pieces = self._pieces.setdefault(name, [])
                try:
                    piece = _read_piece(path, fields)
                    if pieces:
                        _check_same(piece, pieces[0])
                    pieces.append(piece)
                except (FieldError, BrokenMemberError, MemoryError) as error:
                    located = locate(error, file=shown(path), layer=shown(name))
                    broken.setdefault(name, str(located))
        if not self._pieces:
            raise QdebugError("; ".join(self.problems))
        self.layers: list[Layer | UnreadableLayer] = [
            UnreadableLayer(name, broken[name]) if name in broken else _layer(name, pieces)
            for name, pieces in self._pieces.items()
        ]

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """What each file holds of each of these layers."""
        return [_PiecePart(layer, piece) for layer in layers for piece in self._pieces[layer.name]]


@dataclass(frozen=True, eq=False)
class _PiecePart:
    """One file's piece of one layer."""

    layer: Layer
    piece: _Piece

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def num_elements(self) -> int:
        return math.prod(self.piece.floats.shape)

    def blocks(self) -> Iterator[tuple[Layer, Block]]:
        path = shown(self.piece.path)
        try:
            for block in _blocks(self.piece, self.layer.params):
                _check_codes(block, self.layer.params)
                yield self.layer, block
        except (BrokenMemberError, FieldError) as error:
            raise locate(error, file=path, layer=shown(self.layer.name)) from None
        except OSError as error:
            raise LayerError(f"{path}: {error.strerror or error}") from None


def parse_keys(options: Sequence[str]) -> dict[str, str]:
    """``FIELD=TEMPLATE`` options as a mapping.

    >>> parse_keys(["float={}_fp32", "scale={}_scale"])
    {'float': '{}_fp32', 'scale': '{}_scale'}

    Raises:
        QdebugError: no such field, or not one ``{}`` in the template.
    """
    keys: dict[str, str] = {}
    for option in options:
        field, equals, template = option.partition("=")
        if not equals or template.count("{}") != 1:
            raise QdebugError(
                f"--keys: found '{shown(option)}', expected FIELD=TEMPLATE with one {{}} for "
                "the layer's name, as in float={}_fp32"
            )
        if field not in FIELDS:
            raise QdebugError(f"--keys: no field '{shown(field)}'; {nearest(field, FIELDS)}")
        if template in keys.values():
            raise QdebugError(f"--keys: found '{shown(template)}' for two fields, expected one")
        keys[field] = template
    return keys


def _expand(patterns: Sequence[str]) -> list[str]:
    """The files that the patterns name, each once, in order."""
    paths: dict[str, str] = {}
    for pattern in patterns:
        found = [pattern]
        if not os.path.exists(pattern) and glob.has_magic(pattern):  # noqa: PTH110 - any text
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute, too
            if not found:
                raise QdebugError(f"{shown(pattern)}: no file matches")
        for path in found:
            paths.setdefault(os.path.realpath(path), path)
    return list(paths.values())


def _directory(path: str) -> list[zipfile.ZipInfo]:
    """The members of a pair file.

    Raises:
        QdebugError: it is no .npz file.
    """
    name = shown(path) or "''"
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise QdebugError(f"{name}: found no regular file, expected {_EXPECTED}")
            if file.read(6) == b"\x93NUMPY":
                raise QdebugError(f"{name}: found a single array (.npy), expected {_EXPECTED}")
            with zipfile.ZipFile(file) as archive:
                return archive.infolist()
    except OSError as error:
        raise QdebugError(f"{name}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise QdebugError(f"{name}: {error}; expected {_EXPECTED}") from None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file so that a pipe without a writer is no reason to wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _members(
    path: str, templates: Mapping[str, str]
) -> dict[str, dict[str, list[zipfile.ZipInfo]]]:
    """Layer -> field -> the members of that name (more than one is an error of the layer)."""
    infos = _directory(path)
    # The longest template first: of `{}_scale` and `{}`, the first is meant where both match.
    split = [(field, *template.split("{}")) for field, template in templates.items()]
    split.sort(key=lambda entry: -len(entry[1] + entry[2]))
    layers: dict[str, dict[str, list[zipfile.ZipInfo]]] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        for field, prefix, suffix in split:
            fits = key.startswith(prefix) and key.endswith(suffix)
            if fits and len(key) >= len(prefix) + len(suffix):
                name = key[len(prefix) : len(key) - len(suffix)]
                layers.setdefault(name, {}).setdefault(field, []).append(info)
                break
    if not layers:
        keys = [info.filename.removesuffix(".npy") for info in infos]
        found = f"'{shown(keys[0])}'" if keys else "nothing"
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise QdebugError(
            f"{shown(path)}: no layer: found {found}{more}, expected arrays named "
            f"'{templates['float'].replace('{}', 'LAYER')}' and so on (see --keys)"
        )
    return layers


def _read_piece(path: str, fields: Mapping[str, Sequence[zipfile.ZipInfo]]) -> _Piece:
    """One file's part of a layer, all but the data checked.

    Raises:
        FieldError, BrokenMemberError: the arrays do not make a pair.
    """
    for field, infos in fields.items():
        if len(infos) > 1:
            raise FieldError(field, found=f"{len(infos)} arrays of this name", expected="one")
    headers = {field: read_header(path, field, infos[0]) for field, infos in fields.items()}
    for field in ("float", "quantized", "scale"):
        if field not in headers:
            raise FieldError(field, found="nothing", expected="an array")
    floats, codes, model_floats = (
        headers["float"],
        headers["quantized"],
        headers.get("model_float"),
    )
    for field, array in (("float", floats), ("model_float", model_floats)):
        if array is not None and array.dtype.name not in FLOAT_DTYPES:
            raise FieldError(field, found=str(array.dtype), expected=", ".join(FLOAT_DTYPES))
    if codes.dtype.name not in CODE_DTYPES:
        raise FieldError("quantized", found=str(codes.dtype), expected=", ".join(CODE_DTYPES))
    for field, array in (("quantized", codes), ("model_float", model_floats)):
        if array is not None and array.shape != floats.shape:
            raise FieldError(
                field, found=f"shape {array.shape}", expected=f"{floats.shape}, as 'float' has"
            )
    params = QuantParams.of(
        _vector(headers["scale"], "scale", "f", "floats", floats.shape),
        _vector(headers["zero_point"], "zero_point", "iu", "integers", floats.shape)
        if "zero_point" in headers
        else 0,
        codes.dtype.name,
        axis=_axis(_value(headers, "axis", "iu", "a whole number"), len(floats.shape)),
        bits=_value(headers, "bits", "iu", "a whole number"),
        narrow_range=bool(_value(headers, "narrow_range", "biu", "True or False")),
    )
    if params.axis is not None and floats.shape[params.axis] != params.channels:
        raise FieldError(
            "scale" if math.prod(headers["scale"].shape) > 1 else "zero_point",
            found=f"{params.channels} values",
            expected=f"1 or {floats.shape[params.axis]}, the length of axis {params.axis}",
        )
    kind = _value(headers, "kind", "U", "text")
    if kind is not None and kind not in KINDS:
        raise FieldError("kind", found=f"'{shown(kind)}'", expected=" or ".join(KINDS))
    op = _value(headers, "op", "U", "text")
    nodes = _texts(headers, "nodes")
    return _Piece(path, floats, codes, model_floats, params, op, kind, nodes)


def _value(headers: Mapping[str, StoredArray], field: str, kinds: str, expected: str) -> Any:
    """The single value of an optional field, None where it is not there."""
    if field not in headers:
        return None
    array = headers[field]
    if array.dtype.kind not in kinds or math.prod(array.shape) != 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    try:
        return read_small(array).item()
    except (ValueError, SystemError):  # text that is no Unicode
        raise FieldError(field, found="no text", expected=expected) from None


def _texts(headers: Mapping[str, StoredArray], field: str) -> tuple[str, ...]:
    """The texts of an optional field, none where it is not there."""
    if field not in headers:
        return ()
    array, expected = headers[field], "text: one, or a list"
    if array.dtype.kind != "U" or len(array.shape) > 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    try:
        return tuple(np.atleast_1d(read_small(array)).tolist())
    except (ValueError, SystemError):  # text that is no Unicode
        raise FieldError(field, found="no text", expected=expected) from None


def _vector(
    array: StoredArray, field: str, kinds: str, expected: str, tensor_shape: tuple[int, ...]
) -> NDArray[Any]:
    """A scale or zero point: one, or as many as some axis of the tensor is long."""
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise FieldError(field, found=str(array.dtype), expected=expected)
    if len(array.shape) > 1 or math.prod(array.shape) not in (1, *tensor_shape):
        raise FieldError(
            field,
            found=f"shape {array.shape}",
            expected=f"(), (1,) or (channels,) for a tensor of shape {tensor_shape}",
        )
    return read_small(array)


def _axis(axis: int | None, ndim: int) -> int | None:
    """`axis`, counted from 0."""
    if axis is None:
        return None
    if not -ndim <= axis < ndim:
        raise FieldError("axis", found=str(axis), expected=f"an axis of a tensor of {ndim} axes")
    return axis % ndim


def _check_same(piece: _Piece, first: _Piece) -> None:
    """That two files say the same of one layer.

    Raises:
        FieldError: the first field in which they differ.
    """
    ours, theirs = piece.params, first.params
    said = {
        "quantized": (ours.dtype, theirs.dtype),
        "axis": (ours.axis, theirs.axis),
        "bits": (ours.bits, theirs.bits),
        "narrow_range": (ours.narrow_range, theirs.narrow_range),
        "op": (piece.op, first.op),
        "kind": (piece.kind, first.kind),
        "nodes": (" ".join(piece.nodes) or None, " ".join(first.nodes) or None),
    }
    for field, our, their in (
        ("scale", ours.scale, theirs.scale),
        ("zero_point", ours.zero_point, theirs.zero_point),
    ):
        if our.size != their.size:
            said[field] = (f"{our.size} values", f"{their.size} values")
        elif (our != their).any():
            channel = int(np.flatnonzero(our != their)[0])
            where = f" for channel {channel}" if our.size > 1 else ""
            said[field] = (f"{our[channel]}{where}", f"{their[channel]}{where}")
    for field, (our_word, their_word) in said.items():
        if our_word != their_word:
            our_word, their_word = (
                "nothing" if word is None else shown(str(word)) for word in (our_word, their_word)
            )
            raise FieldError(
                field,
                found=our_word,
                expected=f"{their_word}, as in {shown(first.path)}",
            )


def _check_codes(block: Block, params: QuantParams) -> None:
    """That no code is outside what type, bits and narrow range allow.

    Raises:
        FieldError: one is.
    """
    if (params.qmin, params.qmax) == code_range(params.dtype):
        return
    lowest, highest = block.codes.min(), block.codes.max()
    if lowest < params.qmin or highest > params.qmax:
        raise FieldError(
            "quantized",
            found=f"codes from {lowest} to {highest}",
            expected=f"{params.qmin} to {params.qmax}",
        )


def _layer(name: str, pieces: Sequence[_Piece]) -> Layer:
    first = pieces[0]
    return Layer(name, first.params, first.floats.shape, first.op, first.kind, first.nodes)


def _blocks(piece: _Piece, params: QuantParams) -> Iterator[Block]:
    """Slabs of one file's part of a layer, in the order in which they stand in the file.

    Raises:
        FieldError: it has not the channels that `params` says.
    """
    arrays = [piece.floats, piece.codes]
    if piece.model_floats is not None:
        arrays.append(piece.model_floats)
    shape, axis = piece.floats.shape, params.axis
    if axis is not None and shape[axis : axis + 1] != (params.channels,):
        expected = f"{params.channels} channels along axis {axis}"
        raise FieldError("float", found=f"shape {shape}", expected=expected)
    # An array in Fortran order is one in C order with its axes reversed.
    fortran = all(array.fortran for array in arrays)
    if fortran:
        shape = shape[::-1]
        axis = None if axis is None else len(shape) - 1 - axis
    if not math.prod(shape):
        return
    with ExitStack() as stack:
        takers = [
            stack.enter_context(
                taking(array) if array.fortran == fortran else taking_reordered(array)
            )
            for array in arrays
        ]
        for first_channel, slab in slabs(shape, axis):
            floats, codes, *model = (take(math.prod(slab)).reshape(slab) for take in takers)
            yield Block(floats, codes, model[0] if model else None, first_channel)
