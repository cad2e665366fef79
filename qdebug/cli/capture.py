"""``qdebug capture``: a live pair of models, saved as a pair file."""

import shutil
from pathlib import Path

import click

from qdebug.cli import options
from qdebug.cli.progress import progress
from qdebug.cli.reading import Reading, complain
from qdebug.errors import QdebugError
from qdebug.measure.layer import Layer, UnreadableLayer
from qdebug.names import printable, select
from qdebug.output import whole_file
from qdebug.run import engine
from qdebug.sources.pair_file.write import capture, size_of


@click.command(
    "capture",
    help="""Run two models and save their tensors, float and quantized, as a pair file.

    MODELS are a float and a quantized model (.tflite or .onnx), or one .tflite in TFLite's debug
    mode. The pair file then is a SOURCE of its own: it needs neither the models nor a runtime.

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
    reading: Reading,
) -> None:
    """Open the models, say how large it will be, write."""
    source = reading.models(models)
    names = select([layer.name for layer in source.layers], patterns)
    layers = [layer for layer in source.layers if isinstance(layer, Layer) and layer.name in names]
    shown = printable(str(output))
    size = size_of(source, layers)
    try:
        free = shutil.disk_usage(output.resolve().parent).free
    except OSError as error:
        raise QdebugError(f"{shown}: cannot be written: {error.strerror}") from None
    click.echo(f"{shown}: {len(layers)} layers, at most {size / 1e6:.1f} MB", err=True)
    if 2 * size > free:  # collected first, then written
        raise QdebugError(
            f"{shown}: found {free / 1e6:.1f} MB free, expected twice the size of the file"
        )
    with whole_file(output) as file, progress() as advance:
        folder = output.resolve().parent
        capture(source, layers, file, folder, packed=compress, advance=advance)
    unreadable = [
        layer.reason
        for layer in source.layers
        if isinstance(layer, UnreadableLayer) and layer.name in names
    ]
    complain(ctx, engine.notes_of(source), unreadable)
