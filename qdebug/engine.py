"""Engine: run a source, block by block, to a Report."""

from collections.abc import Iterator, Sequence

from qdebug.errors import LayerError
from qdebug.layer import Block, Layer, Source, UnreadableLayer
from qdebug.names import printable, select
from qdebug.report import LayerReport, Report, layer_report, unreadable_report
from qdebug.statistics import Statistics, measure, no_statistics


def run(source: Source, patterns: Sequence[str] = ()) -> Report:
    """The report of all layers, or of those that some glob of `patterns` names.

    What cannot be read is in it with the reason.

    Raises:
        QdebugError: a glob that names no layer.
    """
    names = select([layer.name for layer in source.layers], patterns)
    chosen = [layer for layer in source.layers if layer.name in names]
    readable = [layer for layer in chosen if isinstance(layer, Layer)]
    statistics = {layer.name: no_statistics(layer.params.channels) for layer in readable}
    broken: dict[str, str] = {}
    for part in source.parts(readable):
        try:
            for layer, block in part.blocks():
                merged = statistics[layer.name].merged(_measured(layer, block))
                statistics[layer.name] = merged
        except LayerError as error:
            broken |= {layer.name: str(error) for layer in part.layers}

    def reported(layer: Layer | UnreadableLayer) -> LayerReport:
        if isinstance(layer, UnreadableLayer):
            return unreadable_report(layer)
        reason = broken.get(layer.name) or _impossible_codes(source, layer, statistics[layer.name])
        if reason:
            return unreadable_report(UnreadableLayer(layer.name, reason))
        return layer_report(layer, statistics[layer.name])

    return Report(
        sources=list(source.files),
        layers=[reported(layer) for layer in chosen],
        problems=list(source.problems),
    )


def layer_blocks(source: Source, layer: Layer) -> Iterator[Block]:
    """The data of one layer alone, slab by slab.

    Raises:
        LayerError: it turns out to be broken.
    """
    for part in source.parts([layer]):
        for _, block in part.blocks():
            yield block


def _measured(layer: Layer, block: Block) -> Statistics:
    """The statistics of one block, among all channels of its layer."""
    part = measure(block, layer.params)
    channels = layer.params.channels
    return part if part.count.size == channels else part.placed(block.first_channel, channels)


def _impossible_codes(source: Source, layer: Layer, statistics: Statistics) -> str | None:
    """What is wrong where there are codes that the layer's type, bits and range do not allow."""
    lowest, highest = statistics.q_min.min(), statistics.q_max.max()
    nothing_seen = lowest > highest
    if nothing_seen or (lowest >= layer.params.qmin and highest <= layer.params.qmax):
        return None
    return (
        f"{', '.join(map(printable, source.files))}: layer '{printable(layer.name)}': field "
        f"'quantized': found codes from {lowest:.0f} to {highest:.0f}, expected "
        f"{layer.params.qmin} to {layer.params.qmax}"
    )
