"""The command line: one module per command, loaded when the command is called."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from qdebug import __version__
from qdebug.errors import OptionError, QdebugError

# Each qdebug thread does its own sums. With one OpenBLAS thread per core on top, those would wait
# for each other longer than they work. NumPy reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Imports and reports create thousands of long-lived objects. Collecting garbage as often
# as Python does by default takes 3 % of the time of a small report.
gc.set_threshold(100_000)

# Command -> its line in `qdebug --help`. The command's module in this package has the same name and
# is imported only to run the command or to show its help.
COMMANDS = {
    "report": "Show the quantization error of all layers in a table.",
    "plot": "Draw one layer, or the errors of all layers.",
    "explain": "Explain one layer: figures, cause, what other quantizations would give.",
    "check": "Check limits in CI: exit status 1 if a layer exceeds one.",
    "diff": "Compare two reports: which layers got worse.",
    "suggest": "Suggest the layers to leave in float, in the form a converter takes.",
    "replay": "Compute a quantized model's codes again: is it the kernel?",
    "multiplier": "Show a real multiplier in fixed point, as integer kernels use it.",
    "capture": "Run a live pair of models and save it as a pair file.",
    "quantize": "Quantize float tensors to a pair file, by any scheme.",
}

_BROKEN_PIPE = 128 + 13  # the status a shell reports for a program ended by SIGPIPE
_INTERRUPTED = 128 + 2  # likewise for SIGINT

# Signals that ask a program to end; Windows has no SIGHUP.
_TERMINATIONS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Failure(click.ClickException):
    exit_code = 2


def _open_closed_streams() -> None:
    """Give closed standard streams a place to write to.

    Otherwise the next file that is opened would get their number, and what a runtime writes there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            from pathlib import Path

            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for the whole run


@contextmanager
def _cleared_up_when_ended() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block by an exception, which removes temporary files.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    handled = []
    if threading.current_thread() is threading.main_thread():
        handled = [each for each in _TERMINATIONS if signal.getsignal(each) is signal.SIG_DFL]
    for each in handled:
        signal.signal(each, _end)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def _end(number: int, frame: object) -> None:
    for each in _TERMINATIONS:  # a second one would interrupt the clearing up
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


class _Commands(click.Group):
    """Commands by name; an error that the user can fix ends with one line and status 2.

    Attributes:
        own_process: whether this process is the command's own: its arguments are the program's.
        forked: whether this process is a child that carries out the command (`cli.apart`).
    """

    own_process = False
    forked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"qdebug.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from qdebug.names import nearest, printable

            ctx.fail(f"no command '{printable(args[0])}'; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        _open_closed_streams()
        self.own_process = args is None
        try:
            with _cleared_up_when_ended():
                return super().main(args, *more, **extra)
        except SystemExit as ended:
            if self.forked:
                # At once: it takes Python a tenth of a second to take a runtime apart.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code if isinstance(ended.code, int) else 1)
            raise
        except OSError as error:  # of the help itself: /dev/full, for example
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            click.echo(f"Error: {error.strerror or error}", err=True)
            raise SystemExit(2) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise _Failure(f"--{error.option} goes with {error.goes_with}") from None
        except QdebugError as error:
            raise _Failure(str(error)) from None
        except MemoryError:
            raise _Failure("out of memory") from None
        except BrokenPipeError:
            # The reader closed the pipe; no more output can be written.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _Failure(f"{where}{error.strerror or error}") from None
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from qdebug.measure.kernel.library import description

        try:
            click.echo(f"qdebug {__version__}, kernel: {description()}")
        except QdebugError as error:
            raise _Failure(str(error)) from None
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find the layers that quantization hurts, and why.

    qdebug reads pairs of float and quantized tensors, layer by layer. Rounding alone gives an
    RMSE/scale of 1/sqrt(12) = 0.289; any layer above that has a cause.

    \b
    Examples:
      qdebug report model.npz
      qdebug plot LAYER -m model.npz
      qdebug check model.npz --max-rmse-scale 0.7

    Completion of commands and options for bash, zsh and fish: docs/terminal.md.
    """,
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colour: auto is on a terminal, unless NO_COLOR is set.",
)
@click.option("-q", "--quiet", is_flag=True, help="No notes, hints or progress on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was read, and how long it took.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version, and what computes the statistics.",
)
@click.pass_context
def main(ctx: click.Context, color: str, quiet: bool, verbose: bool) -> None:
    """Run one of `COMMANDS`."""
    if quiet and verbose:
        raise click.UsageError("found --quiet and --verbose, expected one of them")
    never = color == "never" or (color == "auto" and bool(os.environ.get("NO_COLOR")))
    ctx.color = True if color == "always" else False if never else None
    ctx.obj = "quiet" if quiet else "verbose" if verbose else "plain"
