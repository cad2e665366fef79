"""Parts, read by themselves: what they hand over, block by block; a source made of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.figures import Figures
from qdebug.measure.layer import Block, Layer, Part, Visitor
from qdebug.measure.outputs import Output
from qdebug.measure.slabs import hand_over
from qdebug.measure.statistics import Statistics


class Kept:
    """A visitor that keeps copies of all blocks, each with its layer."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Layer, Block]] = []
        self.failed: list[tuple[Layer, str]] = []

    def take(self, layer: Layer, block: Block) -> None:
        model = None if block.model_float is None else block.model_float.copy()
        copied = Block(block.floats.copy(), block.codes.copy(), model, block.first_channel)
        self.blocks.append((layer, copied))

    def fail(self, layer: Layer, reason: str) -> None:
        self.failed.append((layer, reason))


def blocks_of(part: Part) -> list[tuple[Layer, Block]]:
    """All that a part hands over."""
    kept = Kept()
    part.read(kept)
    assert not kept.failed
    return kept.blocks


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """One layer in memory."""

    layer: Layer
    x: np.ndarray
    q: np.ndarray
    whole = None
    waits = False

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def num_elements(self) -> int:
        return self.x.size

    def read(self, visitor: Visitor) -> None:
        hand_over(visitor, self.layer, self.x, self.q)


def statistics_of(x: np.ndarray, q: np.ndarray, params: QuantParams) -> Statistics:
    """The statistics of a layer in memory."""
    figures = Figures(params)
    for layer, block in blocks_of(ArrayPart(Layer("layer", params, x.shape), x, q)):
        figures.add(layer, block)
    return figures.statistics


class ArraySource:
    """The source of one layer in memory, called ``layer``."""

    files = problems = notes = skipped = ()

    def __init__(self, x: np.ndarray, q: np.ndarray, params: QuantParams, **known: Any) -> None:
        self._arrays = x, q
        self.layers = [Layer("layer", params, x.shape, **known)]

    def outputs(self) -> Sequence[Output]:
        return ()

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        return [ArrayPart(layer, *self._arrays) for layer in layers]
