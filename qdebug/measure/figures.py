"""Figures: a layer's statistics, gathered block by block."""

from collections.abc import Callable
from functools import partial

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.grids import Grid
from qdebug.measure.kernel.measure import add, add_best
from qdebug.measure.layer import Block, Layer
from qdebug.measure.slices import SliceMetrics, SliceSums
from qdebug.measure.statistics import Statistics, no_statistics


class Figures:
    """The statistics of the blocks so far, quantized with these parameters or by this grid.

    If the layer has one scale, blocks that are cut along an axis count as one channel.
    """

    def __init__(self, params: QuantParams | Grid, *, sliced: bool = False) -> None:
        """Begin without any block; `sliced` measures the slices along `Layer.view`, too."""
        self._sliced = sliced and params.channels == 1
        self._params = params
        self._found: Statistics | None = None
        self._slices: SliceSums | None = None

    @property
    def statistics(self) -> Statistics:
        """The statistics so far."""
        return no_statistics(self._params.channels) if self._found is None else self._found

    @property
    def slices(self) -> SliceMetrics | None:
        """The slices, None if none are measured."""
        return None if self._slices is None else self._slices.metrics

    def add(self, layer: Layer, block: Block) -> None:
        """Measure a block."""
        if layer.view is not None and self._sliced and isinstance(self._params, QuantParams):
            if self._slices is None:
                self._slices = SliceSums(*layer.view)
            self._slices.add(block, self._params)
        self._add(block, partial(add, params=self._params))

    def add_best(self, block: Block) -> None:
        """Measure a block as if its codes were Q(x); not for a grid."""
        assert isinstance(self._params, QuantParams)
        self._add(block, partial(add_best, params=self._params))

    def _add(self, block: Block, merge_into: Callable[[Statistics, Block], None]) -> None:
        view = block.as_one_channel() if self._params.channels == 1 else block
        first, channels = view.first_channel, view.floats.shape[1]
        found = self._found
        if found is None:
            found = no_statistics(channels, first)
        elif not found.cover(first, first + channels):
            # With room for what follows, so that a layer of many blocks is not copied for each.
            stop = min(first + channels + found.channels, self._params.channels)
            found = found.widened(first, max(first + channels, stop))
        merge_into(found, view)
        self._found = found

    def merge(self, other: "Figures") -> None:
        """Merge another's statistics."""
        if other._found is not None:
            found = self._found or no_statistics(0, other._found.first_channel)
            self._found = found.merged(other._found)
        if self._slices is None:
            self._slices = other._slices
        elif other._slices is not None:
            self._slices.merge(other._slices)
