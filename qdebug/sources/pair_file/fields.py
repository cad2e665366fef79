"""The fields of a layer in a pair file, and checks of their values (docs/pair-file.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, code_range
from qdebug.errors import FieldError, QdebugError
from qdebug.names import nearest, shown

FIELDS = (
    "float",
    "quantized",
    "scale",
    "zero_point",
    "axis",
    "bits",
    "narrow_range",
    "rounding",
    "model_float",
    "weights_float",
    "op",
    "kind",
    "nodes",
    "inputs",
    "slice_axis",
    "output_sums",
)
TENSORS = ("float", "quantized", "model_float", "weights_float")
KINDS = ("activation", "weight", "bias")


def normal_axis(axis: int | None, ndim: int) -> int | None:
    """`axis`, counted from 0.

    Raises:
        FieldError: a tensor with `ndim` axes does not have it.
    """
    if axis is None:
        return None
    if not -ndim <= axis < ndim:
        raise FieldError("axis", found=str(axis), expected=f"an axis of a tensor of {ndim} axes")
    return axis % ndim


def check_codes(codes: NDArray[Any], params: QuantParams) -> None:
    """Check that all codes are in the range that type, bits and narrow range allow.

    Raises:
        FieldError: one is not.
    """
    if (params.qmin, params.qmax) == code_range(params.dtype):
        return
    lowest, highest = codes.min(), codes.max()
    if lowest < params.qmin or highest > params.qmax:
        raise FieldError(
            "quantized",
            found=f"codes from {lowest} to {highest}",
            expected=f"{params.qmin} to {params.qmax}",
        )


def parse_keys(options: Sequence[str]) -> dict[str, str]:
    """``FIELD=TEMPLATE`` options as a mapping.

    >>> parse_keys(["float={}_fp32", "scale={}_scale"])
    {'float': '{}_fp32', 'scale': '{}_scale'}

    Raises:
        QdebugError: as `check_keys`.
    """
    keys: dict[str, str] = {}
    for option in options:
        field, equals, template = option.partition("=")
        if not equals:
            raise _no_template("--keys", option)
        keys[field] = template
    check_keys(keys, "--keys")
    return keys


def check_keys(keys: Mapping[str, str], flag: str = "keys") -> None:
    """Check the templates of array names, by field; `flag` is their name in messages.

    Raises:
        QdebugError: no such field, a template without exactly one ``{}``, or one template for two
            fields.
    """
    if not isinstance(keys, Mapping):
        raise QdebugError(
            f"{flag}: found a value of type {type(keys).__name__}, expected fields and their "
            "templates, such as {'float': '{}_fp32'}"
        )
    taken: set[str] = set()
    for field, template in keys.items():
        if not isinstance(template, str) or template.count("{}") != 1:
            raise _no_template(flag, f"{field}={template}")
        if field not in FIELDS:
            raise QdebugError(
                f"{flag}: no field '{shown(str(field))}'; {nearest(str(field), FIELDS)}"
            )
        if template in taken:
            raise QdebugError(f"{flag}: found '{shown(template)}' for two fields, expected one")
        taken.add(template)


def _no_template(flag: str, found: str) -> QdebugError:
    return QdebugError(
        f"{flag}: found '{shown(found)}', expected FIELD=TEMPLATE with one {{}} for the layer's "
        "name, as in float={}_fp32"
    )
