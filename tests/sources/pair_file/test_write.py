"""Pair files written: shapes that differ from sample to sample."""

from pathlib import Path

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.layer import Block, Layer
from qdebug.sources.pair_file import write as pair_file


class Moody:
    """A source whose second layer has another shape in every sample, and breaks if told to."""

    files: tuple[str, ...] = ("moody",)
    problems = notes = skipped = ()

    def __init__(self) -> None:
        params = QuantParams.of(0.5, 0, "int8")
        self.layers = [Layer("fixed", params, (1, 2, 3)), Layer("free", params, (1, 4))]
        self.num_elements = 30

    def parts(self, layers: list[Layer]) -> list["Moody"]:
        return [self]

    def blocks(self, sums):  # type: ignore[no-untyped-def]
        for length in (2, 5, 6):
            for layer, n in zip(self.layers, (6, length), strict=True):
                x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
                yield layer, Block(x, x.astype(np.int8), x if layer.name == "fixed" else None)


def test_samples_of_different_shapes_are_saved_flat(tmp_path: Path) -> None:
    source = Moody()
    with (tmp_path / "moody.npz").open("wb") as file:
        pair_file.capture(source, source.layers, file, tmp_path)  # type: ignore[arg-type]
    with np.load(tmp_path / "moody.npz") as pairs:
        assert pairs["fixed/float"].shape == (3, 2, 3)
        assert pairs["fixed/model_float"].shape == (3, 2, 3)
        assert pairs["free/float"].shape == (13,)
        assert "free/model_float" not in pairs
        assert pairs["free/quantized"].tolist() == [*range(2), *range(5), *range(6)]
