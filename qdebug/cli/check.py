"""``qdebug check``: limits for CI."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from qdebug.cli import options
from qdebug.cli.diff import report_at
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve
from qdebug.names import printable, shortened
from qdebug.output import check_writable, whole_file
from qdebug.render.ci import github, github_summary, junit
from qdebug.report.comparison import compare, regression_failures
from qdebug.report.configuration import find_config, read_config
from qdebug.report.limits import (
    ALL_KINDS,
    OUTPUT_KINDS,
    CheckResult,
    Failure,
    check,
    limits_of,
    parse_causes,
    parse_growth,
    unmatched,
)
from qdebug.sources.open import Options

_LEAST_NAME = 24
_GAPS = 16  # between and within the columns


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each kind of limit."""
    for name, kind in reversed(ALL_KINDS.items()):
        extreme = "Minimum" if kind.is_minimum else "Maximum"
        what = "of the model's outputs" if name in OUTPUT_KINDS else "of a layer"
        text = f"{extreme} {kind.figure} {what} ({kind.unit})."
        function = click.option(_flag(name), name, metavar="X", help=text)(function)
    return function


@click.command(
    "check",
    help=f"""Check every layer against limits: exit status 1 if a layer exceeds one.

    {SOURCE_HELP}

    Limits come from these options and from [tool.qdebug] in pyproject.toml or qdebug.toml, in this
    folder or the nearest one above it in the same Git repository. An option overrides the table; a
    layer's [[tool.qdebug.layer]] overrides both. --fail-on takes causes of the diagnosis. Without
    any of these, no output of the model may have an SQNR below 10 dB. Also, unless all outputs have
    20 dB or more, no layer's rmse/scale may exceed 0.7, the threshold of TFLite's own guide. Only
    failures are printed, and on stderr the number of layers and the configuration file. Exit status
    2: something could not be read.

    \b
    Examples:
      qdebug check model.npz
      qdebug check model.npz --max-rmse-scale 0.5 --min-sqnr 25 --max-clipped 1%
      qdebug check model.npz --fail-on clipping,bias,wrong-scale,non-finite
      qdebug check report.json --config ci/qdebug.toml
      qdebug check float.onnx int8.onnx --inputs data.npz --min-output-sqnr 20 --min-top1 99%
      qdebug check model.npz --baseline base.json --max-regression 5%
      qdebug check model.npz --format junit -o qdebug.xml
    """,
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@_limit_options
@click.option("--fail-on", metavar="A,B", help="Causes no layer may have, e.g. clipping,bias.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the configuration from FILE (.toml).",
)
@click.option(
    "--baseline",
    metavar="FILE",
    help="Also fail on layers that are worse than in this report, by more than --max-regression "
    "and by more than chance. Any SOURCE of one name; mostly a .json.",
)
@options.regression_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "junit", "github"]),
    help="JUnit XML, or GitHub's annotations and step summary. Default: text.",
)
@options.output_option("Write to FILE; - is standard output.")
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    fail_on: str | None,
    config_path: Path | None,
    baseline: str | None,
    max_regression: str | None,
    allowed: tuple[Any, ...],
    form: str | None,
    output: Path | None,
    reading: Options,
    **bounds: str | None,
) -> None:
    """Read source and limits, print the failures."""
    if baseline is None and (max_regression is not None or allowed):
        raise click.UsageError("--max-regression and --allow go with --baseline")
    growth = parse_growth(max_regression)
    if str(output) == "-":
        output = None
    if output is not None:
        check_writable(output)
    config = read_config(config_path) if config_path else find_config(Path.cwd())
    limits = limits_of({name: text for name, text in bounds.items() if text is not None}, _flag)
    causes = dict.fromkeys(config.fail_on, str(config.path))
    if fail_on is not None:
        names = parse_causes([name.strip() for name in fail_on.split(",")], "--fail-on")
        causes |= dict.fromkeys(names, "--fail-on")
    report = read(*resolve(sources, reading, config))
    result = check(report, limits, causes, config)
    regressions: list[Failure] = []
    if baseline is not None:
        compared = compare(report_at(baseline, Options(keys=reading.keys)), report, growth)
        regressions = regression_failures(compared, baseline, allowed)
        for note in compared.notes:
            click.echo(f"Note: {printable(note)}", err=True)
    failures = [*result.failures, *regressions]
    for pattern in unmatched(report, config):
        path = printable(str(config.path))
        click.echo(f"Warning: {path}: no layer matches '{printable(pattern)}'", err=True)
    checked, failed = result.num_checked, len({failure.layer for failure in failures})
    counted = f"{checked} layer{'s' * (checked != 1)}"
    if result.num_outputs:
        counted += f" and {result.num_outputs} output{'s' * (result.num_outputs != 1)}"
    counted += f" checked, {failed} over a limit"
    if config.path is not None:
        counted += f"; configuration: {printable(str(config.path))}"
    _write(form, output, result, regressions, counted, ", ".join(report.sources) or "qdebug")
    click.echo(counted, err=True)
    nothing = [] if checked else ["no layer was checked"]
    complain(ctx, report.notes, [*report.complaints, *result.unknown, *nothing])
    if failures:
        ctx.exit(1)


def _write(
    form: str | None,
    output: Path | None,
    result: CheckResult,
    regressions: list[Failure],
    counted: str,
    suite: str,
) -> None:
    """Write the failures in their form, to a file or standard output."""
    failures = [*result.failures, *regressions]
    if form == "junit":
        text = junit(result, suite, regressions)
    elif form == "github":
        text = github(failures)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(github_summary(failures, counted))
    else:
        text = f"{_table(failures)}\n" if failures else ""
    if output is None:
        click.echo(text, nl=False)
    else:
        with whole_file(output) as target:
            target.write(text.encode())


def _table(over: list[Failure]) -> str:
    """The failures; on a terminal, names are shortened to make the table fit."""
    names = [printable(f.layer) for f in over]
    if sys.stdout.isatty():
        others = max(len(f"{f.figure}{f.found}{f.expected}{printable(f.origin)}") for f in over)
        room = shutil.get_terminal_size().columns - others - _GAPS
        names = shortened(names, max(room, _LEAST_NAME))
    return tabulate(
        [
            (name, f.figure, f.found, f.expected, printable(f.origin))
            for name, f in zip(names, over, strict=True)
        ],
        headers=["layer", "figure", "found", "limit", "from"],
        colalign=["left", "left", "right", "right", "left"],
        tablefmt="simple",
        disable_numparse=True,
    )
