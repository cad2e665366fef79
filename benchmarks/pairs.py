"""The pair files for the benchmarks, written once and kept."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Fields = dict[str, Array]

SPREAD = 4.0  # the scale covers -4 to 4; one of 16 000 normal numbers lies outside


def normal(*shape: int, seed: int = 0) -> Array:
    """float32 of mean 0 and variance 1."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def pair(floats: Array, codes: DTypeLike = np.int8, axis: int | None = None) -> Fields:
    """A layer of these floats, with one scale or one scale per channel along `axis`."""
    info = np.iinfo(codes)
    step = 2 * SPREAD / (float(info.max) - float(info.min))
    if axis is None:
        scale = np.array(step)
        steps = floats / step
    else:
        scale = step * np.linspace(1, 2, floats.shape[axis])
        steps = floats / np.expand_dims(scale, [i for i in range(floats.ndim) if i != axis])
    quantized = np.rint(steps, out=steps).clip(info.min, info.max).astype(codes)
    fields = {"float": floats, "quantized": quantized, "scale": scale, "zero_point": np.array(0)}
    return fields if axis is None else fields | {"axis": np.array(axis)}


def activation(floats: Array) -> Fields:
    """A layer after ReLU: half of it is zeros, and runs of equal codes compress well."""
    positive = np.maximum(floats, 0)
    scale = SPREAD / 255
    codes = (np.rint(positive / scale) - 128).clip(-128, 127).astype(np.int8)
    return {
        "float": positive,
        "quantized": codes,
        "scale": np.array(scale),
        "zero_point": np.array(-128),
    }


def in_shape(elements: int, channels: int, axis: str | None) -> tuple[tuple[int, ...], int | None]:
    """A shape of `elements` with the channels `first`, in the `middle` or `last`, and their axis.

    Without an axis there is one scale for all.
    """
    rest = elements // channels
    if axis == "first":
        return (channels, rest), 0
    if axis == "middle":
        return (16, channels, rest // 16), 1
    if axis == "last":
        return (rest, channels), 1
    return (elements,), None


def write(path: Path, layers: Mapping[str, Fields], compressed: bool = False) -> None:
    """Write a pair file as users do, with NumPy."""
    arrays = {f"{name}/{field}": array for name, f in layers.items() for field, array in f.items()}
    save = np.savez_compressed if compressed else np.savez
    save(path, allow_pickle=False, **arrays)


class Files:
    """Input files by name, in one folder; each is written when it is first requested.

    All sizes are multiplied by `share`, for a quick trial.
    """

    def __init__(self, folder: Path, share: float) -> None:
        self._folder, self._share = folder, share
        folder.mkdir(parents=True, exist_ok=True)

    def elements(self, full: int) -> int:
        """`full` elements times the share; a power of two stays one."""
        return int(full * self._share)

    def tiny(self, compressed: bool = False) -> Path:
        """One layer of 64 elements: its report is almost only start-up."""
        name = "tiny-compressed" if compressed else "tiny"
        return self._kept(name, lambda: {"layer": pair(normal(64))}, compressed)

    def stored(self, compressed: bool = False) -> Path:
        """8 layers of (64, 131072) float32 and int8: 335 MB if not compressed."""
        return self._kept(
            "compressed" if compressed else "stored",
            lambda: {
                f"layer{i}": pair(normal(64, self.elements(131072), seed=i)) for i in range(8)
            },
            compressed,
        )

    def activations(self) -> Path:
        """The same number of activations after ReLU, compressed."""
        return self._kept(
            "activations",
            lambda: {
                f"layer{i}": activation(normal(64, self.elements(131072), seed=i)) for i in range(8)
            },
            compressed=True,
        )

    def typed(self, floats: str, codes: str, *, channels: int = 1, axis: str | None = None) -> Path:
        """One layer of 16 M elements, of these types, with the channels on this axis."""
        elements = self.elements(1 << 24)
        shape, index = in_shape(elements, channels, axis)
        return self._kept(
            f"{floats}-{codes}-{channels}-{axis}",
            lambda: {"layer": pair(normal(*shape).astype(floats), codes, index)},
        )

    def single(self) -> Path:
        """One layer of 80 M elements."""
        shape = (80, self.elements(1_000_000))
        return self._kept("single", lambda: {"layer": pair(normal(*shape))})

    def weights(self) -> Path:
        """An array of 16 M floats, not quantized."""
        elements = self.elements(1 << 24)
        return self._kept("weights", lambda: {"weights": {"float": normal(elements)}})

    def channels(self) -> Path:
        """One layer of 200 000 channels of 9 elements."""
        shape = (self.elements(200_000), 9)
        return self._kept("channels", lambda: {"layer": pair(normal(*shape), axis=0)})

    def fortran(self) -> Path:
        """One layer of 16 M elements; both arrays in Fortran order."""
        return self._fortran("fortran", codes_too=True)

    def mixed_order(self) -> Path:
        """The same with the codes in C order, so that one array has to be reordered."""
        return self._fortran("mixed-order", codes_too=False)

    def _fortran(self, name: str, codes_too: bool) -> Path:
        def layers() -> Mapping[str, Fields]:
            fields = pair(normal(4096, self.elements(4096)))
            reordered = ("float", "quantized") if codes_too else ("float",)
            return {"layer": fields | {f: np.asfortranarray(fields[f]) for f in reordered}}

        return self._kept(name, layers)

    def many(self) -> Path:
        """10 000 layers of 100 elements."""
        layers = self.elements(10_000)
        return self._kept("many", lambda: {f"layer{i}": pair(normal(100)) for i in range(layers)})

    def samples(self, inputs: Path, count: int) -> Path:
        """The samples of `inputs`, repeated until there are `count`."""

        def write_samples(path: Path) -> None:
            with np.load(inputs) as file:
                repeated = {name: np.resize(x, (count, *x.shape[1:])) for name, x in file.items()}
            np.savez(path, allow_pickle=False, **repeated)

        return self._kept_as(f"samples-{count}.npz", write_samples)

    def _kept(
        self, name: str, layers: Callable[[], Mapping[str, Fields]], compressed: bool = False
    ) -> Path:
        return self._kept_as(f"{name}.npz", lambda path: write(path, layers(), compressed))

    def _kept_as(self, name: str, write_to: Callable[[Path], None]) -> Path:
        path = self._folder / name
        if not path.exists():
            unfinished = self._folder / f"unfinished-{name}"
            write_to(unfinished)
            unfinished.replace(path)
        return path
