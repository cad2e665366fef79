"""``qdebug explain``: one layer on one screen, and what other quantizations would give."""

import json
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from qdebug.advise.whatif import WhatIf, predict
from qdebug.cli import options
from qdebug.cli.reading import SOURCE_HELP, Reading, complain, is_saved, resolve
from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, Piece, Source
from qdebug.names import find
from qdebug.output import whole_file
from qdebug.render.explain import explained, explained_json
from qdebug.report.report import LayerReport, Report
from qdebug.run import engine

_PIPED_WIDTH = 80
_LEAST_WIDTH = 60


@click.command(
    "explain",
    help=f"""Explain LAYER: its figures and what is normal, the cause, what would help.

    LAYER is a name, a glob, or a part of one name only. The table at the end shows what other ways
    to quantize the same floats would give: each is tried on all of them. It needs the tensors; of a
    saved report the rest is shown.

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
@options.output_option("Write to FILE; - is the terminal. JSON where it ends in .json.")
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    layers: tuple[str, ...],
    sources: tuple[str, ...],
    form: str | None,
    output: Path | None,
    reading: Reading,
) -> None:
    """Find the layers, explain one after another."""
    if str(output) == "-":
        output = None
    if form is None:
        form = "json" if output and output.suffix.lower() == ".json" else "text"
    named = resolve(sources)
    what_ifs: list[WhatIf | None]
    if is_saved(named):
        report = reading.report(named)
        found = _chosen([layer.name for layer in report.layers], layers)
        by_name = {layer.name: layer for layer in report.layers}
        report = replace(report, layers=[by_name[name] for name in found])
        what_ifs = [None] * len(found)
    else:
        report, what_ifs = _explore(reading.source(named), layers)
    if form == "json":
        values = explained_json(report, what_ifs)
        text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    else:
        width = _PIPED_WIDTH
        if output is None and sys.stdout.isatty():
            width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
        readable = [
            explained(layer, what_if, width)
            for layer, what_if in zip(report.layers, what_ifs, strict=True)
            if layer.metrics is not None
        ]
        text = ("\n" + "=" * width + "\n\n").join(readable)
    if output is None:
        click.echo(text, nl=False)
    else:
        with whole_file(output) as file:
            file.write(text.encode())
    complain(ctx, report.notes, report.complaints)


def _chosen(known: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The layers that the patterns mean, each once."""
    names = [name for pattern in patterns for name in find(known, pattern, part=True)]
    return list(dict.fromkeys(names))


def _explore(source: Source, patterns: Sequence[str]) -> tuple[Report, list[WhatIf | None]]:
    """The report of the layers meant, and what else each could be."""
    by_name = {layer.name: layer for layer in source.layers}
    names = _chosen(list(by_name), patterns)
    report, broken = engine.explore(source, names)
    reports = {layer.name: layer for layer in report.layers}
    problems = list(report.problems)
    what_ifs = []
    for name in names:
        try:
            what_ifs.append(_what_if(source, by_name[name], reports[name], broken))
        except QdebugError as error:
            problems.append(str(error))
            what_ifs.append(None)
    chosen = [reports[name] for name in names]
    return replace(report, layers=chosen, problems=problems), what_ifs


def _what_if(
    source: Source, layer: object, report: LayerReport, broken: Collection[Piece]
) -> WhatIf | None:
    """None where the layer cannot be read."""
    if not isinstance(layer, Layer) or report.metrics is None:
        return None
    return predict(layer, report, partial(engine.layer_blocks, source, without=broken))
