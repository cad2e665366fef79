"""``qdebug capture``: a live pair of models, saved as a pair file."""

from pathlib import Path

import click

from qdebug.cli import options
from qdebug.cli.apart import apart
from qdebug.cli.progress import progress
from qdebug.cli.reading import complain
from qdebug.measure.layer import is_affine
from qdebug.names import printable, select
from qdebug.output import check_writable
from qdebug.run.session import notes_of
from qdebug.sources.open import Options, open_models
from qdebug.sources.pair_file.write import capture, not_storable, size_of


@click.command(
    "capture",
    help="""Run two models and save their tensors, float and quantized, as a pair file.

    MODELS are a float and a quantized model (.tflite or .onnx), or one .tflite in TFLite's debug
    mode. The pair file is then a SOURCE by itself: it needs neither the models nor a runtime.

    \b
    Examples:
      qdebug capture float.tflite int8.tflite --inputs data.npz -o pairs.npz
      qdebug capture float.onnx int8.onnx --inputs data.npz -o conv1.npz --layer '*conv1*'
    """,
)
@click.argument("models", nargs=-1, required=True)
@options.output_option("The pair file to write.", required=True)
@options.layer_option
@click.option("--compress", is_flag=True, help="Deflate the file: smaller, but slower to read.")
@options.model_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    output: Path,
    patterns: tuple[str, ...],
    compress: bool,
    reading: Options,
) -> None:
    """Open the models, report how large the file will be, write it."""
    check_writable(output)
    apart(models)
    source = open_models(models, reading)
    names = select([layer.name for layer in source.layers], patterns)
    layers = [layer for layer in source.layers if is_affine(layer) and layer.name in names]
    size = size_of(source, layers) / 1e6
    count = f"{len(layers)} layer{'s' * (len(layers) != 1)}"
    click.echo(f"{printable(str(output))}: {count}, at most {size:.1f} MB", err=True)
    with progress() as advance:
        problems = capture(source, names, output, packed=compress, advance=advance)
    complain(ctx, [*notes_of(source), *not_storable(source, names)], problems)
