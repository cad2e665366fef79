"""``qdebug diff``: what changed from one report to another."""

from dataclasses import replace
from pathlib import Path

import click

from qdebug.cli import options
from qdebug.cli.apart import apart
from qdebug.cli.reading import complain, read
from qdebug.errors import QdebugError
from qdebug.names import printable
from qdebug.output import check_writable, whole_file
from qdebug.render import comparison as render
from qdebug.report.comparison import Comparison, compare, comparison_json
from qdebug.report.limits import parse_growth
from qdebug.report.report import Report
from qdebug.sources.open import Options, is_live, is_saved, is_weights

_BY_ENDING = {".md": "markdown", ".json": "json", ".html": "html"}


@click.command(
    "diff",
    help="""Show what changed from OLD to NEW, the worst layer first.

    OLD and NEW are each a saved report (.json), a pair file or a glob of them, the CSV of TFLite's
    QuantizationDebugger, or a float and a quantized model joined by a comma, with --inputs.

    A layer got worse if its rmse/scale, or its error relative to the signal, grew by more than
    --max-regression and by more than chance: three standard errors.

    \b
    Examples:
      qdebug diff old.json new.json
      qdebug diff base.json pairs.npz --fail-on-regression --max-regression 5%
      qdebug diff float.tflite,old.tflite float.tflite,new.tflite --inputs data.npz -o diff.html
    """,
)
@click.argument("old")
@click.argument("new")
@click.option(
    "--format",
    "form",
    type=click.Choice(render.FORMS),
    help="Default: by the ending of FILE, else table.",
)
@options.output_option("Write to FILE; - is standard output.")
@click.option("--all", "everything", is_flag=True, help="Also show layers that did not change.")
@options.regression_options
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit status 1 if a layer got worse, has vanished or is new.",
)
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    old: str,
    new: str,
    form: str | None,
    output: Path | None,
    everything: bool,
    max_regression: str | None,
    allowed: tuple[str, ...],
    fail_on_regression: bool,
    reading: Options,
) -> None:
    """Read both, compare, show."""
    if str(output) == "-":
        output = None
    if output is not None:
        check_writable(output)
    form = form or (_BY_ENDING.get(output.suffix.lower()) if output else None) or "table"
    limit = parse_growth(max_regression)
    apart([*old.split(","), *new.split(",")])
    before, after = report_at(old, reading), report_at(new, reading)
    found = compare(before, after, limit)
    text = _text(found, form, everything)
    if output is None:
        click.echo(text, nl=False)
    else:
        with whole_file(output) as file:
            file.write(click.unstyle(text).encode())
    complain(ctx, (), [*before.complaints, *after.complaints])
    if fail_on_regression and found.regressions(allowed):  # type: ignore[arg-type]
        ctx.exit(1)


def report_at(name: str, reading: Options) -> Report:
    """The report of one name; two models, or two weight files, are joined by a comma.

    Raises:
        QdebugError: it cannot be read, or holds no layer.
    """
    parts = name.split(",")
    two = len(parts) == 2 and (all(map(_is_model, parts)) or all(map(_is_weight_file, parts)))
    names = parts if two else [name]
    if is_saved(names):
        reading = Options()
    elif is_live(names):
        reading = replace(reading, keys=None, scheduler=None)
    else:
        reading = Options(keys=reading.keys, jobs=reading.jobs, scheduler=reading.scheduler)
    report = read(names, reading)
    if not report.layers:
        raise QdebugError(f"{printable(name)}: found no layer, expected a report with figures")
    return report


def _is_model(name: str) -> bool:
    return is_live([name])


def _is_weight_file(name: str) -> bool:
    return is_weights([name])


def _text(found: Comparison, form: str, everything: bool) -> str:
    if form == "json":
        import json

        values = comparison_json(found)
        return json.dumps(values, indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    if form == "markdown":
        return render.markdown(found, everything=everything)
    if form == "html":
        return render.html(found)
    return render.table(found, everything=everything)
