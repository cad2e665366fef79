"""``qdebug multiplier``: a real multiplier in fixed point, and what that form costs."""

import json

import click
from tabulate import tabulate

from qdebug.arithmetic.affine import code_range
from qdebug.arithmetic.integer.multiplier import Multiplier, quantize_multiplier, reduced
from qdebug.errors import FieldError, QdebugError

_SCHEMA = "qdebug.multiplier/1"
_HEADINGS = ("bits", "M0", "n", "shift", "M0 * 2^-n", "relative error", "steps")


@click.command(
    "multiplier",
    help="""Show a real multiplier M in fixed point, as integer kernels use it: M0 * 2^-n.

    M is given, or comes from the scales of an operator's input, weights and output:
    M = S_X * S_W / S_Y. The 32-bit form is the usual one; kernels for int16 activations use the
    16-bit one, so that their product fits 64 bits. The last column is the largest error that the
    form makes in an output, in steps.

    \b
    Examples:
      qdebug multiplier 0.0003921
      qdebug multiplier --scales 0.0235 0.0017 0.0471
    """,
)
@click.argument("value", type=float, required=False, metavar="[M]")
@click.option("--scales", type=float, nargs=3, metavar="S_X S_W S_Y", help="The three scales.")
@click.option(
    "--dtype",
    type=click.Choice(["int8", "uint8", "int16"]),
    default="int8",
    help="Type of the output, for its steps. Default: int8.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def command(
    value: float | None, scales: tuple[float, float, float] | None, dtype: str, form: str
) -> None:
    """Show both forms."""
    if (value is None) == (scales is None):
        found = "both" if scales else "neither"
        raise QdebugError(f"found {found} of M and --scales, expected one of them")
    if scales is not None:
        for name, scale in zip(("S_X", "S_W", "S_Y"), scales, strict=True):
            if not 0 < scale < float("inf"):
                raise FieldError(name, found=f"{scale}", expected="a finite number above 0")
        value = scales[0] * scales[1] / scales[2]
    assert value is not None
    full = quantize_multiplier(value)
    low, high = code_range(dtype)
    forms = [_form(full, 32, high - low), _form(reduced(full), 16, high - low)]
    if form == "json":
        values = {"schema": _SCHEMA, "multiplier": value, "dtype": dtype, "forms": forms}
        click.echo(json.dumps(values, indent=1, allow_nan=False))
        return
    of = f" = {scales[0]:g} * {scales[1]:g} / {scales[2]:g}" if scales else ""
    click.echo(f"M{of} = {value:.10g}, {dtype} output of {high - low} steps\n")
    rows = [
        (*map(str, list(each.values())[:4]), f"{each['value']:.10g}",
         f"{each['relative_error']:.2g}", f"{each['steps']:.2g}")
        for each in forms
    ]  # fmt: skip
    click.echo(tabulate(rows, _HEADINGS, "simple", disable_numparse=True, stralign="right"))
    for note in _notes(full):
        click.echo(f"\n{note}")


def _form(multiplier: Multiplier, bits: int, steps: int) -> dict[str, float]:
    """A fixed-point form; its mantissa in `bits`."""
    unused = 32 - bits
    return {
        "bits": bits,
        "m0": int(multiplier.m0) >> unused,
        "n": int(multiplier.n) - unused,
        "shift": int(multiplier.shift),
        "value": float(multiplier.value),
        "relative_error": float(multiplier.relative_error),
        "steps": abs(float(multiplier.relative_error)) * steps,
    }


def _notes(full: Multiplier) -> list[str]:
    if full.real and not full.m0:
        return ["M is below 2^-32: its fixed-point form is 0, and so is every output."]
    if abs(float(full.relative_error)) > 0.5:
        return ["M is 2^30 or more: its fixed-point form is the largest there is."]
    if full.real >= 1:
        return ["M is 1 or more: the accumulator is shifted left first, and may overflow there."]
    return []
