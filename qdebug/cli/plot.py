"""``qdebug plot``: pictures of layers, as PNG, SVG or PDF."""

from collections.abc import Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure

from qdebug.cli import options
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve, session_on
from qdebug.errors import QdebugError
from qdebug.names import file_stems, find_all, printable
from qdebug.output import check_writable, whole_file
from qdebug.render import plots
from qdebug.sources.open import Options


@click.command(
    "plot",
    help=f"""Draw LAYER: its float and quantized distributions overlaid, and its error in steps.

    LAYER is a name, a glob, or a part of exactly one name. Each layer gets a PNG named after it;
    the PNG's path is printed. --overview draws rmse/scale of all layers in one picture, the error
    accumulated up to each layer beside its own. The ending of FILE may also be .svg or .pdf.

    {SOURCE_HELP}

    \b
    Examples:
      qdebug plot conv1 -m model.npz
      qdebug plot '*Relu*' -m model.npz -o pictures/
      qdebug plot conv1 --what channels -m model.npz -o conv1.svg
      qdebug plot --overview -m model.npz -o overview.png
    """,
)
@click.argument("layers", nargs=-1, metavar="LAYER...")
@options.source_option
@options.output_option("Write to FILE or, for several layers, into this directory.")
@click.option("--all", "everything", is_flag=True, help="Draw all layers.")
@click.option("--overview", is_flag=True, help="Draw rmse/scale of all layers in one picture.")
@click.option(
    "--what",
    type=click.Choice(plots.WHATS),
    default="all",
    help="Only the distributions (values), the error, or rmse/scale by channel. Default: all.",
)
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
    what: plots.What,
    reading: Options,
) -> None:
    """Find the layers, draw each, print the pictures' paths."""
    if [bool(layers), everything, overview].count(True) != 1:
        raise click.UsageError("expected exactly one of LAYER..., --all or --overview")
    if overview and what != "all":
        raise click.UsageError("--what goes with LAYER... or --all")
    named, reading = resolve(sources, reading)
    if overview:
        (path,) = _paths(["overview"], output)
        whole = read(named, reading)
        _save(plots.overview_figure(whole), path)
        complain(ctx, whole.notes, whole.complaints)
        return
    with session_on(named, reading) as session:
        known = [layer.name for layer in session.source.layers]
        names = known if everything else find_all(known, layers)
        paths = dict(zip(names, _paths(names, output), strict=True))
        report = session.report(names)
        found = session.distributions(report)
    complaints = list(report.complaints)
    for layer in report.layers:
        if layer.name in found:
            try:
                figure = plots.layer_figure(layer, found[layer.name], what)
            except QdebugError as error:  # it has no channels
                complaints += [str(error)] * (not everything)
                continue
            _save(figure, paths[layer.name])
        elif layer.metrics is not None:
            complaints += session.reasons(layer.name) or [plots.nothing_to_draw(layer)]
    complain(ctx, report.notes, list(dict.fromkeys(complaints)))


def _paths(names: Sequence[str], output: Path | None) -> list[Path]:
    """The pictures' paths: in a directory, each named after its layer, or a single file."""
    if output is not None and output.suffix and not output.is_dir():
        if output.suffix.lower() not in plots.ENDINGS:
            expected = f"{', '.join(plots.ENDINGS)} or a directory"
            raise QdebugError(f"-o: found {printable(str(output))}, expected {expected}")
        if len(names) > 1:
            raise QdebugError(
                f"-o: found the file {printable(str(output))} for {len(names)} pictures, expected "
                "a directory"
            )
        check_writable(output)
        return [output]
    directory = output or Path()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        expected = f"a directory, or a name that ends in {', '.join(plots.ENDINGS)}"
        raise QdebugError(
            f"-o: found the file {printable(str(directory))}, expected {expected}"
        ) from None
    except OSError as error:
        raise QdebugError(f"{printable(str(directory))}: {error.strerror}") from None
    paths = [directory / f"{stem}.png" for stem in file_stems(names)]
    for path in paths[:1]:
        check_writable(path)
    return paths


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as file:
        plots.save(figure, file, path.suffix.lower())
    click.echo(printable(str(path)))
