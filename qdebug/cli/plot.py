"""``qdebug plot``: pictures of layers, as PNG."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure

from qdebug.cli import options
from qdebug.cli.reading import SOURCE_HELP, Reading, complain, resolve
from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.names import file_stem, find, printable
from qdebug.output import whole_file
from qdebug.render import plots
from qdebug.run import engine


@click.command(
    "plot",
    help=f"""Draw LAYER: its floats and codes over each other, and its error in steps.

    LAYER is a name, a glob, or a part of one name only. One PNG is written for each layer, named
    after it, and its path is printed. --overview draws rmse/scale of all layers in one picture.

    {SOURCE_HELP}

    \b
    Examples:
      qdebug plot conv1 -m model.npz
      qdebug plot '*Relu*' -m model.npz -o pictures/
      qdebug plot --overview -m model.npz -o overview.png
    """,
)
@click.argument("layers", nargs=-1, metavar="LAYER...")
@options.source_option
@options.output_option("Write to FILE or, for several layers, into this directory.")
@click.option("--all", "everything", is_flag=True, help="All layers.")
@click.option("--overview", is_flag=True, help="One picture of all layers' rmse/scale.")
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    layers: tuple[str, ...],
    sources: tuple[str, ...],
    output: Path | None,
    everything: bool,
    overview: bool,
    reading: Reading,
) -> None:
    """Find the layers, draw each, print where it went."""
    if [bool(layers), everything, overview].count(True) != 1:
        raise click.UsageError("expected one of LAYER..., --all and --overview")
    named = resolve(sources)
    if overview:
        whole = reading.report(named)
        (path,) = _paths(["overview"], output)
        _save(plots.overview_figure(whole), path)
        complain(ctx, whole.notes, whole.complaints)
        return
    source = reading.source(named)
    chosen = _chosen(source.layers, layers)
    paths = _paths([layer.name for layer in chosen], output)
    complaints = list(source.problems)
    for layer, path in zip(chosen, paths, strict=True):
        try:
            if isinstance(layer, UnreadableLayer):
                raise QdebugError(layer.reason)
            found, broken = engine.explore(source, [layer.name])
            complaints += found.complaints
            (report,) = found.layers
            if not report.unreadable:
                blocks = engine.layer_blocks(source, layer, broken)
                _save(plots.layer_figure(layer, report, blocks), path)
        except QdebugError as error:
            complaints.append(str(error))
    complain(ctx, engine.notes_of(source), list(dict.fromkeys(complaints)))


def _chosen(
    known: Sequence[Layer | UnreadableLayer], patterns: Sequence[str]
) -> list[Layer | UnreadableLayer]:
    """The layers that the patterns mean, all where there is none."""
    if not patterns:
        return list(known)
    by_name = {layer.name: layer for layer in known}
    names = [name for pattern in patterns for name in find(by_name, pattern, part=True)]
    return [by_name[name] for name in dict.fromkeys(names)]


def _paths(names: Sequence[str], output: Path | None) -> list[Path]:
    """Where the pictures go: into a directory, each under its layer's name, or to one file."""
    if output is not None and output.suffix and not output.is_dir():
        if output.suffix.lower() != ".png":
            raise QdebugError(f"-o: found {printable(str(output))}, expected .png or a directory")
        if len(names) > 1:
            raise QdebugError(
                f"-o: found the file {printable(str(output))} for {len(names)} pictures, expected "
                "a directory"
            )
        return [output]
    directory = output or Path()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QdebugError(f"{printable(str(directory))}: {error.strerror}") from None
    used: Counter[str] = Counter()
    paths = []
    for name in names:
        stem = file_stem(name)
        used[stem.lower()] += 1  # some file systems do not tell capitals
        number = used[stem.lower()]
        paths.append(directory / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png"))
    return paths


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as file:
        plots.save_png(figure, file)
    click.echo(printable(str(path)))
