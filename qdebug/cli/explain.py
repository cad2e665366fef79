"""``qdebug explain``: one layer on one screen, and what other quantizations would give."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from qdebug.advise.whatif import WhatIf, explore
from qdebug.cli import options
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve, session_on
from qdebug.names import find_all
from qdebug.output import check_writable, whole_file
from qdebug.render.explain import explained, explained_json
from qdebug.report.report import Report
from qdebug.sources.open import Options, is_saved

_PIPED_WIDTH = 80
_LEAST_WIDTH = 60


@click.command(
    "explain",
    help=f"""Explain LAYER: its figures beside the normal values, the cause, what would help.

    LAYER is a name, a glob, or a part of exactly one name. The table at the end shows what other
    ways to quantize the same floats would give; each is tried on all of the floats. It needs the
    tensors, so a saved report is explained without it.

    {SOURCE_HELP}

    \b
    Examples:
      qdebug explain conv1 -m model.npz
      qdebug explain '*Relu*' -m model.npz --format json -o relu.json
    """,
)
@click.argument("layers", nargs=-1, required=True, metavar="LAYER...")
@options.source_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), help="Default: text.")
@options.output_option("Write to FILE; - is standard output. JSON if FILE ends in .json.")
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    layers: tuple[str, ...],
    sources: tuple[str, ...],
    form: str | None,
    output: Path | None,
    reading: Options,
) -> None:
    """Find the layers and explain each."""
    if str(output) == "-":
        output = None
    if output is not None:
        check_writable(output)
    if form is None:
        form = "json" if output and output.suffix.lower() == ".json" else "text"
    named, reading = resolve(sources, reading)
    what_ifs: dict[str, WhatIf] = {}
    report: Report
    if is_saved(named):
        report = read(named, reading)
        names = find_all([layer.name for layer in report.layers], layers)
    else:
        with session_on(named, reading) as session:
            names = find_all([layer.name for layer in session.source.layers], layers)
            report, what_ifs = explore(session, names)
    by_name = {layer.name: layer for layer in report.layers}
    report = replace(report, layers=[by_name[name] for name in names])
    if form == "json":
        values = explained_json(report, what_ifs)
        text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    else:
        width = _PIPED_WIDTH
        if output is None and sys.stdout.isatty():
            width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
        readable = [
            explained(layer, what_ifs.get(layer.name), width)
            for layer in report.layers
            if layer.metrics is not None
        ]
        text = ("\n" + "=" * width + "\n\n").join(readable)
    if output is None:
        click.echo(text, nl=False)
    else:
        with whole_file(output) as file:
            file.write(text.encode())
    complain(ctx, report.notes, report.complaints)
