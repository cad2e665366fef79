"""SOURCE: where it is looked for when it is left out, and how each kind of it is read."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qdebug.cli.progress import progress
from qdebug.errors import QdebugError
from qdebug.measure.layer import Source
from qdebug.names import printable, select
from qdebug.report.report import Report
from qdebug.run import engine
from qdebug.run.workers import Threads, Workers
from qdebug.sources.pair_file.read import PairFiles, parse_keys
from qdebug.sources.tflite.run import Kernels

if TYPE_CHECKING:
    from qdebug.report.limits import Config

SOURCE_HELP = """SOURCE is one or more pair files (.npz), globs or URLs; a float and a quantized
    model (.tflite or .onnx) with --inputs; a saved report (.json); or the CSV of TFLite's
    QuantizationDebugger. Where it is left out: $QDEBUG_SOURCE, else `source` in [tool.qdebug], else
    the only .npz here.""".strip()

_MODELS = (".tflite", ".onnx")
_REPORTS = (".json", ".csv")


@dataclass(frozen=True)
class Reading:
    """How SOURCE is to be read: what the options of `options.reading_options` say.

    Attributes:
        keys: how a pair file names its arrays, ``FIELD=TEMPLATE``.
        inputs: the samples to run live models on.
        samples: only so many of them.
        kernels: LiteRT's kernels.
        signature: of a .tflite model that has several.
        jobs: threads, or local processes; as many as there are cores where None.
        scheduler: of a Dask cluster that does the work.
    """

    keys: Sequence[str] = ()
    inputs: str | None = None
    samples: int | None = None
    kernels: Kernels = "default"
    signature: str | None = None
    jobs: int | None = None
    scheduler: str | None = None

    def source(self, sources: Sequence[str], workers: Workers | None = None) -> Source:
        """The tensors themselves: pair files, read by `workers`, or a live pair of models.

        Raises:
            QdebugError: a saved report, which holds no tensors; or what the source raises.
        """
        for source in sources:
            if source.lower().endswith(_REPORTS):
                raise QdebugError(
                    f"{printable(source)}: found a report, which holds no tensors, expected pair "
                    "files or models"
                )
        if any(source.lower().endswith(_MODELS) for source in sources):
            return self.models(sources)
        self._refuse("a float and a quantized model", "inputs", "samples", "signature")
        return PairFiles(sources, parse_keys(self.keys), workers)

    def models(self, sources: Sequence[str]) -> Source:
        """A live pair of models.

        Raises:
            QdebugError: other files, or models of two kinds; or what the source raises.
        """
        self._refuse("pair files (.npz)", "keys")
        if all(source.lower().endswith(".tflite") for source in sources):
            from qdebug.sources.tflite.source import LitertModels

            return LitertModels(
                sources,
                self.inputs,
                samples=self.samples,
                kernels=self.kernels,
                signature=self.signature,
            )
        if all(source.lower().endswith(".onnx") for source in sources):
            from qdebug.sources.onnx.source import OnnxModels

            self._refuse("LiteRT models (.tflite)", "signature")
            return OnnxModels(sources, self.inputs, samples=self.samples)
        raise QdebugError(
            f"found {' and '.join(map(printable, sources))}, expected two models of one kind "
            "(.tflite or .onnx)"
        )

    def _refuse(self, what: str, *options: str) -> None:
        """Say of options that mean nothing here what they go with.

        Raises:
            click.UsageError: one of them is given.
        """
        for option in options:
            if getattr(self, option):
                raise click.UsageError(f"--{option} goes with {what}")

    def report(self, sources: Sequence[str], patterns: Sequence[str] = ()) -> Report:
        """The report of a source, fresh or saved; with `patterns`, of the layers they name."""
        if not is_saved(sources):
            if any(source.lower().endswith(_MODELS) for source in sources):
                self._refuse("pair files (.npz)", "scheduler")
            with self._workers() as workers:
                source = self.source(sources, workers)
                with progress() as advance:
                    return engine.run(source, patterns, advance, workers)
        self._refuse(
            "tensors: pair files or models",
            "inputs",
            "samples",
            "signature",
            "keys",
            "jobs",
            "scheduler",
        )
        if len(sources) > 1:
            raise QdebugError("found a report (.json, .csv) among others, expected it alone")
        saved = _saved(sources[0])
        chosen = select([layer.name for layer in saved.layers], patterns)
        return replace(saved, layers=[layer for layer in saved.layers if layer.name in chosen])

    @contextmanager
    def _workers(self) -> Iterator[Workers]:
        """Threads, or the cluster that was asked for."""
        if self.scheduler is None:
            yield Threads(self.jobs)
            return
        if self.scheduler != "local":
            self._refuse("threads and --scheduler local", "jobs")
        from qdebug.run.cluster import connect

        with connect(self.scheduler, self.jobs) as cluster:
            if cluster.dashboard:
                click.echo(f"Dashboard: {cluster.dashboard}", err=True)
            yield cluster


def is_saved(sources: Sequence[str]) -> bool:
    """Whether a saved report is among the sources: figures without tensors."""
    return any(source.lower().endswith(_REPORTS) for source in sources)


def _saved(path: str) -> Report:
    if path.lower().endswith(".csv"):
        from qdebug.report.tflite_csv import read_csv

        return read_csv(path)
    from qdebug.report.json import loads

    shown = printable(path)
    try:
        return loads(Path(path).read_text("utf-8"), shown)
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise QdebugError(f"{shown}: found no text, expected JSON") from None


def resolve(sources: Sequence[str], config: "Config | None" = None) -> list[str]:
    """The sources to read: those given, or those that stand for none given.

    Raises:
        QdebugError: none given, and none or several to choose from.
    """
    if sources:
        return list(sources)
    if named := os.environ.get("QDEBUG_SOURCE"):
        return [named]
    if config is None:
        from qdebug.report.limits import find_config

        config = find_config(Path.cwd())
    if config.source:
        return config.source
    here = sorted(str(path) for path in Path().glob("*.npz"))
    if len(here) == 1:
        return here
    found = f"{len(here)} .npz files here" if here else "no .npz file here"
    raise QdebugError(f"no SOURCE: {found}; name one, or set QDEBUG_SOURCE")


def complain(ctx: click.Context, notes: Sequence[str], complaints: Sequence[str]) -> None:
    """Say on stderr what was left out and what could not be read; the latter is status 2."""
    for note in notes:
        click.echo(f"Note: {printable(note)}", err=True)
    for complaint in complaints:
        click.echo(f"Error: {printable(complaint)}", err=True)
    if complaints:
        ctx.exit(2)
