"""``qdebug report``: the table of all layers, for people, scripts and pull requests."""

import os
import shutil
import sys
from pathlib import Path

import click

from qdebug import api
from qdebug.cli import options
from qdebug.cli.progress import progress
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve
from qdebug.output import check_writable, whole_file
from qdebug.render.columns import View
from qdebug.render.forms import FORMS, check_form, pieces
from qdebug.sources.open import Options, check_board

_BY_ENDING = {".md": "markdown", ".csv": "csv", ".json": "json"}


@click.command(
    "report",
    help=f"""Show every layer's quantization error.

    {SOURCE_HELP}

    Rounding alone gives an rmse/scale of 0.289, or less where floats are exact zeros. "times
    expected" is the layer's rmse/scale divided by that value. [s] means steps of the layer's own
    scale. --columns and --sort take the names of figures in the JSON report.

    \b
    Examples:
      qdebug report model.npz
      qdebug report 'shards/*.npz' --sort rmse_scale_ratio --top 10
      qdebug report model.npz --layer '*Relu*' --columns layer,rmse_scale,carried_rmse_scale
      qdebug report float.tflite int8.tflite --inputs data.npz
      qdebug report float.onnx int8.onnx --inputs data.npz --measure --sort gain_db
      qdebug report 's3://bucket/run/*.npz' --scheduler tcp://host:8786
      qdebug report model.npz -o report.json
    """,
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="Default: by the ending of FILE, else table.",
)
@options.output_option("Write to FILE; - is standard output.")
@options.layer_option
@click.option("--sort", metavar="COLUMN", help="Sort by a column, worst first.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N layers.")
@click.option("--columns", "names", metavar="A,B", help="Only these columns, in this order.")
@click.option("--per-channel", is_flag=True, help="One row per channel, for layers with channels.")
@click.option("--wide", is_flag=True, help="Full names and all columns on any terminal.")
@options.measure_options(
    "Also run the models with each operator in float, and with each one quantized alone. Shows the "
    "effect on the SQNR of the outputs (gain_db, alone_db)."
)
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    sources: tuple[str, ...],
    form: str | None,
    output: Path | None,
    patterns: tuple[str, ...],
    sort: str | None,
    top: int | None,
    names: str | None,
    per_channel: bool,
    wide: bool,
    measure: bool,
    time_limit: float | None,
    reading: Options,
) -> None:
    """Read the source, arrange it, render it."""
    if str(output) == "-":
        output = None
    form = form or (_BY_ENDING.get(output.suffix.lower()) if output else None) or "table"
    if form in ("json", "tflite-csv") and (names or per_channel):
        raise click.UsageError(f"--columns and --per-channel cannot be used with {form}")
    chosen = None if names is None else [name.strip() for name in names.split(",")]
    view = View(chosen, per_channel, sort, top)
    check_form(form, view)
    if output is not None:
        check_writable(output)
    if time_limit is not None and not measure:
        raise click.UsageError("--time-limit goes with --measure")
    named, reading = resolve(sources, reading)
    if measure:
        check_board(named, reading)
    found = read(named, reading, patterns)
    if measure:
        with progress() as advance:
            found = api.with_measured(found, named, reading, time_limit, advance)
    fitted = output is None and sys.stdout.isatty() and not wide
    width = shutil.get_terminal_size().columns if fitted else None
    written = pieces(found, form, view, width)
    if output is None:
        for text in written:
            click.echo(text, nl=False, color=False if os.environ.get("NO_COLOR") else None)
    else:
        with whole_file(output) as file:
            for text in written:
                file.write(click.unstyle(text).encode())
    complain(ctx, found.notes, found.complaints)
