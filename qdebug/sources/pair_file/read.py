"""Pair files: the float and quantized tensors of each layer in .npz (docs/pair-file.md)."""

import glob
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import CODE_DTYPES, FLOAT_DTYPES, QuantParams, code_range
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Block, Layer, Part, Piece, UnreadableLayer
from qdebug.measure.slabs import slabs
from qdebug.names import nearest, printable, shown
from qdebug.run.workers import TASK_ELEMENTS, Workers
from qdebug.sources.npz.array import (
    StoredArray,
    Take,
    Taker,
    read_header,
    read_small,
    taking_reordered,
)
from qdebug.sources.npz.checksum import RangeSum
from qdebug.sources.npz.member import BrokenMemberError
from qdebug.sources.storage import absolute, expand_url, is_url, open_file, prefetch

FIELDS = (
    "float",
    "quantized",
    "scale",
    "zero_point",
    "axis",
    "bits",
    "narrow_range",
    "rounding",
    "model_float",
    "op",
    "kind",
    "nodes",
)
TENSORS = ("float", "quantized", "model_float")
KINDS = ("activation", "weight", "bias")

# Bytes that a member's own header and its array's take, generously; and of an array that is read
# with them.
_HEADERS = 1 << 10
_SMALL = 1 << 16

# Layers whose headers are fetched together, and bytes of a layer that are: what a URL's file has in
# memory at once.
_FETCHED_LAYERS = 256
_FETCHED = 1 << 22

# What a file must be when it is not.
_EXPECTED = "an .npz file as numpy.savez writes it"


@dataclass(frozen=True)
class _Piece:
    """What one file holds of a layer; `place` is where any process finds the file."""

    path: str
    place: str
    floats: StoredArray
    codes: StoredArray
    model_floats: StoredArray | None
    params: QuantParams
    op: str | None
    kind: str | None
    nodes: tuple[str, ...]

    @property
    def arrays(self) -> list[StoredArray]:
        """Floats, codes and, where there are any, the float model's own."""
        arrays = [self.floats, self.codes, self.model_floats]
        return [array for array in arrays if array is not None]

    @property
    def fortran(self) -> bool:
        """Whether all arrays are in Fortran order."""
        return all(array.fortran for array in self.arrays)

    @property
    def seekable(self) -> bool:
        """Whether all arrays can be read from anywhere on, in the same order."""
        same = all(array.fortran == self.fortran for array in self.arrays)
        return same and all(array.member.stored for array in self.arrays)


class PairFiles:
    """The source of one or more pair files; same-named layers are one layer.

    Raises:
        QdebugError: no file can be read, or none holds a layer.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        keys: Mapping[str, str] | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Read the directories and parameters of all files that `patterns` name.

        Args:
            patterns: files or globs; or URLs, which fsspec reads.
            keys: field -> template of its arrays' names, ``{}`` for the layer, where it is not
                ``{}/field``.
            workers: who reads them; the calling thread where None.
        """
        templates = {field: f"{{}}/{field}" for field in FIELDS} | dict(keys or {})
        self.files: list[str] = _expand(patterns)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self._pieces: dict[str, list[_Piece]] = {}
        broken: dict[str, list[str]] = {}
        clashing: dict[str, str] = {}
        read = partial(_read_file, templates=templates)
        # Directories of local files are work for the interpreter: threads would only share it.
        if workers is not None and not (workers.remote or any(map(is_url, self.files))):
            workers = None
        # Relative paths are this process's: a worker may run elsewhere.
        places = [(path, absolute(path)) for path in self.files]
        for found in workers.map(read, places) if workers else map(read, places):
            if isinstance(found, str):
                self.problems.append(found)
                continue
            for name, piece in found.items():
                pieces = self._pieces.setdefault(name, [])
                if isinstance(piece, str):
                    broken.setdefault(name, []).append(piece)
                    continue
                try:
                    _check_same(piece, pieces[0] if pieces else piece)
                except FieldError as error:
                    located = locate(error, file=shown(piece.path), layer=shown(name))
                    clashing.setdefault(name, str(located))
                pieces.append(piece)
        if not self._pieces:
            raise QdebugError("; ".join(self.problems))
        self.layers: list[Layer | UnreadableLayer] = []
        for name, pieces in self._pieces.items():
            reasons = broken.get(name, [])
            if name in clashing:  # nobody knows which of them is meant
                self.layers.append(UnreadableLayer(name, clashing[name], tuple(reasons)))
            elif pieces:
                self.layers.append(_layer(name, pieces, reasons))
            else:
                self.layers.append(UnreadableLayer(name, reasons[0], tuple(reasons[1:])))

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """What each file holds of each of these layers, large arrays in several parts."""
        return [
            part
            for layer in layers
            for piece in self._pieces[layer.name]
            for part in _parts(layer, piece)
        ]


@dataclass(frozen=True, eq=False)
class _PiecePart:
    """Some slabs of one file's piece of one layer; of as many parts as it is cut into.

    Attributes:
        layer: the layer, cut along its own axis.
        file_piece: where the arrays are.
        slabs: number of the first slab, and of the first that is not of this part.
        start: number of the first element.
        num_elements: how many elements the slabs have.
        of: how many parts there are.
    """

    layer: Layer
    file_piece: _Piece
    slabs: tuple[int, int]
    start: int
    num_elements: int
    of: int

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def piece(self) -> Piece:
        return self.file_piece.path, self.layer.name

    def __str__(self) -> str:
        return f"{shown(self.file_piece.path)}: layer '{shown(self.layer.name)}'"

    def blocks(self, sums: list[RangeSum]) -> Iterator[tuple[Layer, Block]]:
        path = shown(self.file_piece.path)
        try:
            for block in _blocks(self, sums):
                _check_codes(block, self.layer.params)
                yield self.layer, block
        except (BrokenMemberError, FieldError) as error:
            raise locate(error, file=path, layer=shown(self.layer.name)) from None
        except OSError as error:
            raise LayerError(f"{path}: {printable(str(error.strerror or error))}") from None


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
        if is_url(pattern):
            found = expand_url(pattern)
        elif not os.path.exists(pattern) and glob.has_magic(pattern):  # noqa: PTH110 - any text
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute, too
        if not found:
            raise QdebugError(f"{shown(pattern)}: no file matches")
        for path in found:
            paths.setdefault(path if is_url(path) else os.path.realpath(path), path)
    return list(paths.values())


def _read_file(
    names: tuple[str, str], templates: Mapping[str, str]
) -> dict[str, _Piece | str] | str:
    """What a pair file holds: by layer a piece, or why there is none; or why it is no pair file.

    `names` are what the user calls the file, and by what any process finds it.
    """
    name = shown(names[0]) or "''"
    try:
        with open_file(names[1]) as file:
            if file.read(6) == b"\x93NUMPY":
                return f"{name}: found a single array (.npy), expected {_EXPECTED}"
            with zipfile.ZipFile(file) as archive:
                members = _members(name, archive.infolist(), templates)
            layers = iter(members.items())
            pieces: dict[str, _Piece | str] = {}
            while some := list(islice(layers, _FETCHED_LAYERS)):
                prefetch(file, [head for _, fields in some for head in _heads(fields)])
                for layer, fields in some:
                    pieces[layer] = _read_layer(file, names, layer, fields)
            return pieces
    except QdebugError as error:
        return str(error)
    except OSError as error:
        return f"{name}: {printable(str(error.strerror or error))}"
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return f"{name}: {error}; expected {_EXPECTED}"


def _heads(fields: Mapping[str, Sequence[zipfile.ZipInfo]]) -> Iterator[tuple[int, int]]:
    """Start and size of what will be read of a layer: tensors' headers, and all that is small."""
    for field, infos in fields.items():
        for info in infos:
            whole = field not in TENSORS and info.compress_size <= _SMALL
            yield info.header_offset, _HEADERS + (info.compress_size if whole else 0)


def _read_layer(
    file: BinaryIO,
    names: tuple[str, str],
    layer: str,
    fields: Mapping[str, Sequence[zipfile.ZipInfo]],
) -> _Piece | str:
    """One file's piece of a layer, or why it is none."""
    try:
        return _read_piece(file, names, fields)
    except (FieldError, BrokenMemberError, MemoryError) as error:
        return str(locate(error, file=shown(names[0]), layer=shown(layer)))


def _members(
    path: str, infos: Sequence[zipfile.ZipInfo], templates: Mapping[str, str]
) -> dict[str, dict[str, list[zipfile.ZipInfo]]]:
    """Layer -> field -> the members of that name (more than one is an error of the layer).

    Raises:
        QdebugError: no layer.
    """
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
            f"{path}: no layer: found {found}{more}, expected arrays named "
            f"'{templates['float'].replace('{}', 'LAYER')}' and so on (see --keys)"
        )
    return layers


def _read_piece(
    file: BinaryIO, names: tuple[str, str], fields: Mapping[str, Sequence[zipfile.ZipInfo]]
) -> _Piece:
    """One file's part of a layer, all but the data checked.

    Raises:
        FieldError, BrokenMemberError: the arrays do not make a pair.
    """
    for field, infos in fields.items():
        if len(infos) > 1:
            raise FieldError(field, found=f"{len(infos)} arrays of this name", expected="one")
    headers = {field: read_header(file, field, infos[0]) for field, infos in fields.items()}
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
    rounding = _value(file, headers, "rounding", "U", "text")
    params = QuantParams.of(
        _vector(file, headers["scale"], "scale", "f", "floats", floats.shape),
        _vector(file, headers["zero_point"], "zero_point", "iu", "integers", floats.shape)
        if "zero_point" in headers
        else 0,
        codes.dtype.name,
        axis=_axis(_value(file, headers, "axis", "iu", "a whole number"), len(floats.shape)),
        bits=_value(file, headers, "bits", "iu", "a whole number"),
        narrow_range=bool(_value(file, headers, "narrow_range", "biu", "True or False")),
        rounding="half_away" if rounding is None else rounding,
    )
    if params.axis is not None and floats.shape[params.axis] != params.channels:
        raise FieldError(
            "scale" if math.prod(headers["scale"].shape) > 1 else "zero_point",
            found=f"{params.channels} values",
            expected=f"1 or {floats.shape[params.axis]}, the length of axis {params.axis}",
        )
    kind = _value(file, headers, "kind", "U", "text")
    if kind is not None and kind not in KINDS:
        raise FieldError("kind", found=f"'{shown(kind)}'", expected=" or ".join(KINDS))
    op = _value(file, headers, "op", "U", "text")
    nodes = _texts(file, headers, "nodes")
    return _Piece(*names, floats, codes, model_floats, params, op, kind, nodes)


def _value(
    file: BinaryIO, headers: Mapping[str, StoredArray], field: str, kinds: str, expected: str
) -> Any:
    """The single value of an optional field, None where it is not there."""
    if field not in headers:
        return None
    array = headers[field]
    if array.dtype.kind not in kinds or math.prod(array.shape) != 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    try:
        return read_small(file, array).item()
    except (ValueError, SystemError):  # text that is no Unicode
        raise FieldError(field, found="no text", expected=expected) from None


def _texts(file: BinaryIO, headers: Mapping[str, StoredArray], field: str) -> tuple[str, ...]:
    """The texts of an optional field, none where it is not there."""
    if field not in headers:
        return ()
    array, expected = headers[field], "text: one, or a list"
    if array.dtype.kind != "U" or len(array.shape) > 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    try:
        return tuple(np.atleast_1d(read_small(file, array)).tolist())
    except (ValueError, SystemError):  # text that is no Unicode
        raise FieldError(field, found="no text", expected=expected) from None


def _vector(
    file: BinaryIO,
    array: StoredArray,
    field: str,
    kinds: str,
    expected: str,
    tensor_shape: tuple[int, ...],
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
    return read_small(file, array)


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
        "rounding": (ours.rounding, theirs.rounding),
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


def _layer(name: str, pieces: Sequence[_Piece], problems: Sequence[str]) -> Layer:
    first = pieces[0]
    shape = first.floats.shape
    return Layer(name, first.params, shape, first.op, first.kind, first.nodes, tuple(problems))


def _layout(layer: Layer, piece: _Piece) -> tuple[tuple[int, ...], int | None]:
    """Shape and channel axis of one file's piece, with the axes as they stand in the file.

    Raises:
        FieldError: it has not the channels that the layer has.
    """
    shape, axis = piece.floats.shape, layer.params.axis
    if axis is not None and shape[axis : axis + 1] != (layer.params.channels,):
        expected = f"{layer.params.channels} channels along axis {axis}"
        raise FieldError("float", found=f"shape {shape}", expected=expected)
    if piece.fortran:  # an array in Fortran order is one in C order with its axes reversed
        return shape[::-1], None if axis is None else len(shape) - 1 - axis
    return shape, axis


def _parts(layer: Layer, piece: _Piece) -> list[Part]:
    """One file's piece, cut where its arrays can be read from anywhere."""
    try:
        layout = _layout(layer, piece)
    except FieldError:  # reading it will say so
        return [_PiecePart(layer, piece, (0, 0), 0, 0, 1)]
    cuts = [(0, 0)]  # slabs and elements before each part and after the last
    slab = element = 0
    for slab, (_, shape) in enumerate(slabs(*layout), 1):
        element += math.prod(shape)
        if element - cuts[-1][1] >= TASK_ELEMENTS and piece.seekable:
            cuts.append((slab, element))
    if cuts[-1] != (slab, element) or len(cuts) == 1:
        cuts.append((slab, element))
    return [
        _PiecePart(layer, piece, (first, last), start, stop - start, len(cuts) - 1)
        for (first, start), (last, stop) in pairwise(cuts)
    ]


def _blocks(part: _PiecePart, sums: list[RangeSum]) -> Iterator[Block]:
    """The slabs of a part, in the order in which they stand in the file.

    Raises:
        FieldError: it has not the channels that the layer has.
    """
    piece = part.file_piece
    chosen = islice(slabs(*_layout(part.layer, piece)), *part.slabs)
    if not part.num_elements:
        return
    with ExitStack() as stack:
        file = stack.enter_context(open_file(piece.place))
        ranges = [(array.member.start, array.member.packed_size) for array in piece.arrays]
        if sum(size for _, size in ranges) <= _FETCHED:
            prefetch(file, ranges)
        takers: list[Taker] = []
        takes: list[Take] = []
        for array in piece.arrays:
            if array.fortran == piece.fortran:
                takers.append(Taker(file, array, part.start))
                takes.append(takers[-1].take)
            else:
                takes.append(stack.enter_context(taking_reordered(file, array)))
        for first_channel, slab in chosen:
            floats, codes, *model = (take(math.prod(slab)).reshape(slab) for take in takes)
            yield Block(floats, codes, model[0] if model else None, first_channel)
        if part.of > 1:
            sums += [taker.range_sum() for taker in takers]
