"""``qdebug replay``: a quantized model's codes, computed once more in integers."""

import json
from pathlib import Path

import click

from qdebug import api
from qdebug.cli import options
from qdebug.cli.apart import apart
from qdebug.cli.progress import progress
from qdebug.cli.reading import complain
from qdebug.output import check_writable, whole_file
from qdebug.render.replay import replay_text
from qdebug.render.replay_rows import replay_csv, replay_markdown
from qdebug.report.replay import Replay, replay_json
from qdebug.sources.open import Options

FORMS = ("table", "markdown", "csv", "json")
_BY_ENDING = {".json": "json", ".csv": "csv", ".md": "markdown"}


@click.command(
    "replay",
    help="""Compute a quantized model's codes again, and compare: is it the kernel?

    Each operator of MODEL, a quantized .tflite, is computed from its recorded input codes in the
    integer arithmetic of TensorFlow Lite's specification. Its output codes are then those that the
    runtime, or a device (--outputs), computed; where they are not, a known fault is looked for.

    The exit status is 1 if a code differs by more than --tolerance under the rounding that fits
    its operator best.

    \b
    Examples:
      qdebug replay int8.tflite --inputs data.npz
      qdebug replay int8.tflite --inputs data.npz --outputs device.npz --tolerance 1
    """,
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--outputs",
    metavar="FILE",
    help="Compare with the codes of a device: .npz, one array per tensor, by its name in the "
    "model, samples along the first axis. Tensors may be missing. Without --inputs, only "
    "operators whose inputs are there are replayed.",
)
@click.option(
    "--tolerance",
    type=click.IntRange(min=0),
    default=0,
    metavar="STEPS",
    help="Steps by which a code may differ. Default: 0.",
)
@click.option("--format", "form", type=click.Choice(FORMS), help="Default: table.")
@options.output_option(
    "Write to FILE; - is standard output. The format follows a suffix .json, .csv or .md."
)
@options.model_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    outputs: str | None,
    tolerance: int,
    form: str | None,
    output: Path | None,
    reading: Options,
) -> None:
    """Replay, show what was found, and end with the status."""
    if str(output) == "-":
        output = None
    if output is not None:
        check_writable(output)
    if form is None:
        form = _BY_ENDING.get(output.suffix.lower(), "table") if output else "table"
    apart([model])
    with progress() as advance:
        found = api.replayed(model, outputs, reading, tolerance, advance)
    text = _written(found, form, tolerance)
    if output is None:
        click.echo(text, nl=False)
    else:
        with whole_file(output) as file:
            file.write(click.unstyle(text).encode())
    complain(ctx, found.notes, ())
    if found.failing(tolerance):
        ctx.exit(1)


def _written(replay: Replay, form: str, tolerance: int) -> str:
    """The replay in one of `FORMS`."""
    if form == "json":
        values = replay_json(replay, tolerance)
        return json.dumps(values, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    if form == "csv":
        return replay_csv(replay)
    if form == "markdown":
        return replay_markdown(replay)
    return replay_text(replay, tolerance)
