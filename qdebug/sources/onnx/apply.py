"""Quantize an ONNX model again, with some nodes in float: onnxruntime's quantize_static.

The settings are read off the quantized model, but not the ranges of its activations. These are
computed again from calibration samples.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.arithmetic.affine import QuantParams, middle_code
from qdebug.errors import FieldError, MissingExtraError, QdebugError
from qdebug.measure.requantized import Requantized, outputs_of
from qdebug.names import printable
from qdebug.output import TEMPORARY
from qdebug.sources.inputs import Samples
from qdebug.sources.onnx.graph import CODE_TYPES, Graph, one_line, read_graph
from qdebug.sources.onnx.layers import Quantized, quant_params, quantized_tensors
from qdebug.sources.onnx.network import Network, form_of
from qdebug.sources.onnx.pairing import Partner, partners
from qdebug.sources.onnx.run import Session

# Code type -> the name of onnxruntime's QuantType.
_TYPES = {
    "int8": "QInt8",
    "uint8": "QUInt8",
    "int16": "QInt16",
    "uint16": "QUInt16",
    "int4": "QInt4",
    "uint4": "QUInt4",
}

# Operators whose second input is a weight.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# With `reduce_range`, codes lie at most this far from the zero point: 7 of 8 bits.
_REDUCED = 64


@dataclass(frozen=True)
class Settings:
    """How a model was quantized, as arguments of quantize_static.

    Attributes:
        form: ``QDQ`` or ``QOperator``.
        activation_type: the name of a QuantType.
        weight_type: the same.
        per_channel: whether weights have a scale for each output channel.
        reduce_range: whether weights use 7 of their 8 bits.
        extra_options: what quantize_static takes under this name.
        excluded: names of nodes that were left in float.
    """

    form: str
    activation_type: str
    weight_type: str
    per_channel: bool
    reduce_range: bool
    extra_options: Mapping[str, Any]
    excluded: Sequence[str]


def settings_of(quantized: Network, floating: Network) -> Settings:
    """How `quantized` was made from `floating`.

    Raises:
        QdebugError: quantize_static does not make such models.
    """
    graph, shown = quantized.graph, printable(quantized.graph.path)
    tensors = quantized_tensors(quantized)
    activations = [t for t in tensors if not t.is_constant and t.scale]
    if not activations:
        raise QdebugError(
            f"{shown}: found no activation with a fixed scale, expected a statically quantized "
            "model: quantize_static makes no other"
        )
    weights = [t for t in tensors if t.kind == "weight" and t.scale]
    params = {id(t): _params(graph, t) for t in (*activations, *weights)}
    of_activations, of_weights = (
        [p for t in ts if (p := params[id(t)])] for ts in (activations, weights)
    )
    partner_of = partners(quantized, floating)
    removed = any(p.absorbed for p in partner_of.values())
    kept = any(o.op in ("Relu", "Clip") for o in quantized.operators)
    symmetric = _symmetric(of_activations)
    extra: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": _symmetric(of_weights),
        "AddQDQPairToWeight": any(t.floats for t in weights),
        "QDQKeepRemovableActivations": kept and not removed and not symmetric,
    }
    if _has_dedicated_pairs(graph):
        extra["DedicatedQDQPair"] = True
    if _has_bias(quantized) and not any(t.kind == "bias" for t in tensors):
        extra["QuantizeBias"] = False
    if any(n.op_type == "QuantizeLinear" and n.domain for n in graph.model.graph.node):
        extra["UseQDQContribOps"] = True
    return Settings(
        form="QOperator" if any(map(form_of, graph.nodes)) else "QDQ",
        activation_type=_type(activations, shown),
        weight_type=_type(weights or activations, shown),
        per_channel=any(p.channels > 1 for p in of_weights),
        reduce_range=_is_reduced(graph, weights, params),
        extra_options=extra,
        excluded=[
            *_excluded(quantized, floating, tensors, partner_of),
            *([] if symmetric else _free_clamps(quantized, activations, params)),
        ],
    )


def requantized(
    floating: Network,
    quantized: Network,
    left: Collection[str],
    samples: Samples,
    calibration: Samples,
) -> Requantized:
    """The float model, quantized again without these nodes, and its outputs' SQNR.

    Args:
        floating: the float model.
        quantized: its quantized twin.
        left: names of the nodes to leave in float.
        samples: what the models are run on.
        calibration: what the ranges of activations are taken from.

    Raises:
        QdebugError: the quantized model was not made by quantize_static, or it fails.
    """
    settings = settings_of(quantized, floating)
    theirs, ours = floating.graph, quantized.graph
    if len(theirs.outputs) != len(ours.outputs):
        raise QdebugError(
            f"{printable(ours.path)}: found {len(ours.outputs)} outputs, expected "
            f"{len(theirs.outputs)}, as {printable(theirs.path)} has"
        )
    for spec, own in zip(theirs.inputs.values(), ours.inputs.values(), strict=True):
        if spec.dtype != own.dtype:
            raise QdebugError(
                f"{printable(ours.path)}: model input '{printable(own.name)}': found {own.dtype}, "
                f"expected {spec.dtype}, as quantize_static leaves it"
            )
    with (
        tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder,
        whereabouts.temporary(folder),
    ):
        whereabouts.given(theirs.path, "ONNX Runtime's quantizer", loaded=True)
        path = Path(folder) / "model.onnx"
        _quantize(theirs, path, settings, [*settings.excluded, *left], calibration)
        content = path.read_bytes()
        again = read_graph(str(path))
        values: list[list[Sequence[NDArray[Any]]]] = []
        runs = [Session(graph, graph.outputs) for graph in (theirs, ours, again)]
        for sample in samples:
            found: list[Sequence[NDArray[Any]]] = []
            for graph, session in zip((theirs, ours, again), runs, strict=True):
                names = list(theirs.inputs if graph is not ours else ours.inputs)
                made = session.run(dict(zip(names, sample, strict=True)), graph.outputs)
                found.append([made[name] for name in graph.outputs])
            values.append(found)
    before, after = (
        outputs_of(theirs.outputs, ((found[0], found[other]) for found in values))
        for other in (1, 2)
    )
    return Requantized(content, before, after)


def _quantize(
    graph: Graph, path: Path, settings: Settings, left: Sequence[str], calibration: Samples
) -> None:
    """Write the quantized model.

    Raises:
        QdebugError: quantize_static fails.
    """
    try:
        from onnxruntime import quantization as ort
    except ImportError:
        raise MissingExtraError("ONNX models need", "onnx") from None

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        """The samples, one by one."""

        def __init__(self) -> None:
            self._samples = iter(calibration)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """The next sample, None after the last."""
            values = next(self._samples, None)
            return None if values is None else dict(zip(graph.inputs, values, strict=True))

    try:
        with _silent():
            ort.quantize_static(
                graph.path,
                path,
                Reader(),
                quant_format=ort.QuantFormat[settings.form],
                activation_type=ort.QuantType[settings.activation_type],
                weight_type=ort.QuantType[settings.weight_type],
                per_channel=settings.per_channel,
                reduce_range=settings.reduce_range,
                nodes_to_exclude=list(left),
                extra_options=dict(settings.extra_options),
            )
    except QdebugError:
        raise
    except Exception as error:  # onnxruntime has a dozen exception types without a common parent
        raise QdebugError(f"{printable(graph.path)}: quantize_static: {one_line(error)}") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the converter's warnings and progress output."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _params(graph: Graph, tensor: Quantized) -> QuantParams | None:
    """How a tensor is quantized; None if its constants do not say."""
    shape = graph.constant_shape(tensor.floats or tensor.codes) if tensor.is_constant else ()
    try:
        return quant_params(graph, tensor, shape)
    except FieldError:
        return None


def _symmetric(params: Sequence[QuantParams]) -> bool:
    """Whether all zero points are the middle code."""
    return bool(params) and all(
        np.all(p.zero_point == middle_code((p.qmin, p.qmax))) for p in params
    )


def _type(tensors: Sequence[Quantized], shown: str) -> str:
    """The most common code type, by its name in QuantType.

    Raises:
        QdebugError: quantize_static has no such type.
    """
    names = [
        f"{dtype.rstrip('0123456789')}{bits}"
        for dtype, bits in (CODE_TYPES.get(t.code_type, ("other", 0)) for t in tensors)
    ]
    common = max(dict.fromkeys(names), key=names.count)
    if common not in _TYPES:
        raise QdebugError(f"{shown}: found {common} codes, expected a type of quantize_static's")
    return _TYPES[common]


def _is_reduced(
    graph: Graph, weights: Sequence[Quantized], params: Mapping[int, QuantParams | None]
) -> bool:
    """Whether no weight uses more than 7 of 8 bits, and one of them uses all 7."""
    widest = 0
    for tensor in weights:
        known = params[id(tensor)]
        if tensor.floats or known is None or known.bits != 8 or tensor.block:
            return False
        codes = graph.constant(tensor.codes, "quantized").astype(np.int64)
        if codes.size:
            zero_point = known.along(codes.ndim)[1]
            widest = max(widest, int(np.abs(codes - zero_point).max()))
    return _REDUCED - 2 < widest <= _REDUCED


def _has_dedicated_pairs(graph: Graph) -> bool:
    """Whether a tensor is quantized once for each operator that reads it."""
    seen: set[tuple[str, ...]] = set()
    for node in graph.nodes:
        if node.op == "QuantizeLinear":
            if node.inputs in seen:
                return True
            seen.add(node.inputs)
    return False


def _has_bias(net: Network) -> bool:
    return any(
        operator.op in ("Conv", "ConvTranspose", "Gemm") and len(operator.inputs) > 2
        for operator in net.operators
    )


def _excluded(
    quantized: Network,
    floating: Network,
    tensors: Sequence[Quantized],
    partner_of: Mapping[str, Partner],
) -> list[str]:
    """The float model's nodes that the quantized model has in float.

    A node is in float if a float tensor that it makes or reads is not quantized, or its weight is
    not. A node whose tensors are all quantized for other nodes does not count.
    """
    origins = {quantized.origin.get(codes, codes) for codes in _codes(quantized, tensors)}
    with_partner = origins & partner_of.keys()
    rounded = {partner_of[origin].tensor for origin in with_partner}
    removed: set[str] = set()
    for origin in with_partner:
        partner = partner_of[origin]
        for operator in filter(None, (partner.operator, *partner.absorbed)):
            rounded.update(operator.outputs)
        removed.update(operator.node.name for operator in partner.absorbed)
    types = _types(floating.graph)
    found = []
    for operator in floating.operators:
        if operator.node.name in removed or not operator.node.name:
            continue
        activations = [
            tensor
            for tensor in (*operator.inputs, *operator.outputs)
            if tensor in types and not floating.graph.is_constant(tensor)
        ]
        weight = operator.inputs[1] if operator.op in _WEIGHTED else ""
        touched = [tensor for tensor in activations if tensor in rounded]
        if len(touched) < len(activations) or (
            floating.graph.is_constant(weight) and weight not in rounded
        ):
            found.append(operator.node.name)
    return found


def _free_clamps(
    net: Network, activations: Sequence[Quantized], params: Mapping[int, QuantParams | None]
) -> list[str]:
    """The Relu and Clip nodes whose input has a range of its own.

    Where quantize_static quantizes such a node, its input gets the range of its output.
    """
    of = {net.origin.get(t.codes, t.codes): params[id(t)] for t in activations}
    found = []
    for operator in net.operators:
        if operator.op in ("Relu", "Clip") and operator.node.name:
            ends = of.get(operator.inputs[0]), of.get(operator.outputs[0])
            if (
                all(ends)
                and len({(float(p.scale[0]), int(p.zero_point[0])) for p in ends if p}) > 1
            ):
                found.append(operator.node.name)
    return found


def _codes(net: Network, tensors: Sequence[Quantized]) -> set[str]:
    """All tensors that hold codes, including codes that a MaxPool or Reshape passes on."""
    codes = {tensor.codes for tensor in tensors}
    for node in net.graph.nodes:
        if node.input(0) in codes and node.op != "DequantizeLinear" and form_of(node) is None:
            codes.update(node.outputs)
    return codes


def _types(graph: Graph) -> set[str]:
    """The tensors that are known to hold floats."""
    from onnx import TensorProto, shape_inference

    try:
        inferred = shape_inference.infer_shapes(graph.model).graph
    except Exception:  # a model that it cannot follow still runs
        inferred = graph.model.graph
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return {
        value.name
        for values in (inferred.input, inferred.value_info, inferred.output)
        for value in values
        if value.type.tensor_type.elem_type in floats
    }
