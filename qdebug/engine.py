"""Engine: run a source, block by block, to a Report."""

from collections.abc import Callable, Iterator, Sequence

from qdebug.errors import LayerError
from qdebug.layer import Block, Layer, Source, UnreadableLayer
from qdebug.names import select, shown
from qdebug.report import LayerReport, Report, layer_report, unreadable_report, with_origins
from qdebug.statistics import measure, no_statistics


def run(
    source: Source,
    patterns: Sequence[str] = (),
    advance: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of all layers, or of those that some glob of `patterns` names.

    What cannot be read is in it with the reason. `advance` is called with the number of elements
    done and that of all, as work goes on.

    Raises:
        QdebugError: a glob that names no layer.
    """
    names = select([layer.name for layer in source.layers], patterns)
    chosen = [layer for layer in source.layers if layer.name in names]
    readable = [layer for layer in chosen if isinstance(layer, Layer)]
    statistics = {layer.name: no_statistics(layer.params.channels) for layer in readable}
    broken: dict[str, str] = {}
    parts = source.parts(readable)
    done, total = 0, sum(part.num_elements for part in parts)
    for part in parts:
        try:
            for layer, block in part.blocks():
                statistics[layer.name].absorb(measure(block, layer.params), block.first_channel)
                done += block.codes.size
                if advance is not None:
                    advance(done, total)
        except LayerError as error:
            broken |= {layer.name: str(error) for layer in part.layers}

    def reported(layer: Layer | UnreadableLayer) -> LayerReport:
        if isinstance(layer, UnreadableLayer):
            return unreadable_report(layer)
        if layer.name in broken:
            return unreadable_report(UnreadableLayer(layer.name, broken[layer.name]))
        return layer_report(layer, statistics[layer.name])

    return Report(
        sources=list(source.files),
        layers=with_origins([reported(layer) for layer in chosen]),
        problems=list(source.problems),
        notes=notes_of(source),
    )


def notes_of(source: Source) -> list[str]:
    """What the user should know of how a source was read, a line each."""
    left_out = [f"'{shown(name)}' is left out: {reason}" for name, reason in source.skipped]
    return [*source.notes, *left_out]


def layer_blocks(source: Source, layer: Layer) -> Iterator[Block]:
    """The data of one layer alone, slab by slab, cut along the axis of `layer.params`.

    Raises:
        LayerError: it turns out to be broken.
    """
    for part in source.parts([layer]):
        for _, block in part.blocks():
            yield block
