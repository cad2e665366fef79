"""Feeds: one sample as the inputs of a float model and of its quantized twin."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.errors import FieldError, QdebugError
from qdebug.names import printable
from qdebug.sources.inputs import InputSpec
from qdebug.sources.onnx.graph import Graph
from qdebug.sources.onnx.layers import Quantized, quant_params
from qdebug.sources.onnx.run import Tensors


class Feeds:
    """The inputs of both models.

    Attributes:
        specs: the inputs that a sample has: those of the float model.

    Raises:
        QdebugError: the models have different numbers of inputs, or the quantized one takes codes
            without a scale.
    """

    def __init__(self, floating: Graph, quantized: Graph, tensors: Iterable[Quantized]) -> None:
        self._inputs = _inputs(floating, quantized)
        self._params = _input_params(self._inputs, quantized, tensors)
        self.specs = [spec for spec, _ in self._inputs]

    def of(self, sample: Sequence[NDArray[Any]]) -> tuple[Tensors, Tensors]:
        """A sample as inputs of the float model, and of the quantized one."""
        feeds, quantized_feeds = {}, {}
        for values, (spec, quantized) in zip(sample, self._inputs, strict=True):
            feeds[spec.name] = values
            params = self._params.get(quantized.name)
            quantized_feeds[quantized.name] = (
                quantize(values, params) if params else values.astype(quantized.dtype, copy=False)
            )
        return feeds, quantized_feeds


def _inputs(floating: Graph, quantized: Graph) -> list[tuple[InputSpec, InputSpec]]:
    """The inputs of both models, paired by name, else by order.

    Shape information that only the quantized model has is copied to the float model's inputs.

    Raises:
        QdebugError: one model has more inputs than the other.
    """
    theirs, ours = floating.inputs, quantized.inputs
    if len(theirs) != len(ours):
        raise QdebugError(
            f"{printable(quantized.path)}: found {len(ours)} inputs, expected {len(theirs)}, as "
            f"{printable(floating.path)} has"
        )
    paired = []
    for (name, spec), by_order in zip(theirs.items(), ours.values(), strict=True):
        other = ours[name] if theirs.keys() == ours.keys() else by_order
        if len(spec.shape) == len(other.shape):
            axes = zip(spec.shape, other.shape, strict=True)
            spec = replace(spec, shape=tuple(b if a is None else a for a, b in axes))
        paired.append((spec, other))
    return paired


def _input_params(
    inputs: Sequence[tuple[InputSpec, InputSpec]], quantized: Graph, tensors: Iterable[Quantized]
) -> dict[str, QuantParams]:
    """How to quantize the inputs that the quantized model takes as codes.

    Raises:
        QdebugError: the model does not say how.
    """
    by_codes = {tensor.codes: tensor for tensor in tensors}
    params = {}
    for spec, ours in inputs:
        if spec.dtype.kind != "f" or ours.dtype.kind not in "iu":
            continue
        where = f"{printable(quantized.path)}: model input '{printable(ours.name)}'"
        if ours.name not in by_codes:
            raise QdebugError(f"{where}: found {ours.dtype} and no scale, expected {spec.dtype}")
        try:
            params[ours.name] = quant_params(quantized, by_codes[ours.name], ())
        except FieldError as error:
            raise QdebugError(f"{where}: {error}") from None
    return params
