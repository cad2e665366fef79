"""Engine: run a source, block by block, to a Report."""

from collections.abc import Sequence

from qdebug.errors import LayerError
from qdebug.layer import Layer, Source, UnreadableLayer
from qdebug.names import printable, select
from qdebug.report import LayerReport, Report, layer_report, unreadable_report
from qdebug.statistics import Statistics, measure, no_statistics


def run(source: Source, patterns: Sequence[str] = ()) -> Report:
    """The report of all layers, or of those that some glob of `patterns` names.

    What cannot be read is in it with the reason.

    Raises:
        QdebugError: a glob that names no layer.
    """
    chosen = select([layer.name for layer in source.layers], patterns)
    return Report(
        sources=list(source.files),
        layers=[_run_layer(source, layer) for layer in source.layers if layer.name in chosen],
        problems=list(source.problems),
    )


def layer_statistics(source: Source, layer: Layer) -> Statistics:
    """The merged statistics of one layer, for each of its channels.

    Raises:
        LayerError: the data is broken, or holds codes that the layer cannot have.
    """
    channels = layer.params.channels
    merged = no_statistics(channels)
    for block in source.blocks(layer):
        part = measure(block, layer.params)
        if part.count.size < channels:
            part = part.placed(block.first_channel, channels)
        merged = merged.merged(part)
    lowest, highest = merged.q_min.min(), merged.q_max.max()
    if lowest < layer.params.qmin or highest > layer.params.qmax:
        raise LayerError(
            f"{', '.join(source.files)}: layer '{printable(layer.name)}': field 'quantized': found "
            f"codes from {lowest:.0f} to {highest:.0f}, expected {layer.params.qmin} to "
            f"{layer.params.qmax}"
        )
    return merged


def _run_layer(source: Source, layer: Layer | UnreadableLayer) -> LayerReport:
    if isinstance(layer, UnreadableLayer):
        return unreadable_report(layer)
    try:
        return layer_report(layer, layer_statistics(source, layer))
    except LayerError as error:
        return unreadable_report(UnreadableLayer(layer.name, str(error)))
