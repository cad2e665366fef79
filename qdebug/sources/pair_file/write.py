"""Write pair files (docs/pair-file.md): layer by layer, or from a source as it yields data."""

import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug import whereabouts
from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid
from qdebug.errors import QdebugError, locate
from qdebug.measure.layer import Block, Layer, Source, UnreadableLayer, is_affine
from qdebug.measure.outputs import Output
from qdebug.names import printable, shown
from qdebug.output import TEMPORARY, whole_file
from qdebug.sources.pair_file.fields import TENSORS
from qdebug.sources.pair_file.memory import Pair

# Bytes of a layer beside its tensors: headers, directory entries, names, small fields.
_OVERHEAD_BYTES = 6000

# The longest member name in a zip, less the longest field.
_MOST_NAME_BYTES = 65_535 - len("/narrow_range.npy")

# Bytes in memory at a time while an array is copied from a file.
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class SpooledArray:
    """An array whose data is in its own file, in C order."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _check_name(name: str) -> None:
    """Check that a zip can hold a layer's name: `zipfile` silently cuts it at a NUL.

    Raises:
        LayerError: it cannot.
    """
    with suppress(UnicodeEncodeError):
        if "\0" not in name and len(name.encode()) <= _MOST_NAME_BYTES:
            return
    raise locate(
        "found a name that no zip can hold, expected Unicode text without a NUL character, of at "
        f"most {_MOST_NAME_BYTES} bytes",
        layer=shown(name),
    )


class PairFileWriter:
    """An .npz of float and quantized tensors, written to a binary file.

    The same layers give the same bytes. Use as a context manager: the directory is written last.
    """

    def __init__(self, file: BinaryIO, packed: bool = False) -> None:
        """Write to `file`; `packed` deflates the arrays."""
        method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        self._archive = zipfile.ZipFile(file, "w", method)
        self._method = method

    def __enter__(self) -> "PairFileWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._archive.close()

    def add(
        self,
        name: str,
        tensors: Mapping[str, NDArray[Any] | SpooledArray],
        params: QuantParams,
        op: str | None = None,
        kind: str | None = None,
        nodes: Sequence[str] = (),
        inputs: Sequence[str] | None = None,
        slice_axis: int | None = None,
    ) -> None:
        """Write one layer; `tensors` are by field: ``float``, ``quantized`` and the optional ones.

        Raises:
            LayerError: a zip cannot hold the name.
        """
        _check_name(name)
        for field, tensor in tensors.items():
            self._write(name, field, tensor)
        one = params.channels == 1
        self._write(name, "scale", params.scale[0] if one else params.scale)
        self._write(name, "zero_point", params.zero_point[0] if one else params.zero_point)
        if params.axis is not None:
            self._write(name, "axis", params.axis)
        if params.bits != np.dtype(params.dtype).itemsize * 8:
            self._write(name, "bits", params.bits)
        if params.narrow_range:
            self._write(name, "narrow_range", True)
        if params.rounding != "half_away":
            self._write(name, "rounding", params.rounding)
        for field, text in (("op", op), ("kind", kind)):
            if text is not None:
                self._write(name, field, text)
        if nodes:
            self._write(name, "nodes", np.array(nodes, dtype=np.str_))
        if inputs is not None:
            self._write(name, "inputs", np.array(inputs, dtype=np.str_))
        if slice_axis is not None:
            self._write(name, "slice_axis", slice_axis)

    def add_pair(self, name: str, pair: Pair) -> None:
        """Write one layer that is in memory."""
        tensors = {"float": pair.floats, "quantized": pair.codes}
        if pair.model_float is not None:
            tensors["model_float"] = pair.model_float
        if pair.weights_float is not None:
            same = pair.weights_float is pair.floats
            tensors["weights_float"] = pair.floats.reshape(-1)[:0] if same else pair.weights_float
        self.add(name, tensors, pair.params, pair.op, pair.kind, pair.nodes, pair.inputs)

    def add_output(self, output: Output) -> None:
        """Write the sums of one of the model's outputs.

        Raises:
            LayerError: a zip cannot hold the name.
        """
        _check_name(output.name)
        self._write(output.name, "output_sums", output.sums)

    def _write(self, name: str, field: str, value: ArrayLike | SpooledArray) -> None:
        info = zipfile.ZipInfo(f"{name}/{field}.npy")  # no date, so the bytes are reproducible
        info.compress_type = self._method
        with self._archive.open(info, "w", force_zip64=True) as member:
            if isinstance(value, SpooledArray):
                descr = np.lib.format.dtype_to_descr(value.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": value.shape}
                np.lib.format.write_array_header_1_0(member, header)
                with value.path.open("rb") as data:
                    shutil.copyfileobj(data, member, _COPY_BYTES)
                value.path.unlink()
            else:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)


def capture(
    source: Source,
    names: Collection[str],
    path: Path,
    *,
    packed: bool = False,
    advance: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the layers of these names to a pair file, in the source's order.

    Live models yield all layers of one sample before the next sample, but a pair file holds all
    samples of one layer together. So each tensor is first collected in a temporary file beside
    `path`. Samples are stacked along the first axis.

    Layers whose steps differ within a channel are left out (`not_storable`).

    Returns:
        One line per layer that could not be captured; the other layers are in the file.

    Raises:
        QdebugError: the source fails, the file cannot be written, or the disk is too full.
    """
    chosen = [layer for layer in source.layers if layer.name in names]
    layers = [layer for layer in chosen if is_affine(layer)]
    if not layers and (left_out := not_storable(source, names)):
        raise QdebugError(f"{left_out[0]}; no other layer can be captured")
    problems = [layer.reason for layer in chosen if isinstance(layer, UnreadableLayer)]
    folder, shown_path = path.resolve().parent, printable(str(path))
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise QdebugError(f"{shown_path}: cannot be written: {error.strerror}") from None
    if 2 * size_of(source, layers) > free:  # collected first, then written
        raise QdebugError(
            f"{shown_path}: found {free / 1e6:.1f} MB free, expected twice the size of the file"
        )
    parts = source.parts(layers)
    size = sum(part.num_elements for part in parts)
    with (
        whole_file(path) as file,
        tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY) as spool,
        whereabouts.temporary(spool),
    ):
        collected = _Collector(layers, Path(spool), size, advance)
        for part in parts:
            part.read(collected)
        outputs: Sequence[Output] = []
        try:
            outputs = source.outputs()
        except QdebugError as error:  # a run fails: the layers say so, too
            problems += [str(error)] * (str(error) not in collected.failed.values())
        with PairFileWriter(file, packed) as pairs:
            for layer in layers:
                if layer.name not in collected.failed:
                    arrays = collected.tensors[layer.name].arrays()
                    axis = None if layer.view is None else layer.view[0]
                    about = (layer.op, layer.kind, layer.nodes, layer.inputs, axis)
                    pairs.add(layer.name, arrays, layer.params, *about)
            for output in outputs:
                pairs.add_output(output)
    return problems + list(collected.failed.values())


def not_storable(source: Source, names: Collection[str]) -> list[str]:
    """One line per layer of these names that has no place in a pair file: its steps differ."""
    return [
        f"'{shown(layer.name)}' is left out: pair files have no place for "
        f"{printable(layer.quantization.name)}"
        for layer in source.layers
        if isinstance(layer, Layer) and isinstance(layer.quantization, Grid) and layer.name in names
    ]


class _Collector:
    """The visitor that collects each tensor in its own file."""

    def __init__(
        self,
        layers: Sequence[Layer],
        folder: Path,
        num_elements: int,
        advance: Callable[[int, int], None] | None,
    ) -> None:
        self.tensors = {layer.name: _Collected(layer, folder, i) for i, layer in enumerate(layers)}
        self.failed: dict[str, str] = {}
        self._advance = advance
        self._done, self._all = 0, num_elements

    def take(self, layer: Layer, block: Block) -> None:
        self.tensors[layer.name].add(block)
        self._done += block.codes.size
        if self._advance is not None:
            self._advance(self._done, self._all)

    def fail(self, layer: Layer, reason: str) -> None:
        self.failed.setdefault(layer.name, reason)


def size_of(source: Source, layers: Sequence[Layer]) -> int:
    """An upper estimate of the bytes that `capture` writes without compression."""
    size = 0
    for part in source.parts(layers):
        elements = [math.prod(layer.shape) for layer in part.layers]
        runs = part.num_elements / max(sum(elements), 1)
        for layer, count in zip(part.layers, elements, strict=True):
            # With model_float and weights_float.
            floats = 4 if layer.kind in ("weight", "bias") else 12
            size += round(runs * count) * (floats + np.dtype(layer.params.dtype).itemsize)
            size += _OVERHEAD_BYTES + 16 * layer.params.channels
    return size


class _Collected:
    """The tensors of one layer, appended to files block by block."""

    def __init__(self, layer: Layer, folder: Path, number: int) -> None:
        self._layer = layer
        self._weightless = True  # while no block has other floats with the quantized weights
        self._arrays = {
            field: SpooledArray(folder / f"{number}-{field}", np.dtype(np.float32), (0,))
            for field in TENSORS
        }

    def add(self, block: Block) -> None:
        same = block.weights_float is block.floats
        self._weightless &= same
        for field, values in (
            ("float", block.floats),
            ("quantized", block.codes),
            ("model_float", block.model_float),
            ("weights_float", None if same else block.weights_float),
        ):
            if values is not None:
                array = self._arrays[field]
                with array.path.open("ab") as file:
                    file.write(np.ascontiguousarray(values).data)
                count = array.shape[0] + values.size
                self._arrays[field] = replace(array, dtype=values.dtype, shape=(count,))

    def arrays(self) -> dict[str, NDArray[Any] | SpooledArray]:
        """The tensors with their shapes; the optional ones only if every sample has them."""
        count = self._arrays["float"].shape[0]
        params, shape = self._layer.params, self._layer.shape
        if params.axis == 0 and count > math.prod(shape):
            raise QdebugError(
                f"layer '{shown(self._layer.name)}': has a scale per index of axis 0, but samples "
                "are stacked along axis 0: capture one sample (--samples 1), or other layers"
            )
        arrays = {
            field: replace(array, shape=_stacked(self._layer.shape, count))
            for field, array in self._arrays.items()
            if count and array.shape[0] == count
        }
        if arrays and self._weightless:
            return {**arrays, "weights_float": np.zeros(0, np.float32)}
        return {**arrays}


def _stacked(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape of all stacked samples; flat if their shapes differ."""
    sample = math.prod(shape[1:])
    if shape and sample and count % sample == 0:
        return (count // sample, *shape[1:])
    return shape if math.prod(shape) == count else (count,)
