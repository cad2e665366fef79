"""Pair files: the float and quantized tensors of each layer in .npz (docs/pair-file.md)."""

import glob
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, pairwise

import numpy as np

from qdebug.arithmetic.affine import Float64Array
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Block, Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.outputs import Output
from qdebug.measure.slabs import cut, slabs
from qdebug.names import printable, shown
from qdebug.run.workers import TASK_ELEMENTS, Workers
from qdebug.sources.npz.array import (
    Take,
    Taker,
    taking_reordered,
)
from qdebug.sources.npz.checksum import DISAGREES, RangeSum, agree
from qdebug.sources.npz.member import BrokenMemberError
from qdebug.sources.pair_file.fields import FIELDS, check_codes
from qdebug.sources.pair_file.pieces import Piece, read_file
from qdebug.sources.storage import absolute, expand_url, is_url, open_file, prefetch

# A piece of at most this many bytes is fetched from a URL at once.
_FETCHED = 1 << 22


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
        """Read the directories and parameters of all files that match `patterns`.

        Args:
            patterns: files or globs; or URLs, which fsspec reads.
            keys: field -> template of its arrays' names, with ``{}`` for the layer, if it is not
                ``{}/field``.
            workers: who reads the files; None for the calling thread.
        """
        templates = {field: f"{{}}/{field}" for field in FIELDS} | dict(keys or {})
        self.files: list[str] = _expand(patterns)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self._pieces: dict[str, list[Piece]] = {}
        self._outputs: dict[str, list[Float64Array]] = {}
        broken: dict[str, list[str]] = {}
        clashing: dict[str, str] = {}
        read = partial(read_file, templates=templates)
        # Reading the directory of a local file is Python work: threads would only wait for the GIL.
        if workers is not None and not (workers.remote or any(map(is_url, self.files))):
            workers = None
        # A relative path is valid only in this process: a worker may run elsewhere.
        places = [(path, absolute(path)) for path in self.files]
        for found in workers.map(read, places) if workers else map(read, places):
            if isinstance(found, str):
                self.problems.append(found)
                continue
            for output in found.outputs:
                self._outputs.setdefault(output.name, []).append(output.sums)
            for name, piece in found.pieces.items():
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
            nothing = f"{shown(self.files[0])}: no layer: found outputs of a model only"
            raise QdebugError("; ".join(self.problems) or nothing)
        self.layers: list[Layer | UnreadableLayer] = []
        for name, pieces in self._pieces.items():
            reasons = broken.get(name, [])
            if name in clashing:  # it is unknown which file is right
                self.layers.append(UnreadableLayer(name, clashing[name], tuple(reasons)))
            elif pieces:
                self.layers.append(_layer(name, pieces, reasons))
            else:
                self.layers.append(UnreadableLayer(name, reasons[0], tuple(reasons[1:])))

    def outputs(self) -> Sequence[Output]:
        """The outputs of the models that were captured; samples of all files, file by file."""
        return [Output(name, np.concatenate(sums)) for name, sums in self._outputs.items()]

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """Each file's piece of each of these layers, large arrays in several parts."""
        return [part for layer in layers for part in _parts(layer, self._pieces[layer.name])]


@dataclass(frozen=True)
class _FileOfLayer:
    """One file's piece of one layer: its checksums accept or reject all its parts together."""

    path: str
    layer: str
    parts: int

    def check(self, receipts: Sequence[Sequence[RangeSum]]) -> None:
        if not agree(chain.from_iterable(receipts)):
            raise locate(DISAGREES, file=shown(self.path), layer=shown(self.layer))


@dataclass(frozen=True, eq=False)
class _PiecePart:
    """Some slabs of one file's piece of one layer.

    Attributes:
        whole: the piece.
        layer: the layer, cut along its own axis or along that of its `view`.
        piece: where the arrays are.
        slabs: index of the first slab, and of the first slab after this part.
        start: index of the first element.
        num_elements: the number of elements in the slabs.
    """

    whole: _FileOfLayer
    layer: Layer
    piece: Piece
    slabs: tuple[int, int]
    start: int
    num_elements: int

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def waits(self) -> bool:
        return is_url(self.piece.place)

    def __str__(self) -> str:
        return f"{shown(self.whole.path)}: layer '{shown(self.layer.name)}'"

    def read(self, visitor: Visitor) -> list[RangeSum]:
        """Pass the slabs to the visitor; the receipt is the checksums of what was read."""
        sums: list[RangeSum] = []
        for block in self._blocks(sums):
            visitor.take(self.layer, block)
        return sums

    def _blocks(self, sums: list[RangeSum]) -> Iterator[Block]:
        path = shown(self.whole.path)
        try:
            for block in _blocks(self, sums):
                check_codes(block.codes, self.layer.params)
                yield block
        except (BrokenMemberError, FieldError) as error:
            raise locate(error, file=path, layer=shown(self.layer.name)) from None
        except OSError as error:
            raise LayerError(f"{path}: {printable(str(error.strerror or error))}") from None


def _expand(patterns: Sequence[str]) -> list[str]:
    """The files that match the patterns, each once, in order."""
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


def _check_same(piece: Piece, first: Piece) -> None:
    """Check that two files agree on one layer.

    Raises:
        FieldError: names the first field in which they differ.
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
        "inputs": (_listed(piece.inputs), _listed(first.inputs)),
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


def _listed(names: Sequence[str] | None) -> str | None:
    return None if names is None else str(list(names))


def _layer(name: str, pieces: Sequence[Piece], problems: Sequence[str]) -> Layer:
    first = pieces[0]
    shape = first.floats.shape
    return Layer(
        name,
        first.params,
        shape,
        first.op,
        first.kind,
        first.nodes,
        tuple(problems),
        inputs=first.inputs,
        view=_view(first),
    )


def _view(piece: Piece) -> tuple[int, int] | None:
    """How to cut blocks, to see the slices that the file names."""
    axis = piece.slice_axis
    return (
        None if axis is None or piece.params.axis is not None else (axis, piece.floats.shape[axis])
    )


def _parts(layer: Layer, pieces: Sequence[Piece]) -> list[Part]:
    """All files' pieces of a layer, cut into parts if their arrays are seekable."""
    if layer.view is not None and any(cut(layer, p.floats.shape)[1] is None for p in pieces):
        layer = replace(layer, view=None)  # not all pieces can be viewed in this way
    return [part for piece in pieces for part in _piece_parts(layer, piece)]


def _layout(layer: Layer, piece: Piece) -> tuple[tuple[int, ...], int | None]:
    """Shape and channel axis of one file's piece, with the axes in the order of the file.

    Raises:
        FieldError: its channels are not those of the layer.
    """
    shape = piece.floats.shape
    _, axis = cut(layer, shape)
    if piece.fortran:  # an array in Fortran order is one in C order with its axes reversed
        return shape[::-1], None if axis is None else len(shape) - 1 - axis
    return shape, axis


def _piece_parts(layer: Layer, piece: Piece) -> list[Part]:
    cuts = [(0, 0)]  # slabs and elements before each part and after the last
    slab = element = 0
    try:
        for slab, (_, shape) in enumerate(slabs(*_layout(layer, piece)), 1):
            element += math.prod(shape)
            if element - cuts[-1][1] >= TASK_ELEMENTS and piece.seekable:
                cuts.append((slab, element))
    except FieldError:
        pass  # reading the piece will raise the same error
    if cuts[-1] != (slab, element) or len(cuts) == 1:
        cuts.append((slab, element))
    whole = _FileOfLayer(piece.path, layer.name, len(cuts) - 1)
    return [
        _PiecePart(whole, layer, piece, (first, last), start, stop - start)
        for (first, start), (last, stop) in pairwise(cuts)
    ]


def _blocks(part: _PiecePart, sums: list[RangeSum]) -> Iterator[Block]:
    """The slabs of a part, in the order of the file.

    If the piece is cut into parts, the checksums of what was read are added to `sums`.

    Raises:
        FieldError: its channels are not those of the layer.
    """
    piece = part.piece
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
            floats, codes, *more = (take(math.prod(slab)).reshape(slab) for take in takes)
            model = more.pop(0) if piece.model_floats else None
            weights = floats if piece.weightless else more[0] if more else None
            yield Block(floats, codes, model, first_channel, weights)
        if part.whole.parts > 1:
            sums += [taker.range_sum() for taker in takers]
