"""Pair files written: shapes that differ from sample to sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.layer import Block, Layer, Visitor
from qdebug.measure.outputs import Output
from qdebug.sources.pair_file.write import capture


class Moody:
    """A source whose second layer has another shape in every sample, and the third one fails."""

    files: tuple[str, ...] = ("moody",)
    problems = notes = skipped = ()
    whole, waits, num_elements = None, False, 30

    def __init__(self) -> None:
        params = QuantParams.of(0.5, 0, "int8")
        shapes = {"fixed": (1, 2, 3), "free": (1, 4), "failing": (1, 4)}
        self.layers = [Layer(name, params, shape) for name, shape in shapes.items()]

    def outputs(self) -> Sequence[Output]:
        return ()

    def parts(self, layers: list[Layer]) -> list["Moody"]:
        return [self]

    def read(self, visitor: Visitor) -> None:
        for length in (2, 5, 6):
            for layer, n in zip(self.layers, (6, length, 4), strict=True):
                x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
                if layer.name == "failing" and length > 2:
                    visitor.fail(layer, "layer 'failing': sample 1: another shape")
                    continue
                model = x if layer.name == "fixed" else None
                visitor.take(layer, Block(x, x.astype(np.int8), model))


def test_samples_of_different_shapes_are_saved_flat(tmp_path: Path) -> None:
    problems = capture(Moody(), ["fixed", "free", "failing"], tmp_path / "moody.npz")
    assert problems == ["layer 'failing': sample 1: another shape"]
    with np.load(tmp_path / "moody.npz") as pairs:
        assert pairs["fixed/float"].shape == (3, 2, 3)
        assert pairs["fixed/model_float"].shape == (3, 2, 3)
        assert pairs["free/float"].shape == (13,)
        assert "free/model_float" not in pairs
        assert pairs["free/quantized"].tolist() == [*range(2), *range(5), *range(6)]
        assert not [name for name in pairs.files if name.startswith("failing")]
    assert [path.name for path in tmp_path.iterdir()] == ["moody.npz"]
