"""``qdebug report``: the table of all layers, for people, scripts and pull requests."""

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from qdebug import api
from qdebug.cli import options
from qdebug.cli.progress import progress
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve
from qdebug.names import printable
from qdebug.output import check_writable, whole_file
from qdebug.render.columns import View, arranged
from qdebug.render.forms import FORMS, check_form, pieces
from qdebug.results import Report
from qdebug.sources.open import Options, check_board

_BY_ENDING = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html"}
_PAGES = ("html", "model-explorer")  # of the whole report, beside those of `forms`
_WHOLE = ("json", "tflite-csv", *_PAGES)  # these always have all they have
_HISTOGRAMS = 50


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
      qdebug report model-f16.gguf model-Q4_K_M.gguf
      qdebug report Model-1B/ Model-1B-GPTQ/
      qdebug report 's3://bucket/run/*.npz' --scheduler tcp://host:8786
      qdebug report model.npz -o report.json
      qdebug report model.npz -o report.html
      qdebug report float.tflite int8.tflite --inputs data.npz --format model-explorer -o nodes.json
    """,
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--format",
    "form",
    type=click.Choice([*FORMS, *_PAGES]),
    help="Default: by the ending of FILE, else table.",
)
@options.output_option("Write to FILE; - is standard output.")
@options.layer_option
@click.option("--sort", metavar="COLUMN", help="Sort by a column, worst first.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N layers.")
@click.option("--columns", "names", metavar="A,B", help="Only these columns, in this order.")
@click.option("--per-channel", is_flag=True, help="One row per channel, for layers with channels.")
@click.option("--wide", is_flag=True, help="Full names and all columns on any terminal.")
@click.option(
    "--histograms",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"With html: histograms of the N worst layers. Default: {_HISTOGRAMS}.",
)
@click.option(
    "--metric",
    metavar="FIGURE",
    help="With model-explorer: the figure of each node. Default: rmse_scale_ratio.",
)
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
    histograms: int | None,
    metric: str | None,
    measure: bool,
    time_limit: float | None,
    reading: Options,
) -> None:
    """Read the source, arrange it, render it."""
    if str(output) == "-":
        output = None
    form = form or (_BY_ENDING.get(output.suffix.lower()) if output else None) or "table"
    if histograms is not None and form != "html":
        raise click.UsageError("--histograms goes with html")
    if metric is not None:
        if form != "model-explorer":
            raise click.UsageError("--metric goes with model-explorer")
        from qdebug.render.model_explorer import check_metric

        check_metric(metric)
    if form in _WHOLE and (names or per_channel):
        raise click.UsageError(f"--columns and --per-channel cannot be used with {form}")
    chosen = None if names is None else [name.strip() for name in names.split(",")]
    view = View(chosen, per_channel, sort, top)
    check_form("table" if form in _PAGES else form, view)
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
    written: Iterable[str]
    if form == "model-explorer":
        from qdebug.render.model_explorer import DEFAULT_METRIC, node_data

        written = [node_data(arranged(found, view), metric or DEFAULT_METRIC)]
    elif form == "html":
        by_name = {layer.name: layer for layer in found}
        layers = [by_name[layer.name] for layer in arranged(found, view).layers]
        found = replace(found, layers=layers)
        pictures = _HISTOGRAMS if histograms is None else histograms
        written = [found.to_html(histograms=pictures)]
    else:
        fitted = output is None and sys.stdout.isatty() and not wide
        width = shutil.get_terminal_size().columns if fitted else None
        written = pieces(found, form, view, width)
    if output is None:
        for text in written:
            click.echo(text, nl=False)
        if form == "table" and ctx.obj != "quiet":
            click.echo(_next(found, named, reading))
    else:
        with whole_file(output) as file:
            for text in written:
                file.write(click.unstyle(text).encode())
    complain(ctx, found.notes, found.complaints)


def _next(report: Report, named: Sequence[str], reading: Options) -> str:
    """The one command to run next: explain the worst layer, or check that all stays well."""
    source = [shlex.quote(name) for name in named]
    inputs = [f"--inputs {shlex.quote(str(reading.inputs))}"] if reading.inputs else []
    faulty = [layer for layer in report if layer.diagnosis and layer.diagnosis.verdict != "ok"]
    worst = max(faulty, key=lambda layer: layer.badness, default=None)
    if worst is None:
        return " ".join(["next: qdebug check", *source, *inputs])
    from_source = [f"-m {name}" for name in source]
    return " ".join(
        ["next: qdebug explain", shlex.quote(printable(worst.name)), *from_source, *inputs]
    )
