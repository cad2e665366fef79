"""Inputs: the samples to feed a live model, read run by run. Knows no model format.

A file, or a mapping of arrays in memory, holds one array per model input: samples along the first
axis, values in the float model's own units.
"""

import math
import re
import tokenize
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug import whereabouts
from qdebug.arguments import as_array
from qdebug.errors import FieldError, QdebugError
from qdebug.names import nearest, printable, some
from qdebug.sources.npz.array import (
    StoredArray,
    Take,
    Taker,
    read_header,
    taking_flat,
    taking_reordered,
)
from qdebug.sources.npz.member import BrokenMemberError, read_directory
from qdebug.sources.storage import open_file

_EXPECTED = "an .npz or .npy file as NumPy writes it"
_MAGIC = b"\x93NUMPY"

# How TensorFlow names the tensor of input `x`: serving_default_x:0.
_DECORATION = re.compile(r"^serving_default_|:0$")

# What numpy.load raises for a file that contradicts its header.
_BROKEN_NPY = (
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class InputSpec:
    """What a model input takes, batch axis included; None in `shape` allows any length.

    `what` is what messages call it.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    what: str = "model input"


@dataclass(frozen=True, eq=False)
class _Array:
    """An array not read yet; `where` names the file and the array in it, for messages."""

    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    taking: Callable[[], AbstractContextManager[Take]]


@dataclass(frozen=True, eq=False)
class _Feed:
    """An array and the input that it feeds; a run takes `rows` of its first axis."""

    array: _Array
    spec: InputSpec
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one run's values."""
        inner = self.array.shape[1:]
        return (self.rows, *inner) if len(self.array.shape) == len(self.spec.shape) else inner


@dataclass(frozen=True, eq=False)
class Samples:
    """The inputs of `count` runs of a model; can be iterated any number of times.

    Attributes:
        path: the file, by the name the user gave it.
        count: number of runs.
        notes: what the user should know about how the file is used, one line each.
    """

    path: str
    count: int
    notes: tuple[str, ...]
    feeds: tuple[_Feed, ...]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[NDArray[Any]]]:
        """The inputs of each run: one array per model input, of that input's type.

        Raises:
            QdebugError: a value is not finite or out of range for the input's type, or the file
                ends too early.
        """
        with _read_errors(printable(self.path)), ExitStack() as stack:
            takes = [stack.enter_context(feed.array.taking()) for feed in self.feeds]
            for run in range(self.count):
                sample = [
                    _converted(take(math.prod(feed.shape)), feed, run)
                    for feed, take in zip(self.feeds, takes, strict=True)
                ]
                whereabouts.at_sample(run)
                yield sample


# Where samples come from: a file (.npz or .npy), or arrays in memory: one, or one per input.
Inputs = str | PathLike[str] | Mapping[str, ArrayLike] | ArrayLike


def file_of(inputs: Inputs | None) -> list[str]:
    """The file that holds the samples; empty where they are in memory."""
    return [str(inputs)] if isinstance(inputs, str | PathLike) else []


def array_names(inputs: Inputs) -> list[str]:
    """The names of the arrays in a .npz file or a mapping; of anything else, none.

    Raises:
        QdebugError: the file is missing, or not a .npz.
    """
    if isinstance(inputs, Mapping):
        return list(map(str, inputs))
    if not isinstance(inputs, str | PathLike):
        return []
    shown = printable(str(inputs))
    with _read_errors(shown), open_file(str(inputs)) as file:
        return [
            info.filename.removesuffix(".npy") for info in _members(file, shown, "an .npz file")
        ]


def read_samples(
    inputs: Inputs,
    specs: Sequence[InputSpec],
    limit: int | None = None,
    called: str = "inputs",
) -> Samples:
    """The samples for a model with these inputs; only the first `limit` where it is given.

    Messages call arrays in memory `called`.

    Arrays are found by their input's name (``x`` also for ``serving_default_x:0``) or, if no array
    has an input's name, by their order. Their first axis counts the samples: it is the model's
    batch axis, or precedes it in an array with one axis more than the input.

    Raises:
        QdebugError: the file is missing or neither .npz nor .npy, or its arrays do not fit the
            inputs.
    """
    path = next(iter(file_of(inputs)), called)
    shown = printable(path)
    names = [spec.name for spec in specs]
    with _read_errors(shown):
        arrays = (
            _arrays(path, names)
            if isinstance(inputs, str | PathLike)
            else _arrays_in_memory(inputs, names, called)
        )
    feeds = tuple(_feed(array, spec) for array, spec in zip(arrays, specs, strict=True))
    if not feeds:
        return Samples(path, 1, (), ())
    first = feeds[0]
    for feed in feeds:
        if feed.array.shape[0] * first.rows != first.array.shape[0] * feed.rows:
            raise QdebugError(
                f"{feed.array.where}: found {feed.array.shape[0]} samples, expected as many as in "
                f"'{printable(first.spec.name)}': {first.array.shape[0] // first.rows * feed.rows}"
                f"{_state_hint(feed, first)}"
            )
    batch = max(feed.rows for feed in feeds)
    samples = max(feed.array.shape[0] for feed in feeds)
    samples = samples if limit is None else min(samples, limit)
    if samples < batch:
        raise QdebugError(
            f"{shown}: found {samples} samples, expected "
            + (f"{batch} or more: the model's batch size" if batch > 1 else "one or more")
            + (_state_hint(*feeds) if samples else "")
        )
    notes = []
    if samples % batch:
        notes.append(
            f"{shown}: the last {samples % batch} of {samples} samples are left out: the model "
            f"takes batches of {batch}"
        )
    return Samples(path, samples // batch, tuple(notes), feeds)


@contextmanager
def _read_errors(shown: str) -> Iterator[None]:
    """Turn errors in reading into QdebugError."""
    try:
        yield
    except BrokenMemberError as error:
        raise QdebugError(f"{shown}: {error}") from None
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror or error}") from None


def _arrays(path: str, names: Sequence[str]) -> list[_Array]:
    """The arrays for inputs of these names, in the inputs' order."""
    shown = printable(path)
    with open_file(path) as file:
        start = file.read(len(_MAGIC))
        if start == _MAGIC:
            if len(names) > 1:
                raise QdebugError(_lone_array(shown, names))
            return [_npy_array(path)][: len(names)]
        infos = _members(file, shown, _EXPECTED)
    stored = [info.filename.removesuffix(".npy") for info in infos]
    return [_npz_array(path, infos[place]) for place in _places(shown, stored, names)]


def _members(file: BinaryIO, shown: str, expected: str) -> list[zipfile.ZipInfo]:
    try:
        return read_directory(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise QdebugError(f"{shown}: {error}; expected {expected}") from None


def _arrays_in_memory(
    inputs: Mapping[str, ArrayLike] | ArrayLike, names: Sequence[str], called: str
) -> list[_Array]:
    """The arrays for inputs of these names, in the inputs' order."""
    if not isinstance(inputs, Mapping):
        if len(names) > 1:
            raise QdebugError(_lone_array(called, names))
        return [_memory_array(called, inputs)][: len(names)]
    given = [(str(name), values) for name, values in inputs.items()]
    places = _places(called, [name for name, _ in given], names)
    return [
        _memory_array(f"{called}: array '{printable(given[place][0])}'", given[place][1])
        for place in places
    ]


def _memory_array(where: str, values: ArrayLike) -> _Array:
    array = as_array(where, values)
    if not array.ndim:
        raise QdebugError(f"{where}: found a single value, expected samples along the first axis")
    return _Array(where, array.dtype, array.shape, lambda: nullcontext(taking_flat(array)))


def _lone_array(shown: str, names: Sequence[str]) -> str:
    return (
        f"{shown}: found one array, expected {len(names)}: one for each model input ({some(names)})"
    )


def _places(shown: str, stored: Sequence[str], names: Sequence[str]) -> list[int]:
    """The positions, in `stored`, of the arrays for inputs of these names."""
    found: dict[str, int] = {}
    for name in names:
        exact = [place for place, array in enumerate(stored) if array == name]
        alike = [place for place, array in enumerate(stored) if _plain(array) == _plain(name)]
        places = exact or alike
        if len(places) > 1:
            raise QdebugError(
                f"{shown}: found {len(places)} arrays named like model input '{printable(name)}', "
                "expected one"
            )
        if places:
            found[name] = places[0]
    if not found and len(stored) == len(names):
        return list(range(len(names)))
    if not found:
        raise QdebugError(
            f"{shown}: found {len(stored)} array{'s' * (len(stored) != 1)} ({some(stored)}), "
            f"expected {len(names)}, named like the model's inputs ({some(names)})"
        )
    for name in names:
        if name not in found:
            others = [array for place, array in enumerate(stored) if place not in found.values()]
            raise QdebugError(
                f"{shown}: found no array '{printable(name)}', expected one for each model input; "
                f"{nearest(name, others)}"
            )
    return [found[name] for name in names]


def _plain(name: str) -> str:
    """An input's name without TensorFlow's decoration."""
    return _DECORATION.sub("", name)


def _npz_array(path: str, info: zipfile.ZipInfo) -> _Array:
    name = printable(info.filename.removesuffix(".npy"))
    try:
        with open_file(path) as file:
            stored = read_header(file, name, info)
    except FieldError as error:
        said = str(error).removeprefix("field ")
        raise QdebugError(f"{printable(path)}: array {said}") from None
    where = f"{printable(path)}: array '{name}'"
    return _Array(where, stored.dtype, stored.shape, lambda: _taking_stored(path, stored))


@contextmanager
def _taking_stored(path: str, stored: StoredArray) -> Iterator[Take]:
    """A function that takes the next n elements of an array in a .npz file, in C order."""
    with open_file(path) as file:
        if stored.fortran:
            with taking_reordered(file, stored) as take:
                yield take
        else:
            yield Taker(file, stored).take


def _npy_array(path: str) -> _Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of files that Python 2 wrote
            mapped = np.lib.format.open_memmap(path, mode="r")
    except _BROKEN_NPY as error:
        said = " ".join(str(error).split())
        raise QdebugError(f"{printable(path)}: {printable(said)}; expected {_EXPECTED}") from None
    return _Array(printable(path), mapped.dtype, mapped.shape, lambda: _taking_mapped(path, mapped))


@contextmanager
def _taking_mapped(path: str, mapped: "np.memmap[Any, Any]") -> Iterator[Take]:
    """A function that takes the next n elements of a .npy file, in C order.

    It reads where the order allows, because mapped pages count as the program's memory.
    """
    if mapped.flags.c_contiguous:
        with Path(path).open("rb") as file:
            file.seek(mapped.offset)
            yield lambda n: np.fromfile(file, mapped.dtype, n)
        return
    yield taking_flat(mapped)


def _feed(array: _Array, spec: InputSpec) -> _Feed:
    """The array as values of this input.

    Raises:
        QdebugError: type or shape does not fit.
    """
    ours, theirs = array.dtype, spec.dtype
    of_integers = ours.kind in "iu" and theirs.kind in "iu"
    if ours.kind not in "biufc" or not (of_integers or np.can_cast(ours, theirs, "same_kind")):
        raise QdebugError(
            f"{array.where}: found {ours}, expected {theirs} for {spec.what} "
            f"'{printable(spec.name)}'"
        )
    batched = len(array.shape) == len(spec.shape)
    wanted = spec.shape[1:] if batched else spec.shape
    inner = array.shape[1:]
    fits = len(array.shape) == len(wanted) + 1 and all(
        length in (None, found) for length, found in zip(wanted, inner, strict=True)
    )
    if not fits:
        hint = _state_hint(_Feed(array, spec, 1)) if spec.shape[:1] != (1,) else ""
        expected = ", ".join(["samples", *("any" if n is None else str(n) for n in spec.shape[1:])])
        raise QdebugError(
            f"{array.where}: found shape {array.shape}, expected ({expected}) for {spec.what} "
            f"'{printable(spec.name)}'{hint}"
        )
    return _Feed(array, spec, (spec.shape[0] or 1) if batched else 1)


def _state_hint(*feeds: _Feed) -> str:
    """The end of an error message: how to give an input whose first axis is not the batch.

    Empty if the first axis of all these inputs has any length, as a batch has.
    """
    for feed in feeds:
        shape = feed.spec.shape
        if shape and shape[0] is not None and len(feed.array.shape) == len(shape):
            whole = ", ".join(["samples", *("any" if n is None else str(n) for n in shape)])
            return (
                f"; if the first axis of '{printable(feed.spec.name)}' is not the batch, as in a "
                f"state, give it as ({whole})"
            )
    return ""


def _converted(values: NDArray[Any], feed: _Feed, run: int) -> NDArray[Any]:
    """One run's values, in the input's type.

    Raises:
        QdebugError: there are too few values, or one is out of range for the type.
    """
    where, expected_size = feed.array.where, math.prod(feed.shape)
    if values.size < expected_size:
        raise QdebugError(f"{where}: the file ends in sample {run * feed.rows}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted: NDArray[Any] = values.astype(feed.spec.dtype)
    exact = feed.spec.dtype.kind in "iub"
    good = converted == values if exact else np.isfinite(converted)
    if not good.all():
        place = int(np.flatnonzero(~good)[0])
        sample = run * feed.rows + place * feed.rows // values.size
        expected = f"{feed.spec.dtype} values" if exact else f"finite {feed.spec.dtype} values"
        raise QdebugError(f"{where}: sample {sample}: found {values[place]}, expected {expected}")
    return converted.reshape(feed.shape)
