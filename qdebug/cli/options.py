"""What commands share: SOURCE, its options, and where it is looked for when it is left out."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from qdebug import engine, report
from qdebug.errors import QdebugError
from qdebug.limits import Config, find_config
from qdebug.names import printable, select
from qdebug.report import Report
from qdebug.sources.npz import PairFiles, parse_keys

F = TypeVar("F", bound=Callable[..., Any])

SOURCE_HELP = """SOURCE is one or more pair files (.npz) or globs, or a saved report (.json).
    Where it is left out: $QDEBUG_SOURCE, else `source` in [tool.qdebug], else the only .npz here.
    """.strip()


def keys_option(function: F) -> F:
    """``--keys``, for pair files that name their arrays otherwise."""
    return click.option(
        "--keys",
        "keys",
        multiple=True,
        metavar="FIELD=TEMPLATE",
        help="How FIELD's arrays are named, {} for the layer: float={}_fp32. Repeat for each.",
    )(function)


def source_option(function: F) -> F:
    """``-m``, for commands whose arguments are layers."""
    return click.option(
        "-m",
        "--source",
        "sources",
        multiple=True,
        metavar="SOURCE",
        help="Pair files, globs or a saved report, as for `qdebug report`. Repeat for more.",
    )(function)


def output_option(text: str, required: bool = False) -> Callable[[F], F]:
    """``-o FILE``."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        required=required,
        help=text,
    )


def resolve(sources: Sequence[str], config: Config | None = None) -> list[str]:
    """The sources to read: those given, or those that stand for none given.

    Raises:
        QdebugError: none given, and none or several to choose from.
    """
    if sources:
        return list(sources)
    if named := os.environ.get("QDEBUG_SOURCE"):
        return [named]
    config = find_config(Path.cwd()) if config is None else config
    if config.source:
        return config.source
    here = sorted(str(path) for path in Path().glob("*.npz"))
    if len(here) == 1:
        return here
    found = f"{len(here)} .npz files here" if here else "no .npz file here"
    raise QdebugError(f"no SOURCE: {found}; name one, or set QDEBUG_SOURCE")


def pair_files(sources: Sequence[str], keys: Sequence[str]) -> PairFiles:
    """The source of pair files, for commands that need the tensors themselves.

    Raises:
        QdebugError: a saved report, which holds no tensors, or what PairFiles raises.
    """
    for source in sources:
        if source.endswith(".json"):
            raise QdebugError(
                f"{printable(source)}: a saved report holds no tensors, expected pair files (.npz)"
            )
    return PairFiles(sources, parse_keys(keys))


def read_report(
    sources: Sequence[str], keys: Sequence[str], patterns: Sequence[str] = ()
) -> Report:
    """The report of `sources`: read from JSON, or made from pair files.

    With `patterns`, of the layers that these globs name.
    """
    if any(source.endswith(".json") for source in sources):
        if len(sources) > 1:
            raise QdebugError(
                "a saved report (.json) stands alone as SOURCE; found it among others"
            )
        path = Path(sources[0])
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise QdebugError(f"{printable(sources[0])}: {error.strerror}") from None
        except ValueError:
            raise QdebugError(f"{printable(sources[0])}: found no text, expected JSON") from None
        saved = report.loads(text, printable(sources[0]))
        chosen = select([layer.name for layer in saved.layers], patterns)
        return replace(saved, layers=[layer for layer in saved.layers if layer.name in chosen])
    return engine.run(pair_files(sources, keys), patterns)


def complain(ctx: click.Context, found: Report) -> None:
    """Say on stderr what could not be read, and let that be the exit status: 2."""
    for complaint in found.complaints:
        click.echo(f"Error: {complaint}", err=True)
    if found.complaints:
        ctx.exit(2)
