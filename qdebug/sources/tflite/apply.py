"""Quantize a LiteRT model again, by a recipe: ai-edge-quantizer.

The ranges of activations are computed again: their minimum and maximum over calibration samples.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.arithmetic.affine import QuantParams, dequantize, quantize
from qdebug.errors import MissingExtraError, QdebugError
from qdebug.measure.requantized import Requantized, outputs_of
from qdebug.names import printable
from qdebug.sources.inputs import Samples
from qdebug.sources.tflite.model import Model

Array = NDArray[Any]
Recipe = Sequence[Mapping[str, Any]]

# Pseudo-operators of a recipe for the ends of a model.
_INPUT, _OUTPUT = "INPUT", "OUTPUT"


def requantized(
    floating: Model,
    quantized: Model,
    recipe: Recipe,
    samples: Samples,
    calibration: Samples,
) -> Requantized:
    """The float model, quantized again by this recipe, and its outputs' SQNR.

    Inputs and outputs that are floats in the quantized model stay floats.

    Args:
        floating: the float model.
        quantized: its quantized twin.
        recipe: what ai-edge-quantizer takes.
        samples: what the models are run on, in the order of the float model's inputs.
        calibration: what the ranges of activations are taken from.

    Raises:
        QdebugError: ai-edge-quantizer or the runtime fails, or the models do not match.
    """
    with _silent():
        try:
            from ai_edge_quantizer.quantizer import Quantizer
        except ImportError:
            raise MissingExtraError("quantizing LiteRT models needs", "quantizer") from None
    shown = printable(floating.path)
    key, names = _signature(floating)
    entries = [dict(entry) for entry in recipe]
    ends = ((_INPUT, quantized.graph.inputs), (_OUTPUT, quantized.graph.outputs))
    for end, tensors in ends:
        if all(quantized.graph.tensors[tensor].type == "FLOAT32" for tensor in tensors):
            entries.append({"regex": ".*", "operation": end, "algorithm_key": "no_quantize"})
    whereabouts.given(floating.path, "ai-edge-quantizer", loaded=True)
    try:
        with _silent():
            quantizer = Quantizer(bytearray(floating.content))
            quantizer.load_quantization_recipe(entries)
            ranges: dict[str, dict[str, Any]] = {}
            for sample in calibration:
                feed = dict(zip(names, sample, strict=True))
                _widen(ranges, quantizer.calibrate({key: [feed]}, num_threads=1))
            made = quantizer.quantize(ranges or None, enable_progress_report=False)
            content = bytes(made.quantized_model)
    except QdebugError:
        raise
    except Exception as error:  # its types depend on the version
        said = printable(" ".join(str(error).split())) or type(error).__name__
        raise QdebugError(f"{shown}: ai-edge-quantizer: {said[:300]}") from None
    runs = [
        _Outputs(floating.path, floating.content),
        _Outputs(quantized.path, quantized.content),
        _Outputs("the new model", content),
    ]
    outputs = floating.graph.output_names
    values = [[run(sample) for run in runs] for sample in samples]
    before, after = (
        outputs_of(outputs, ((found[0], found[other]) for found in values)) for other in (1, 2)
    )
    return Requantized(content, before, after)


def _signature(model: Model) -> tuple[str, Sequence[str]]:
    """The name of the model's signature, and the names of its inputs there.

    Raises:
        QdebugError: it has none or several.
    """
    from ai_edge_litert import interpreter as litert

    whereabouts.given(model.path, "LiteRT", loaded=False)
    found = litert.Interpreter(model_content=model.content).get_signature_list()
    if len(found) != 1:
        raise QdebugError(
            f"{printable(model.path)}: found {len(found)} signatures, expected one: "
            "ai-edge-quantizer calibrates by it"
        )
    return next(iter(found)), model.graph.input_names


def _widen(ranges: dict[str, dict[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Widen the ranges to include one more sample.

    ai-edge-quantizer itself takes a moving average over the samples, which clips.
    """
    for name, values in found.items():
        if name not in ranges:
            ranges[name] = dict(values)
            continue
        known = ranges[name]
        for end, wider in (("min", np.minimum), ("max", np.maximum)):
            if end in values and end in known:
                known[end] = wider(known[end], values[end])


class _Outputs:
    """A model in an interpreter: floats in, floats out, in the order of its graph."""

    def __init__(self, path: str, content: bytes) -> None:
        from ai_edge_litert import interpreter as litert

        self._path = printable(path)
        whereabouts.given(path, "LiteRT", loaded=False)
        with _silent():
            self._interpreter = litert.Interpreter(
                model_content=content,
            )

    def __call__(self, sample: Sequence[Array]) -> list[Array]:
        """The outputs for one sample.

        Raises:
            QdebugError: the runtime fails.
        """
        model = self._interpreter
        whereabouts.given(self._path, "LiteRT", loaded=True)
        try:
            given = model.get_input_details()
            if any(tuple(d["shape"]) != v.shape for d, v in zip(given, sample, strict=True)):
                for detail, values in zip(given, sample, strict=True):
                    model.resize_tensor_input(detail["index"], values.shape)
            model.allocate_tensors()
            model.reset_all_variables()
            for detail, values in zip(given, sample, strict=True):
                params = _params(detail)
                codes = quantize(values, params) if params else values.astype(detail["dtype"])
                model.set_tensor(detail["index"], codes)
            model.invoke()
            found = []
            for detail in model.get_output_details():
                values, params = model.get_tensor(detail["index"]), _params(detail)
                found.append(dequantize(values, params) if params else values)
        except (ValueError, RuntimeError) as error:
            said = printable(" ".join(str(error).split()))
            raise QdebugError(f"{self._path}: cannot be run by LiteRT: {said}") from None
        return found


def _params(detail: Mapping[str, Any]) -> QuantParams | None:
    """How an input or output is quantized; None for floats."""
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "iu" or not scale:
        return None
    return QuantParams.of(scale, zero_point, dtype.name)


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the converter's logs and progress output."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
