"""Session: a source and its workers. Each sweep visits all data once, for all layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from qdebug.errors import QdebugError
from qdebug.measure.figures import Figures
from qdebug.measure.histogram import CellErrors, Distributions
from qdebug.measure.layer import Layer, Source, UnreadableLayer, Whole, is_affine
from qdebug.measure.metrics import layers_metrics
from qdebug.measure.outputs import output_metrics
from qdebug.measure.slices import SliceMetrics
from qdebug.measure.statistics import Statistics, no_statistics
from qdebug.names import select, shown
from qdebug.report.graph import surroundings
from qdebug.report.report import (
    LayerReport,
    Report,
    layer_report,
    unreadable_report,
    with_origins,
    without_figures,
)
from qdebug.run.engine import Advance, Gatherer, gather, without
from qdebug.run.workers import Threads, Workers

G = TypeVar("G", bound=Gatherer)

# Each takes about a kilobyte while a report is made; models of 10^10 weights have fewer.
_MOST_CHANNELS = 1 << 22


class Session:
    """A source, read by workers; remembers between sweeps which data cannot be used."""

    def __init__(
        self, source: Source, workers: Workers | None = None, advance: Advance | None = None
    ) -> None:
        """Begin; without `workers`, the calling thread does everything.

        Args:
            source: what to read.
            workers: read it.
            advance: called in each sweep with the amount done and the total.
        """
        self.source = source
        self.workers = workers or Threads(1)
        self._advance = advance
        self._broken: set[Whole] = set()
        self._reasons: dict[str, list[str]] = {}

    def choose(self, patterns: Sequence[str] = ()) -> list[Layer | UnreadableLayer]:
        """The layers that match any of the globs, in the source's order; all without globs.

        Raises:
            QdebugError: a glob matches no layer.
        """
        names = select([layer.name for layer in self.source.layers], patterns)
        return [layer for layer in self.source.layers if layer.name in names]

    def sweep(self, wanted: Sequence[tuple[Layer, Callable[[], G]]]) -> dict[str, G]:
        """Visit all data of these layers once.

        Args:
            wanted: each layer, with the `view` to cut it by, and the function that makes its
                gatherer.

        Returns:
            What was gathered, by layer. Layers without elements, and those that cannot be read
            (see `reasons`), are missing.
        """
        parts = without(self.source.parts([layer for layer, _ in wanted]), self._broken)
        begin = {layer.name: start for layer, start in wanted}
        found = gather(parts, begin, self.workers, self._advance)
        self._broken |= found.broken.keys()
        for name, reasons in found.reasons().items():
            self._reasons.setdefault(name, []).extend(reasons)
        return found.layers

    def reasons(self, name: str) -> Sequence[str]:
        """Why data of this layer cannot be used, as far as known from the sweeps so far."""
        return self._reasons.get(name, [])

    def report(self, patterns: Sequence[str] = ()) -> Report:
        """The figures and diagnosis of all layers, or of those that match the globs.

        A diagnosis does not depend on the globs: what it needs of other layers is read as well.

        Raises:
            QdebugError: a glob matches no layer, or the layers have too many channels together.
        """
        chosen = self.choose(patterns)
        others = self.others(chosen)
        found = self._figures([*chosen, *others])
        if not others:  # only now is it known whether there is a run of the float model
            others = self.others(chosen, {name: each.statistics for name, each in found.items()})
            found |= self._figures(others)
        statistics = {name: each.statistics for name, each in found.items()}
        slices = {name: each.slices for name, each in found.items()}
        report = self.report_of(chosen, statistics, slices, others)
        return report if patterns else self._with_outputs(report)

    def _figures(self, layers: Sequence[Layer | UnreadableLayer]) -> dict[str, Figures]:
        read = [layer for layer in layers if isinstance(layer, Layer)]
        channels = sum(layer.quantization.channels for layer in read)
        if channels > _MOST_CHANNELS:
            raise QdebugError(
                f"found {channels} channels in {len(read)} layers, expected {_MOST_CHANNELS} at "
                "most: figures are kept for each; choose some of the layers"
            )
        wanted = [(layer, partial(Figures, layer.quantization, sliced=True)) for layer in read]
        return self.sweep(wanted) if wanted else {}

    def others(
        self,
        chosen: Sequence[Layer | UnreadableLayer],
        found: Mapping[str, Statistics] | None = None,
    ) -> list[Layer | UnreadableLayer]:
        """The layers that the diagnoses of the chosen ones depend on, besides these.

        There are none if the source does not say what makes or feeds its layers, and what was found
        so far has no run of the float model.
        """
        layers = self.source.layers
        named = any(each.inputs or getattr(each, "op", None) for each in layers)
        if not named and not any(each.model_count.any() for each in (found or {}).values()):
            return []
        names = surroundings(list(map(without_figures, layers)), {each.name for each in chosen})
        return [layer for layer in layers if layer.name in names]

    def _with_outputs(self, report: Report) -> Report:
        """The report with the model's outputs, or the reason why there are none."""
        try:
            outputs = self.source.outputs()
        except QdebugError as error:
            known = str(error) in report.complaints
            return replace(report, problems=[*report.problems, *[str(error)] * (not known)])
        return replace(report, outputs=[output_metrics(output) for output in outputs])

    def distributions(self, report: Report) -> dict[str, Distributions | CellErrors]:
        """The histograms, by name, of a report's layers that have finite elements.

        Of layers whose steps differ, those of their errors, if they have steps at all.
        """
        metrics = {
            layer.name: layer.metrics
            for layer in report.layers
            if layer.metrics and layer.metrics.num_elements
        }
        wanted: list[tuple[Layer, Callable[[], Distributions | CellErrors]]] = []
        for layer in self.source.layers:
            if layer.name not in metrics or not isinstance(layer, Layer):
                continue
            figures = metrics[layer.name]
            if is_affine(layer):
                begin = partial(Distributions, layer.params, figures)
                wanted.append((replace(layer, view=None), begin))
            elif figures.max_abs_error_scale is not None:
                wanted.append((layer, partial(CellErrors, figures)))
        return self.sweep(wanted)

    def report_of(
        self,
        chosen: Sequence[Layer | UnreadableLayer],
        found: Mapping[str, Statistics],
        slices: Mapping[str, SliceMetrics | None] | None = None,
        others: Sequence[Layer | UnreadableLayer] = (),
    ) -> Report:
        """The report of these layers from their statistics; unreadable layers are included.

        Args:
            chosen: the layers.
            found: their statistics, and those of `others`.
            slices: those that were measured.
            others: what else the diagnoses depend on; see `others`.
        """
        slices = slices or {}
        statistics = dict(found)
        read = [*chosen, *others]
        params = {each.name: each.quantization for each in read if isinstance(each, Layer)}
        for name in params.keys() - statistics.keys() - self._reasons.keys():  # without elements
            statistics[name] = no_statistics(params[name].channels)
        figures = layers_metrics([(s, params[name]) for name, s in statistics.items()])
        metrics = dict(zip(statistics, figures, strict=True))

        def reported(layer: Layer | UnreadableLayer) -> LayerReport:
            if isinstance(layer, UnreadableLayer):
                return unreadable_report(layer)
            if layer.name in metrics:
                of_layer = statistics.pop(layer.name), metrics[layer.name], slices.get(layer.name)
                return layer_report(layer, *of_layer)
            why = self._reasons[layer.name][0]
            return unreadable_report(UnreadableLayer(layer.name, why, inputs=layer.inputs))

        known = {layer.name: reported(layer) for layer in read}
        network = self.source.layers if others else chosen
        layers = with_origins([known.get(each.name) or without_figures(each) for each in network])
        if others:
            names = {layer.name for layer in chosen}
            layers = [layer for layer in layers if layer.name in names]
        problems = list(self.source.problems)
        for layer in chosen:
            why = self._reasons.get(layer.name, [])
            problems += [*layer.problems, *(why if layer.name in metrics else why[1:])]
        runtime: Mapping[str, str] = getattr(self.source, "runtime", {})
        notes = notes_of(self.source)
        return Report(list(self.source.files), layers, problems, notes, runtime=runtime)


def run(
    source: Source,
    patterns: Sequence[str] = (),
    advance: Advance | None = None,
    workers: Workers | None = None,
) -> Report:
    """The report of a source in one sweep; see `Session`.

    Raises:
        QdebugError: a glob matches no layer.
    """
    return Session(source, workers, advance).report(patterns)


@contextmanager
def hired(jobs: int | None = None, scheduler: str | None = None) -> Iterator[Workers]:
    """Threads of this process, or a Dask cluster that lasts as long as the block.

    Args:
        jobs: threads, or processes of a local cluster; None for one per core.
        scheduler: the address of a cluster's scheduler, or ``local``; None for threads.

    Raises:
        QdebugError: the cluster is not available.
    """
    if scheduler is None:
        yield Threads(jobs)
        return
    from qdebug.run.cluster import connect

    with connect(scheduler, jobs) as cluster:
        yield cluster


# Names in a note about many tensors.
_NAMED = 3


def notes_of(source: Source) -> list[str]:
    """What the user should know about how a source was read, one line each.

    Tensors that are left out for the same reason share a line.
    """
    names: dict[str, list[str]] = {}
    for name, reason in source.skipped:
        names.setdefault(reason, []).append(f"'{shown(name)}'")
    return [*source.notes, *(_left_out(found, reason) for reason, found in names.items())]


def _left_out(names: Sequence[str], reason: str) -> str:
    if len(names) == 1:
        return f"{names[0]} is left out: {reason}"
    more = ", ..." if len(names) > _NAMED else ""
    listed = f"{', '.join(names[:_NAMED])}{more}"
    return f"{len(names)} tensors ({listed}) are left out: {reason}"
