"""``qdebug suggest``: the layers to leave in float, in the form a converter takes."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from qdebug import api
from qdebug.advise.suggest import DEFAULT_BUDGET, Suggestion, chosen, suggestions
from qdebug.advise.switchboard import Limits
from qdebug.cli import options
from qdebug.cli.progress import progress
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve
from qdebug.errors import QdebugError
from qdebug.measure.outputs import OutputMetrics
from qdebug.measure.requantized import Requantized
from qdebug.names import printable, shown
from qdebug.output import check_writable, whole_file
from qdebug.render.suggestions import FORMS, check_form, table, written
from qdebug.report.limits import parse_decibels, parse_share
from qdebug.sources.open import Options, check_board, is_live


@click.command(
    "suggest",
    help=f"""Suggest the layers to leave in float, or in 16 bits, worst first.

    {SOURCE_HELP}

    "share" is what an operator adds to the model's error. "removes" is the part of it that goes
    away if only this operator is left in float: the error of its weights and its arithmetic. The
    rounding of its output stays, because the next operator rounds it again. Operators are named
    after the tensors they produce. docs/selective.md shows how well this predicts the actual gain.

    --measure does not predict. It runs the models with operators in float, alone and together, by
    the converter's own rules. It shows what each step gains at the model's outputs, in dB of SQNR,
    with its standard error over the samples.

    \b
    Examples:
      qdebug suggest float.tflite int8.tflite --inputs data.npz
      qdebug suggest report.json --for ai-edge-quantizer --top 3 -o recipe.json
      qdebug suggest report.json --for tflite --budget 80%
      qdebug suggest float.onnx int8.onnx --inputs data.npz --for onnxruntime
      qdebug suggest float.onnx int8.onnx --inputs data.npz --top 5 --apply mixed.onnx
      qdebug suggest float.onnx int8.onnx --inputs data.npz --measure --top 5
      qdebug suggest float.onnx int8.onnx --inputs data.npz --measure --target 20dB
    """,
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--for",
    "form",
    type=click.Choice(["table", *FORMS]),
    default="table",
    show_default=True,
    help="Output for people (table); scripts (names, one per line); TFLite's "
    "QuantizationDebugOptions(denylisted_nodes=...); ai-edge-quantizer (a recipe); ONNX Runtime's "
    "quantize_static(nodes_to_exclude=...).",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the N worst.")
@click.option(
    "--budget",
    metavar="SHARE",
    help="Only the fewest operators that remove this share (0.8 or 80%) of what all suggested "
    "ones remove; with --measure, of the error at the outputs. Default without --top: 80%.",
)
@options.measure_options("Run the models with operators in float and suggest those that gain most.")
@click.option(
    "--target",
    metavar="DB",
    help="With --measure: only the fewest operators that bring the outputs to this SQNR (20dB).",
)
@options.output_option("Write to FILE; - is standard output.")
@click.option(
    "--apply",
    "new_model",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Quantize the model again with these operators in float, with ONNX Runtime or "
    "ai-edge-quantizer, and write it to OUT. Needs two models and --inputs.",
)
@click.option(
    "--calibration",
    type=click.Path(),
    metavar="FILE",
    help="Samples (.npz or .npy) that --apply takes ranges from. Default: those of --inputs.",
)
@click.option("--wide", is_flag=True, help="Full names on any terminal.")
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    sources: tuple[str, ...],
    form: str,
    top: int | None,
    budget: str | None,
    measure: bool,
    time_limit: float | None,
    target: str | None,
    output: Path | None,
    new_model: Path | None,
    calibration: str | None,
    wide: bool,
    reading: Options,
) -> None:
    """Read the source, rank its operators, write those to leave in float."""
    if not measure and (target is not None or time_limit is not None):
        raise click.UsageError(f"--{'target' if target else 'time-limit'} goes with --measure")
    share = DEFAULT_BUDGET if top is None and target is None else None
    if budget is not None:
        share = parse_share(budget, "--budget")
    level = None if target is None else parse_decibels(target, "--target")
    to_file = output is not None and str(output) != "-"
    if to_file:
        assert output is not None
        check_writable(output)
    named, reading = resolve(sources, reading)
    _check_apply(named, reading, new_model, calibration)
    if measure:
        check_board(named, reading)
    if form != "table":
        check_form(form, named)
    fitted = not to_file and sys.stdout.isatty() and not wide
    width = shutil.get_terminal_size().columns if fitted else None
    if measure:
        limits = Limits(top, share, level)
        apply = new_model is not None
        found = _measured(named, reading, form, limits, time_limit, width, apply=apply)
    else:
        found = _predicted(named, reading, form, top, share, width)
    if to_file:
        assert output is not None
        with whole_file(output) as file:
            file.write(found.text.encode())
    else:
        click.echo(found.text, nl=False)
    if new_model is not None:
        assert found.report is not None
        made = found.report._apply(new_model, found.kept, calibration)
        gain = _gain(made, new_model, len(found.kept))
        click.echo(gain, err=form != "table" and not to_file)
    complain(ctx, found.notes, [] if found.report is None else found.report.complaints)


@dataclass(frozen=True)
class _Result:
    """The text to write, the notes, the suggestions, and the report that they are for."""

    text: str
    notes: list[str]
    kept: Sequence[Suggestion]
    report: api.Report | None


def _predicted(
    names: Sequence[str],
    reading: Options,
    form: str,
    top: int | None,
    share: float | None,
    width: int | None,
) -> _Result:
    report = read(names, reading)
    found = suggestions(report)
    kept = chosen(found.candidates, top=top, budget=share)
    text = table(found, kept, width) if form == "table" else written(form, report, kept)
    notes = list(report.notes)
    if found.untold:
        missing = ", ".join(f"'{shown(name)}'" for name in found.untold[:3])
        more = ", ..." if len(found.untold) > 3 else ""
        count = f"{len(found.untold)} layer{'s' * (len(found.untold) != 1)}"
        notes.append(f"{count} cannot be ranked, because figures are missing: {missing}{more}")
    if not found.candidates:
        notes.append("no operator adds more than the rounding of its output: nothing to suggest")
    if is_live(names) and reading.inputs is not None:
        notes.append("these are predictions; --measure runs the models instead")
    return _Result(text, notes, kept, report)


def _measured(
    names: Sequence[str],
    reading: Options,
    form: str,
    limits: Limits,
    time_limit: float | None,
    width: int | None,
    *,
    apply: bool,
) -> _Result:
    from qdebug.render import measured

    with progress() as advance:
        found = api.measured(names, reading, limits, time_limit, advance)
    notes, kept = measured.notes(found), measured.as_suggestions(found)
    report = None
    if apply:
        report = read(names, reading)
    elif form != "table":  # the converter's settings are in the report; one sample shows them
        report = read(names, replace(reading, samples=1))
    if form == "table" or report is None:
        return _Result(measured.table(found, width), notes, kept, report)
    return _Result(written(form, report, kept), [*measured.summary(found), *notes], kept, report)


def _check_apply(
    named: list[str], reading: Options, new_model: Path | None, calibration: str | None
) -> None:
    """Check, before anything is read, that --apply can be done.

    Raises:
        QdebugError: it cannot.
    """
    if new_model is None:
        if calibration is not None:
            raise QdebugError("--calibration goes with --apply")
        return
    if len(named) != 2 or not all(is_live([name]) for name in named):
        raise QdebugError(
            f"--apply: found {' and '.join(printable(name) for name in named)}, expected a float "
            "and a quantized model (.tflite or .onnx)"
        )
    if reading.inputs is None:
        raise QdebugError("--apply: found no samples, expected calibration samples (--inputs)")
    check_writable(new_model)


def _gain(made: Requantized, new_model: Path, left: int) -> str:
    """What the new model gains, a line for each output."""
    lines = [f"{printable(str(new_model))}: {left} operator{'s' * (left != 1)} in float"]
    for before, after in zip(made.before, made.after, strict=True):
        samples = f"{before.num_samples} sample{'s' * (before.num_samples != 1)}"
        lines.append(
            f"output '{shown(before.name)}': SQNR {_decibels(before)} before, "
            f"{_decibels(after)} after, on {samples}"
        )
    return "\n".join(lines)


def _decibels(output: OutputMetrics) -> str:
    if output.non_finite:
        return f"unknown ({output.non_finite} NaN or infinite)"
    if output.sqnr_db is None:
        return "unknown" if output.rmse else "exact"
    return f"{output.sqnr_db:.2f} dB"
