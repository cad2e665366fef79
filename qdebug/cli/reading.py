"""SOURCE on the command line: what stands for none given; how it is read, with a progress bar."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qdebug import api
from qdebug.cli.progress import progress
from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.run.session import Session, hired
from qdebug.run.workers import Workers
from qdebug.sources.open import Options, check_options, open_source

if TYPE_CHECKING:
    from qdebug.report.limits import Config

SOURCE_HELP = """SOURCE is one or more pair files (.npz), globs or URLs; a float and a quantized
    model (.tflite or .onnx) with --inputs; a saved report (.json); or the CSV of TFLite's
    QuantizationDebugger. Where it is left out: $QDEBUG_SOURCE, else `source` in [tool.qdebug], else
    the only .npz here.""".strip()


def resolve(
    sources: Sequence[str], options: Options, config: "Config | None" = None
) -> tuple[list[str], Options]:
    """The sources to read, those given or those that stand for none given, and how to read them.

    Raises:
        QdebugError: none given, and none or several to choose from; or options that mean nothing
            for them.
    """
    names = list(sources)
    if not names and (named := os.environ.get("QDEBUG_SOURCE")):
        names = [named]
    if not names:
        if config is None:
            from qdebug.report.configuration import find_config

            config = find_config(Path.cwd())
        names = config.source
        given = {name: value for name, value in vars(options).items() if value is not None}
        options = replace(options, **{**config.reading, **given}) if names else options
    if not names:
        names = sorted(str(path) for path in Path().glob("*.npz"))
        if len(names) != 1:
            found = f"{len(names)} .npz files here" if names else "no .npz file here"
            raise QdebugError(f"no SOURCE: {found}; name one, or set QDEBUG_SOURCE")
    check_options(names, options)
    return names, options


def read(names: Sequence[str], options: Options, patterns: Sequence[str] = ()) -> api.Report:
    """The report of a source, fresh or saved; with `patterns`, of the layers they name."""
    with _workers(options) as workers, progress() as advance:
        return api.read(names, options, patterns, workers, advance)


@contextmanager
def session_on(names: Sequence[str], options: Options) -> Iterator[Session]:
    """A source, opened, with those who read it."""
    with _workers(options) as workers:
        source = open_source(names, options, workers)
        with progress() as advance:
            yield Session(source, workers, advance)


@contextmanager
def _workers(options: Options) -> Iterator[Workers]:
    with hired(options.jobs, options.scheduler) as workers:
        if dashboard := getattr(workers, "dashboard", ""):
            click.echo(f"Dashboard: {dashboard}", err=True)
        yield workers


def complain(ctx: click.Context, notes: Sequence[str], complaints: Sequence[str]) -> None:
    """Say on stderr what was left out and what could not be read; the latter is status 2."""
    for note in notes:
        click.echo(f"Note: {printable(note)}", err=True)
    for complaint in complaints:
        click.echo(f"Error: {printable(complaint)}", err=True)
    if complaints:
        ctx.exit(2)
