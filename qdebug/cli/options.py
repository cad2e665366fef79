"""Options that commands share."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from qdebug.sources.open import Options
from qdebug.sources.tflite.run import KERNELS

F = TypeVar("F", bound=Callable[..., Any])

_MODEL_OPTIONS = [
    click.option(
        "--inputs",
        metavar="FILE",
        help="Samples to run the models on: .npz or .npy, one array per input, in the float "
        "model's units.",
    ),
    click.option(
        "--samples", type=click.IntRange(min=1), metavar="N", help="Use only the first N samples."
    ),
    click.option(
        "--kernels",
        type=click.Choice(KERNELS),
        help="LiteRT kernels to run .tflite models with; 'default' if not given.",
    ),
    click.option("--signature", metavar="NAME", help="Signature to run in .tflite models."),
]
_KEYS_OPTION = click.option(
    "--keys",
    multiple=True,
    metavar="FIELD=TEMPLATE",
    help="How a pair file names FIELD's arrays, {} is the layer: float={}_fp32. Repeatable.",
)

_WORKER_OPTIONS = [
    click.option(
        "--jobs",
        type=click.IntRange(1, 256),
        metavar="N",
        help="Number of threads, or of processes with `--scheduler local`. Default: one per core "
        "that this process may use, at most 8 threads. The figures do not depend on it.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Read pair or weight files on a Dask cluster: tcp://host:8786, or local for processes "
        "on this machine.",
    ),
]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how models are run; the command gets them as one `reading`."""
    return _as_one(function, _MODEL_OPTIONS)


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options for how and where SOURCE is read; the command gets them as one `reading`."""
    return _as_one(function, [*_MODEL_OPTIONS, _KEYS_OPTION, *_WORKER_OPTIONS])


def _as_one(
    function: Callable[..., Any], chosen: Sequence[Callable[[Callable[..., Any]], Any]]
) -> Callable[..., Any]:
    fields = [field.name for field in dataclasses.fields(Options)]

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        options = {name: given.pop(name) for name in fields if name in given}
        if keys := options.pop("keys", ()):
            from qdebug.sources.pair_file.fields import parse_keys

            options["keys"] = parse_keys(keys)
        return function(*args, reading=Options(**options), **given)

    for option in reversed(chosen):
        command = option(command)
    return command


def source_option(function: F) -> F:
    """``-m``, for commands whose arguments are layers."""
    return click.option(
        "-m",
        "--source",
        "sources",
        multiple=True,
        metavar="SOURCE",
        help="As for `qdebug report`. Repeatable, for several files.",
    )(function)


def measure_options(text: str) -> Callable[[F], F]:
    """``--measure`` and ``--time-limit``."""

    def decorated(function: F) -> F:
        function = click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="With --measure: stop after this time and show what was found so far.",
        )(function)
        return click.option("--measure", is_flag=True, help=text)(function)

    return decorated


def regression_options(function: F) -> F:
    """``--max-regression`` and ``--allow``, for comparisons with another report."""
    function = click.option(
        "--allow",
        "allowed",
        multiple=True,
        type=click.Choice(["new", "vanished"]),
        help="Layers that are new, or have vanished, are no regression. Repeatable.",
    )(function)
    return click.option(
        "--max-regression",
        metavar="SHARE",
        help="How much worse a layer may get: 0.1 or 10%. Default: 10%.",
    )(function)


def layer_option(function: F) -> F:
    """``--layer``, to choose among a source's layers; the command gets them as `patterns`."""
    return click.option(
        "--layer",
        "patterns",
        multiple=True,
        metavar="GLOB",
        help="Only layers whose name matches. Repeatable.",
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
