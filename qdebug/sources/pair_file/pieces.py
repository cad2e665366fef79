"""Pieces: one file's share of each layer; everything except the data is read and checked."""

import math
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import CODE_DTYPES, FLOAT_DTYPES, QuantParams
from qdebug.errors import FieldError, QdebugError, locate
from qdebug.measure.outputs import SUMS, Output
from qdebug.names import printable, shown
from qdebug.sources.npz.array import StoredArray, read_header, read_small
from qdebug.sources.npz.member import BrokenMemberError, read_directory
from qdebug.sources.pair_file.fields import KINDS, TENSORS, normal_axis
from qdebug.sources.storage import open_file, prefetch

# A generous bound for the bytes of a member's header and its array's header, and the largest array
# that is fetched together with its headers.
_HEADERS = 1 << 10
_SMALL = 1 << 16

# Layers whose headers are fetched together.
_FETCHED_LAYERS = 256

# The field of a model's output, the one of its columns that may be negative, and a generous bound
# for the samples of one file.
_SUMS = "output_sums"
_PRODUCT = SUMS.index("product")
_MOST_SAMPLES = 1 << 20

# Text fields are a few names; more would only cost memory.
_MOST_TEXT = 16_000_000

# Figures are kept for each channel, 360 bytes in each of a few copies. Real tensors have fewer
# channels than this: the vocabulary of a language model is its longest axis.
_MOST_CHANNELS = 1 << 20

# What error messages expect of a file.
_EXPECTED = "an .npz file as numpy.savez writes it"


@dataclass(frozen=True)
class Piece:
    """What one file holds of a layer; `place` is the file's path for any process.

    `weights_floats` is empty if it is the same as the floats: the operator has no weights.
    """

    path: str
    place: str
    floats: StoredArray
    codes: StoredArray
    model_floats: StoredArray | None
    weights_floats: StoredArray | None
    params: QuantParams
    op: str | None
    kind: str | None
    nodes: tuple[str, ...]
    inputs: tuple[str, ...] | None
    slice_axis: int | None

    @property
    def arrays(self) -> list[StoredArray]:
        """The floats, the codes and, if present, `model_floats` and `weights_floats`."""
        more = [self.model_floats, None if self.weightless else self.weights_floats]
        return [self.floats, self.codes, *(array for array in more if array is not None)]

    @property
    def weightless(self) -> bool:
        """Whether the float operator's output is the same with the quantized weights."""
        return self.weights_floats is not None and self.weights_floats.shape == (0,)

    @property
    def fortran(self) -> bool:
        """Whether all arrays are in Fortran order."""
        return all(array.fortran for array in self.arrays)

    @property
    def seekable(self) -> bool:
        """Whether all arrays can be read from any element on, in the same order."""
        same = all(array.fortran == self.fortran for array in self.arrays)
        return same and all(array.member.stored for array in self.arrays)


@dataclass(frozen=True)
class Found:
    """What a pair file holds: per layer a piece or an error; the sums of the model's outputs."""

    pieces: dict[str, Piece | str]
    outputs: list[Output]


def read_file(names: tuple[str, str], templates: Mapping[str, str]) -> Found | str:
    """What a pair file holds, or why it is not a pair file.

    `names` are the user's name for the file, and its path for any process.
    """
    name = shown(names[0]) or "''"
    try:
        with open_file(names[1]) as file:
            if file.read(6) == b"\x93NUMPY":
                return f"{name}: found a single array (.npy), expected {_EXPECTED}"
            infos = read_directory(file)
            _check_apart(name, infos)
            members = _members(name, infos, templates)
            layers = iter(members.items())
            pieces: dict[str, Piece | str] = {}
            outputs: list[Output] = []
            while some := list(islice(layers, _FETCHED_LAYERS)):
                prefetch(file, [head for _, fields in some for head in _heads(fields)])
                for layer, fields in some:
                    sums = fields.pop(_SUMS, None)
                    if sums is not None:
                        outputs.append(_read_output(file, name, layer, sums))
                    if fields:
                        pieces[layer] = _read_layer(file, names, layer, fields)
            return Found(pieces, outputs)
    except QdebugError as error:
        return str(error)
    except OSError as error:
        return f"{name}: {printable(str(error.strerror or error))}"
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        return f"{name}: {error}; expected {_EXPECTED}"


def _heads(fields: Mapping[str, Sequence[zipfile.ZipInfo]]) -> Iterator[tuple[int, int]]:
    """Start and size of what will be read of a layer: tensors' headers, and all small arrays."""
    for field, infos in fields.items():
        for info in infos:
            whole = field not in TENSORS and info.compress_size <= _SMALL
            yield info.header_offset, _HEADERS + (info.compress_size if whole else 0)


def _read_layer(
    file: BinaryIO,
    names: tuple[str, str],
    layer: str,
    fields: Mapping[str, Sequence[zipfile.ZipInfo]],
) -> Piece | str:
    """One file's piece of a layer, or an error message."""
    try:
        return _read_piece(file, names, fields)
    except (FieldError, BrokenMemberError, MemoryError) as error:
        return str(locate(error, file=shown(names[0]), layer=shown(layer)))


def _read_output(file: BinaryIO, path: str, name: str, infos: Sequence[zipfile.ZipInfo]) -> Output:
    """The sums of one output of the model, as `capture` wrote them.

    Raises:
        LayerError: they are something else.
    """
    expected = f"float64 of shape (samples, {len(SUMS)}), as qdebug capture writes it"
    try:
        array = read_header(file, _SUMS, infos[0])
        samples, columns = array.shape if len(array.shape) == 2 else (0, 0)
        found = f"{array.dtype} of shape {array.shape}"
        if array.dtype != np.float64 or columns != len(SUMS) or not 0 < samples <= _MOST_SAMPLES:
            raise FieldError(_SUMS, found=found, expected=expected)
        if len(infos) > 1 or array.fortran:
            found = f"{len(infos)} arrays of this name" if len(infos) > 1 else "Fortran order"
            raise FieldError(_SUMS, found=found, expected=expected)
        values = read_small(file, array)
        if not np.isfinite(values).all() or (np.delete(values, _PRODUCT, axis=1) < 0).any():
            raise FieldError(_SUMS, found="values that are no sums", expected=expected)
    except (FieldError, BrokenMemberError, MemoryError) as error:
        raise locate(error, file=path, layer=shown(name)) from None
    return Output(name, values)


def _check_apart(path: str, infos: Sequence[zipfile.ZipInfo]) -> None:
    """Check that no two members share bytes: a small file could then hold any number of layers.

    Raises:
        QdebugError: two do.
    """
    for one, other in pairwise(sorted(infos, key=lambda info: info.header_offset)):
        if one.header_offset + one.compress_size >= other.header_offset:
            raise QdebugError(
                f"{path}: members '{shown(one.filename)}' and '{shown(other.filename)}' overlap; "
                f"expected {_EXPECTED}"
            )


def _members(
    path: str, infos: Sequence[zipfile.ZipInfo], templates: Mapping[str, str]
) -> dict[str, dict[str, list[zipfile.ZipInfo]]]:
    """Layer -> field -> the members of that name (more than one is an error of the layer).

    Raises:
        QdebugError: there is no layer.
    """
    # The longest template first: if `{}_scale` and `{}` both match, `{}_scale` wins.
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
) -> Piece:
    """One file's piece of a layer; everything except the data is checked.

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
    floats, codes = headers["float"], headers["quantized"]
    more = {field: headers.get(field) for field in ("model_float", "weights_float")}
    for field, array in {"float": floats, **more}.items():
        if array is not None and array.dtype.name not in FLOAT_DTYPES:
            raise FieldError(field, found=str(array.dtype), expected=", ".join(FLOAT_DTYPES))
    if codes.dtype.name not in CODE_DTYPES:
        raise FieldError("quantized", found=str(codes.dtype), expected=", ".join(CODE_DTYPES))
    for field, array in {"quantized": codes, **more}.items():
        same = array is not None and array.shape == (0,) and field == "weights_float"
        if array is not None and array.shape != floats.shape and not same:
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
        axis=normal_axis(_value(file, headers, "axis", "iu", "a whole number"), len(floats.shape)),
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
    inputs = _texts(file, headers, "inputs") if "inputs" in headers else None
    sliced = _value(file, headers, "slice_axis", "iu", "a whole number")
    if sliced is not None and not 0 <= sliced < len(floats.shape):
        sliced = None  # of a sample; samples of several shapes are stored flat
    more_floats = more["model_float"], more["weights_float"]
    return Piece(*names, floats, codes, *more_floats, params, op, kind, nodes, inputs, sliced)


def _value(
    file: BinaryIO, headers: Mapping[str, StoredArray], field: str, kinds: str, expected: str
) -> Any:
    """The single value of an optional field, None if it is missing."""
    if field not in headers:
        return None
    array = headers[field]
    if array.dtype.kind not in kinds or math.prod(array.shape) != 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    if array.dtype.kind == "U":
        (text,) = _unicode(file, array, field, expected)
        return text
    return read_small(file, array).item()


def _texts(file: BinaryIO, headers: Mapping[str, StoredArray], field: str) -> tuple[str, ...]:
    """The texts of an optional field, none if it is missing."""
    if field not in headers:
        return ()
    array, expected = headers[field], "text: one, or a list"
    if array.dtype.kind != "U" or len(array.shape) > 1:
        raise FieldError(field, found=f"{array.dtype} of shape {array.shape}", expected=expected)
    return tuple(_unicode(file, array, field, expected))


def _unicode(file: BinaryIO, array: StoredArray, field: str, expected: str) -> list[str]:
    """The texts of an array; NumPy itself returns code points that are none, and any amount.

    Raises:
        FieldError: there is too much text, or it is none.
    """
    size = math.prod(array.shape) * array.dtype.itemsize
    if size > _MOST_TEXT:
        found = f"{size / 1e6:.3g} MB of text"
        raise FieldError(field, found=found, expected=f"{_MOST_TEXT / 1e6:.3g} MB at most")
    values = np.ascontiguousarray(np.atleast_1d(read_small(file, array)))
    points = values.astype(values.dtype.newbyteorder("=")) if values.itemsize else values
    if values.itemsize and (points.view(np.uint32) > sys.maxunicode).any():
        raise FieldError(field, found="no text", expected=expected)
    return [str(text) for text in values.tolist()]


def _vector(
    file: BinaryIO,
    array: StoredArray,
    field: str,
    kinds: str,
    expected: str,
    tensor_shape: tuple[int, ...],
) -> NDArray[Any]:
    """A scale or zero point: one value, or as many as the length of some axis of the tensor."""
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise FieldError(field, found=str(array.dtype), expected=expected)
    if len(array.shape) > 1 or math.prod(array.shape) not in (1, *tensor_shape):
        raise FieldError(
            field,
            found=f"shape {array.shape}",
            expected=f"(), (1,) or (channels,) for a tensor of shape {tensor_shape}",
        )
    if (channels := math.prod(array.shape)) > _MOST_CHANNELS:
        raise FieldError(
            field,
            found=f"{channels} channels",
            expected=f"{_MOST_CHANNELS} at most: figures are kept for each channel",
        )
    return read_small(file, array)
