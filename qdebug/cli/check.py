"""``qdebug check``: limits for CI."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from qdebug.cli import options
from qdebug.cli.reading import SOURCE_HELP, complain, read, resolve
from qdebug.names import printable, shortened
from qdebug.report.configuration import find_config, read_config
from qdebug.report.limits import (
    ALL_KINDS,
    OUTPUT_KINDS,
    Failure,
    check,
    limits_of,
    parse_causes,
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
    folder or the nearest one above. An option overrides the table; a layer's [[tool.qdebug.layer]]
    overrides both. --fail-on takes causes of the diagnosis. Without any of these, no output of the
    model may have an SQNR below 10 dB. Also, unless all outputs have 20 dB or more, no layer's
    rmse/scale may exceed 0.7, the threshold of TFLite's own guide. Only failures are printed. Exit
    status 2: something could not be read.

    \b
    Examples:
      qdebug check model.npz
      qdebug check model.npz --max-rmse-scale 0.5 --min-sqnr 25 --max-clipped 1%
      qdebug check model.npz --fail-on clipping,bias,wrong-scale,non-finite
      qdebug check report.json --config ci/qdebug.toml
      qdebug check float.onnx int8.onnx --inputs data.npz --min-output-sqnr 20 --min-top1 99%
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
@options.reading_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    fail_on: str | None,
    config_path: Path | None,
    reading: Options,
    **bounds: str | None,
) -> None:
    """Read source and limits, print the failures."""
    config = read_config(config_path) if config_path else find_config(Path.cwd())
    limits = limits_of({name: text for name, text in bounds.items() if text is not None}, _flag)
    causes = dict.fromkeys(config.fail_on, str(config.path))
    if fail_on is not None:
        names = parse_causes([name.strip() for name in fail_on.split(",")], "--fail-on")
        causes |= dict.fromkeys(names, "--fail-on")
    report = read(*resolve(sources, reading, config))
    result = check(report, limits, causes, config)
    for pattern in unmatched(report, config):
        path = printable(str(config.path))
        click.echo(f"Warning: {path}: no layer matches '{printable(pattern)}'", err=True)
    if result.failures:
        click.echo(_table(result.failures))
    checked, failed = result.num_checked, len({failure.layer for failure in result.failures})
    counted = f"{checked} layer{'s' * (checked != 1)}"
    if result.num_outputs:
        counted += f" and {result.num_outputs} output{'s' * (result.num_outputs != 1)}"
    click.echo(f"{counted} checked, {failed} over a limit", err=True)
    nothing = [] if checked else ["no layer was checked"]
    complain(ctx, report.notes, [*report.complaints, *result.unknown, *nothing])
    if result.failures:
        ctx.exit(1)


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
