"""The command line: one module a command, loaded when it is called."""

import gc
import os
import sys
from importlib import import_module
from typing import Any

import click

from qdebug import __version__
from qdebug.errors import OptionError, QdebugError

# Each of our threads sums by itself; OpenBLAS's own, one a core, would then wait for each other
# longer than they work. NumPy reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A command's imports and reports are thousands of objects that stay: looking for garbage among them
# as often as Python does by default takes 3 % of the time of a small report.
gc.set_threshold(100_000)

# Command -> its line in `qdebug --help`. The module of the same name in this package holds the
# command and is imported only to run it or to show its own help.
COMMANDS = {
    "report": "A table of all layers and their quantization error.",
    "plot": "A picture of one layer, or of all layers' errors.",
    "explain": "One layer: its figures, the cause, what other quantizations would give.",
    "check": "Limits for CI: exit status 1 when a layer is over one.",
    "suggest": "The layers to leave in float, in the form that a converter takes.",
    "capture": "A live pair of models, saved as a pair file.",
    "quantize": "Float tensors to a pair file, by any scheme.",
}

_BROKEN_PIPE = 128 + 13  # as a shell reports a program that SIGPIPE ended
_INTERRUPTED = 128 + 2  # likewise for SIGINT


class _Failure(click.ClickException):
    exit_code = 2


class _Commands(click.Group):
    """Commands by name; whatever a user can put right ends with one line and status 2."""

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
            # Whoever read the output has had enough; nothing more can be written to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _Failure(f"{where}{error.strerror or error}") from None
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find the layers that quantization hurts, and why.

    qdebug reads pairs of float and quantized tensors, layer by layer. Rounding alone leaves
    RMSE/scale at 1/sqrt(12) = 0.289; what lies above has a cause.

    \b
    Examples:
      qdebug report model.npz
      qdebug plot LAYER -m model.npz
      qdebug check model.npz --max-rmse-scale 0.7
    """,
)
@click.version_option(__version__, package_name="qdebug")
def main() -> None:
    """Run one of `COMMANDS`."""
