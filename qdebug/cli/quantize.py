"""``qdebug quantize``: float tensors, quantized to a pair file."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import (
    CODE_DTYPES,
    FLOAT_DTYPES,
    QuantParams,
    QuantScheme,
    params_from_range,
    quantize,
)
from qdebug.cli import options
from qdebug.errors import FieldError, QdebugError, locate
from qdebug.measure.ranges import RangeFrom, fitted
from qdebug.names import printable
from qdebug.output import whole_file
from qdebug.sources.pair_file.write import PairFileWriter


def _range_choice(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | float | None:
    """``minmax``, ``mse``, or the P of ``percentile:P``."""
    if value is None:
        return None
    how, _, percentile = value.partition(":")
    if value in ("minmax", "mse"):
        return value
    try:
        if how == "percentile":
            return float(percentile)
    except ValueError:
        pass
    raise click.BadParameter(f"found '{printable(value)}', expected minmax, mse or percentile:P")


@click.command(
    "quantize",
    help="""Quantize the float arrays of WEIGHTS (.npz) to a pair file.

    Each float array becomes a layer of the same name; other arrays are left out with a warning.
    The scale comes from the array's own range, determined by --range-from, or from --range. With
    --axis, arrays that have one axis (biases) or lack axis N get one scale, with a note.

    \b
    minmax         the whole range
    percentile:P   the range of P percent of the elements; the rest is clipped, half at each end
    mse            the range with the least mean squared error

    \b
    Examples:
      qdebug quantize weights.npz -o pairs.npz
      qdebug quantize weights.npz -o pairs.npz --scheme symmetric --narrow-range --axis 0
      qdebug quantize weights.npz -o pairs.npz --bits 4 --range-from percentile:99.9
    """,
)
@click.argument("weights", type=click.Path(path_type=Path))
@options.output_option("The pair file to write.", required=True)
@click.option(
    "--dtype",
    type=click.Choice([dtype for dtype in CODE_DTYPES if dtype != "int32"]),
    default="int8",
    show_default=True,
    help="Type of the codes.",
)
@click.option("--bits", type=int, metavar="N", help="Use only N bits of the type.")
@click.option(
    "--scheme",
    type=click.Choice(["affine", "symmetric"]),
    default="affine",
    show_default=True,
    help="With symmetric, the zero point is the middle code.",
)
@click.option("--axis", type=int, metavar="N", help="One scale for each channel of axis N.")
@click.option(
    "--range",
    "fixed",
    type=(float, float),
    metavar="LO HI",
    help="Use this range for all arrays, instead of --range-from.",
)
@click.option(
    "--range-from",
    callback=_range_choice,
    metavar="HOW",
    help="minmax (the default), percentile:P or mse.",
)
@click.option("--narrow-range", is_flag=True, help="Do not use the lowest code.")
@click.option(
    "--rounding",
    type=click.Choice(["half-away", "half-even"]),
    default="half-away",
    show_default=True,
    help="Round halves away from zero, as TFLite does, or to even, as ONNX does. The pair file "
    "stores which.",
)
def command(
    weights: Path,
    output: Path,
    dtype: str,
    bits: int | None,
    scheme: str,
    axis: int | None,
    fixed: tuple[float, float] | None,
    range_from: RangeFrom | None,
    narrow_range: bool,
    rounding: str,
) -> None:
    """Read, choose a range, quantize, write: one array at a time."""
    if axis is not None and fixed is not None:
        raise click.UsageError("--axis and --range cannot be combined: --range is not per channel")
    if range_from is not None and fixed is not None:
        raise click.UsageError("--range-from and --range cannot be combined")
    wanted = QuantScheme(
        dtype,
        bits,
        narrow_range,
        symmetric=scheme == "symmetric",
        rounding="half_even" if rounding == "half-even" else "half_away",
    )
    layers = 0
    with whole_file(output) as file, PairFileWriter(file) as pairs:
        for name, x in _float_arrays(weights):
            along = axis
            if axis is not None and (x.ndim < 2 or not -x.ndim <= axis < x.ndim or not x.size):
                # A bias among the kernels: one scale per element would not be quantization.
                click.echo(
                    f"Note: '{printable(name)}' gets one scale: found shape {x.shape}, expected "
                    f"two or more axes, including axis {axis}, for one scale per channel",
                    err=True,
                )
                along = None
            try:
                params = _params(x, wanted, along, fixed, range_from)
            except FieldError as error:
                raise locate(error, file=printable(str(weights)), layer=printable(name)) from None
            codes = quantize(x, params)
            pairs.add(name, {"float": x, "quantized": codes}, params)
            layers += 1
        if not layers:
            raise QdebugError(f"{printable(str(weights))}: found no float array, expected one")
    count = f"{layers} layer{'s' * (layers != 1)}"
    click.echo(f"{printable(str(output))}: {count}", err=True)


def _params(
    x: NDArray[Any],
    scheme: QuantScheme,
    axis: int | None,
    fixed: tuple[float, float] | None,
    range_from: RangeFrom | None,
) -> QuantParams:
    """Scale and zero point of one array."""
    if fixed is not None:
        return params_from_range(*fixed, scheme)
    return fitted(x, scheme, axis, "minmax" if range_from is None else range_from)


def _float_arrays(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and values of each float array of an .npz file, one at a time.

    Raises:
        QdebugError: the file is missing, of another kind, or broken.
    """
    shown = printable(str(path))
    try:
        if path.is_file() and not zipfile.is_zipfile(path) and path.stat().st_size > 6:
            with path.open("rb") as file:
                if file.read(6) != b"\x93NUMPY":
                    raise QdebugError(f"{shown}: File is not a zip file; expected an .npz file")
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise QdebugError(f"{shown}: found a single array (.npy), expected an .npz file")
        with loaded:
            for name in loaded.files:
                x = loaded[name]
                if x.dtype.name in FLOAT_DTYPES:
                    yield name, x
                else:
                    click.echo(
                        f"Warning: {shown}: '{printable(name)}' left out: found {x.dtype}, "
                        f"expected {', '.join(FLOAT_DTYPES)}",
                        err=True,
                    )
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = printable(str(error)) or "the file ends too early"  # it may shrink meanwhile
        raise QdebugError(f"{shown}: {reason}; expected an .npz file") from None
