"""SOURCE on the command line: its default, and how it is read, with a progress bar."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qdebug import api
from qdebug.cli.apart import apart
from qdebug.cli.progress import progress
from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.run.session import Session, hired
from qdebug.run.workers import Workers
from qdebug.sources.open import Options, check_options, open_source

if TYPE_CHECKING:
    from qdebug.report.limits import Config

SOURCE_HELP = """SOURCE is one or more pair files (.npz), globs or URLs; a float and a quantized
    model (.tflite or .onnx) with --inputs; a float and a quantized weight file (.gguf,
    .safetensors or a folder of them); a saved report (.json); or the CSV of TFLite's
    QuantizationDebugger. Default:
    $QDEBUG_SOURCE, else `source` in [tool.qdebug], else the only .npz file here.""".strip()


def resolve(
    sources: Sequence[str], options: Options, config: "Config | None" = None
) -> tuple[list[str], Options]:
    """The sources to read, as given or by default, and how to read them.

    If they are live models, the command goes on `apart`.

    Raises:
        QdebugError: none is given, and there is no default or more than one; or an option does not
            apply to the sources.
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
    apart(names)
    return names, options


def read(names: Sequence[str], options: Options, patterns: Sequence[str] = ()) -> api.Report:
    """The report of a source, new or saved; with `patterns`, of the layers that match."""
    start = time.perf_counter()
    with _workers(options) as workers, progress() as advance:
        report = api.read(names, options, patterns, workers, advance)
    context = click.get_current_context(silent=True)
    if context is not None and context.obj == "verbose":
        took = time.perf_counter() - start
        what = f"{len(report.layers)} layers, {report.num_elements:,} elements"
        files = ", ".join(map(printable, report.sources))
        click.echo(f"Read {files}: {what} in {took:.2f} s", err=True)
    return report


@contextmanager
def session_on(names: Sequence[str], options: Options) -> Iterator[Session]:
    """A source, opened, with the workers that read it."""
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
    """Print notes and complaints to stderr; complaints end the command with status 2."""
    for note in notes if ctx.obj != "quiet" else ():
        click.echo(f"Note: {printable(note)}", err=True)
    for complaint in complaints:
        click.echo(f"Error: {printable(complaint)}", err=True)
    if complaints:
        ctx.exit(2)
