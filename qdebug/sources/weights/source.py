"""A float and a quantized weight file as a source; each pair of tensors of one name is a layer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from qdebug.arithmetic.grids import Grid
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.outputs import Output
from qdebug.measure.slabs import BLOCK_ELEMENTS, hand_over_decoded
from qdebug.names import printable, shown, some
from qdebug.run.workers import TASK_ELEMENTS
from qdebug.sources.tensors import Files, Tensor, Weights


class WeightFiles:
    """The source of two weight files: the float model's, and the quantized one's.

    Raises:
        QdebugError: a file cannot be read, or they have no tensor in common that one of them holds
            as floats and the other one quantized.
    """

    def __init__(self, floats: Weights, quantized: Weights) -> None:
        """Pair the tensors of both by their names."""
        self.files = [*floats.files, *quantized.files]
        self.problems = [*floats.problems, *quantized.problems]
        self.notes = [*floats.notes, *quantized.notes]
        self.skipped = [*floats.skipped, *quantized.skipped]
        self.layers: list[Layer | UnreadableLayer] = []
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}
        unreadable = {name for name, _ in self.skipped}
        kept: list[str] = []
        for name, tensor in quantized.tensors.items():
            other = floats.tensors.get(name)
            if tensor.floats:
                kept.append(name)
            elif other is None:
                if name not in unreadable:
                    self.skipped.append((name, f"{shown(floats.files[0])} has no such tensor"))
            elif not other.floats:
                self.skipped.append((name, f"quantized in both files: {_named(other)}"))
            else:
                self._add(other, tensor, floats, quantized)
        alone = [
            name
            for name, tensor in floats.tensors.items()
            if tensor.floats and name not in quantized.tensors and name not in unreadable
        ]
        if not self.layers:
            raise QdebugError(self._nothing(floats, quantized, kept))
        if kept:
            self.notes.append(f"floats in both files: {some(kept)}")
        self.skipped += [
            (name, f"{shown(quantized.files[0])} has no such tensor") for name in alone
        ]

    def outputs(self) -> Sequence[Output]:
        """None: nothing is run."""
        return ()

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """Some rows of a tensor each."""
        return [part for layer in layers for part in self._parts(layer)]

    def _parts(self, layer: Layer) -> Iterator[Part]:
        floats, quantized = self._pairs[layer.name]
        rows, columns = layer.quantization.channels, _columns(layer.shape)
        if not math.prod(layer.shape):
            return
        whole = not (floats.divisible and quantized.divisible)
        step = rows if whole else max(TASK_ELEMENTS // columns, 1)
        for start, stop in pairwise([*range(0, rows, step), rows]):
            yield _RowsPart(layer, floats, quantized, start, stop)

    def _add(self, tensor: Tensor, codes: Tensor, floats: Weights, quantized: Weights) -> None:
        name = codes.name
        if tensor.shape != codes.shape:
            error = FieldError(
                "shape",
                found=f"{_shape(codes)} in {shown(quantized.files[0])}",
                expected=f"{_shape(tensor)} as in {shown(floats.files[0])}",
            )
            reason = str(locate(error, layer=shown(name)))
            self.layers.append(UnreadableLayer(name, reason))
            return
        rows = math.prod(codes.shape[:-1])
        grid = Grid(codes.encoding, rows, 0) if rows > 1 else Grid(codes.encoding)
        self.layers.append(Layer(name, grid, codes.shape, kind="weight"))
        self._pairs[name] = tensor, codes

    def _nothing(self, floats: Weights, quantized: Weights, kept: Sequence[str]) -> str:
        """The error message for files without a pair."""
        one, other = shown(floats.files[0]), shown(quantized.files[0])
        if self.problems:
            return "; ".join(self.problems)
        if kept and any(not tensor.floats for tensor in floats.tensors.values()):
            return (
                f"{other}: found floats only, expected quantized tensors: give the float file first"
            )
        if kept and len(kept) == len(quantized.tensors):
            return f"{other}: found floats only, expected quantized tensors"
        reasons = [(n, reason) for n, reason in quantized.skipped if n in floats.tensors]
        if reasons:
            name, reason = reasons[0]
            more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
            return f"{locate(reason, file=other, layer=shown(name))}{more}"
        codes = next((t for t in floats.tensors.values() if not t.floats), None)
        if codes is not None:
            return (
                f"{one}: found '{shown(codes.name)}' quantized ({_named(codes)}), expected floats"
            )
        names = some(list(floats.tensors)) or "none"
        return f"{other}: found no tensor of {one}'s names, expected some of {names}"


def _named(tensor: Tensor) -> str:
    return printable(tensor.encoding)


def _shape(tensor: Tensor) -> str:
    return f"shape {tensor.shape}"


def _columns(shape: Sequence[int]) -> int:
    return shape[-1] if shape else 1


@dataclass(frozen=True, eq=False)
class _RowsPart:
    """Rows `start` to `stop` of one tensor."""

    layer: Layer
    floats: Tensor
    quantized: Tensor
    start: int
    stop: int
    whole = None

    @property
    def waits(self) -> bool:
        return False

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def num_elements(self) -> int:
        return (self.stop - self.start) * _columns(self.layer.shape)

    def read(self, visitor: Visitor) -> None:
        """Read some rows at a time from both files.

        Raises:
            LayerError: a file cannot be read.
        """
        step = max(BLOCK_ELEMENTS // _columns(self.layer.shape), 1)
        with Files() as files:
            try:
                floats, quantized = self.floats.open(files), self.quantized.open(files)
                for start in range(self.start, self.stop, step):
                    stop = min(start + step, self.stop)
                    decoded = quantized(start, stop)
                    hand_over_decoded(
                        visitor, self.layer, floats(start, stop).values, decoded, start
                    )
            except (FieldError, LayerError) as error:
                visitor.fail(self.layer, str(locate(error, layer=shown(self.layer.name))))
