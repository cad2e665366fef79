"""A live pair of ONNX models, float and quantized, as a source: run side by side, sample by sample.

QDQ models hold their own reference: QuantizeLinear's input. Elsewhere the float model's tensor is
the reference. docs/models.md says what the figures then mean.
"""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Block, Layer, Part, UnreadableLayer, WholePiece
from qdebug.measure.slabs import array_blocks
from qdebug.names import printable, some
from qdebug.sources.inputs import InputSpec, Samples, read_samples
from qdebug.sources.npz.checksum import RangeSum
from qdebug.sources.onnx.graph import CODE_TYPES, Additions, Graph, read_graph
from qdebug.sources.onnx.layers import (
    PACKED,
    Quantized,
    quant_params,
    quantized_tensors,
)
from qdebug.sources.onnx.local import with_local_references
from qdebug.sources.onnx.match import (
    Arrays,
    Pair,
    UnlikeTwinError,
    activation_arrays,
    constant_arrays,
    constant_shape,
    disagreement,
    narrow_codes,
)
from qdebug.sources.onnx.network import Network, network
from qdebug.sources.onnx.pairing import Partner, partners
from qdebug.sources.onnx.run import Session, Tensors


class OnnxModels:
    """The source of a float and a quantized ONNX model that get the same inputs.

    Attributes:
        files: the files read, by the names the user gave them.
        problems: always empty: without both models there is nothing to report.
        layers: in the order of execution: an operator's weights, its bias, what it computes.
        skipped: name and reason of each quantized tensor that is no layer.
        notes: what the user should know of how the files were taken: a line each.
        samples: what the models are run on; None where no inputs were given.
    """

    def __init__(
        self, models: Sequence[str], inputs: str | None = None, *, samples: int | None = None
    ) -> None:
        """Read and pair the models, and run both on the first sample.

        Args:
            models: a float and a quantized .onnx.
            inputs: the samples, .npz or .npy; without them, weights and biases only.
            samples: how many samples to take, from the first; all where None.

        Raises:
            QdebugError: files that cannot be read or run, or models that are no such pair.
        """
        self.files: Sequence[str] = [*models, *([] if inputs is None else [inputs])]
        self.problems: Sequence[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.samples: Samples | None = None
        floating, quantized, self.notes = _in_order(models)
        self._floating, self._quantized = floating.graph, quantized.graph
        pairs = self._paired(floating, quantized)
        self._check_same_network(pairs)
        self._pairs: dict[str, Pair] = {}
        self.layers: list[Layer | UnreadableLayer] = []
        run: _Run | None = None
        if inputs is None:
            self.notes.append("no inputs: weights and biases only")
            pairs = [pair for pair in pairs if pair.tensor.is_constant]
        else:
            pairs, additions = with_local_references(quantized, floating.graph, pairs)
            self._models = _Models(floating.graph, quantized.graph, pairs, additions)
            self.samples = read_samples(inputs, self._models.specs, samples)
            self.notes += self.samples.notes
            run = self._models.run(next(iter(self.samples)), pairs)
        for pair in pairs:
            self._add(pair, run)
        if not self.layers:
            raise QdebugError(self._nothing())
        lonely = [p.name for p in self._pairs.values() if not p.twin and not p.tensor.is_constant]
        if lonely:
            self.notes.append(
                f"nothing in {printable(self._floating.path)} is the twin of {some(lonely)}: "
                "reported without the float model's own run"
            )

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """Each constant by itself; the activations together, for they come from the same runs."""
        made = [layer for layer in layers if not self._pairs[layer.name].tensor.is_constant]
        parts: list[Part] = [
            _Part([layer], partial(self._constant, layer))
            for layer in layers
            if self._pairs[layer.name].tensor.is_constant
        ]
        if made:
            assert self.samples is not None
            parts.append(_Part(made, partial(self._activations, made), self.samples.count))
        return parts

    def _paired(self, floating: Network, quantized: Network) -> list[Pair]:
        """The quantized tensors that can be layers; the others are skipped."""
        twins = partners(quantized, floating)
        shown = printable(floating.graph.path)
        self.skipped += _in_subgraphs(quantized.graph)
        names: set[str] = set()
        pairs = []
        for tensor in quantized_tensors(quantized):
            twin = twins.get(quantized.origin.get(tensor.codes, tensor.codes))
            reason = _unusable(tensor)
            if not reason and not tensor.floats and twin is None:
                reason = f"nothing in {shown} is its twin"
            if reason:
                self.skipped.append((tensor.tensor, reason))
                continue
            name = _unique(twin.tensor if twin else tensor.tensor, names)
            names.add(name)
            pairs.append(Pair(name, tensor, twin, _nodes(tensor, twins)))
        if not pairs:
            raise QdebugError(self._nothing())
        return pairs

    def _nothing(self) -> str:
        """The error of a pair without layers."""
        shown = printable(self._quantized.path)
        if self.skipped:
            name, reason = self.skipped[0]
            return (
                f"{shown}: none of {len(self.skipped)} quantized tensors can be reported: "
                f"'{printable(name)}': {reason}"
            )
        return (
            f"{shown}: found quantized activations only, expected samples to run it on (--inputs)"
        )

    def _check_same_network(self, pairs: Sequence[Pair]) -> None:
        """That most weights are the float model's.

        Raises:
            QdebugError: they are not, or nothing but inputs has a twin.
        """
        theirs, ours = printable(self._floating.path), printable(self._quantized.path)
        if not any(pair.twin and pair.tensor.operator for pair in pairs):
            raise QdebugError(
                f"{ours}: not the network of {theirs}: no quantized tensor has a twin there"
            )
        weights = [pair for pair in pairs if pair.twin and pair.tensor.kind == "weight"]
        apart = {
            pair.name: steps
            for pair in weights
            if (steps := disagreement(pair, self._quantized, self._floating)) is not None
        }
        if 2 * len(apart) > len(weights):
            name, steps = next(iter(apart.items()))
            raise QdebugError(
                f"{ours}: not the network of {theirs}: {len(apart)} of {len(weights)} weights "
                f"differ, '{printable(name)}' by {steps:.3g} steps for half of its elements; "
                "expected the float model that was quantized, after batch normalization was folded"
            )
        if apart:
            self.notes.append(
                f"{some(list(apart))}: far from the weights in {theirs}; is batch normalization "
                "folded into them in one of the models only?"
            )

    def _add(self, pair: Pair, run: "_Run | None") -> None:
        """Make a layer of a pair, or say why it is none; `run` tells activations' shapes."""
        try:
            shape = self._shape(pair, run)
        except UnlikeTwinError as error:
            if pair.tensor.is_constant or not pair.tensor.floats:
                self.skipped.append((pair.name, f"{printable(self._floating.path)}: {error}"))
                return
            pair = replace(pair, twin=None)
            shape = self._shape(pair, run)
        self._pairs[pair.name] = pair
        self.layers.append(self._layer(pair, shape))

    def _shape(self, pair: Pair, run: "_Run | None") -> tuple[int, ...]:
        if run is None or pair.tensor.is_constant:
            return constant_shape(pair, self._quantized, self._floating)
        return self._made(pair, run).codes.shape

    def _layer(self, pair: Pair, shape: tuple[int, ...]) -> Layer | UnreadableLayer:
        tensor = pair.tensor
        try:
            params = quant_params(self._quantized, tensor, shape)
        except FieldError as error:
            return UnreadableLayer(pair.name, str(self._located(error, pair.name)))
        if tensor.block:
            shape = (math.prod(shape) // tensor.block, tensor.block)
        op = tensor.operator.op if tensor.operator else None
        return Layer(pair.name, params, shape, op, tensor.kind, pair.nodes)

    def _constant(self, layer: Layer) -> Iterator[tuple[Layer, Arrays]]:
        try:
            pair = self._pairs[layer.name]
            yield layer, constant_arrays(pair, self._quantized, self._floating)
        except QdebugError as error:
            raise self._located(error, layer.name) from None

    def _activations(self, layers: Sequence[Layer]) -> Iterator[tuple[Layer, Arrays]]:
        assert self.samples is not None
        pairs = [self._pairs[layer.name] for layer in layers]
        for sample in self.samples:
            run = self._models.run(sample, pairs)
            for layer, pair in zip(layers, pairs, strict=True):
                try:
                    yield layer, self._made(pair, run)
                except FieldError as error:
                    raise self._located(error, layer.name) from None

    def _made(self, pair: Pair, run: "_Run") -> Arrays:
        return activation_arrays(pair, run.quantized, run.floating, self._floating)

    def _located(self, error: Exception, name: str) -> LayerError:
        return locate(error, file=printable(self._quantized.path), layer=printable(name))


@dataclass(frozen=True, eq=False)
class _Part(WholePiece):
    """Layers whose data comes together."""

    layers: Sequence[Layer]
    arrays: Callable[[], Iterator[tuple[Layer, Arrays]]]
    runs: int = 1

    @property
    def num_elements(self) -> int:
        return self.runs * sum(math.prod(layer.shape) for layer in self.layers)

    def blocks(self, sums: list[RangeSum]) -> Iterator[tuple[Layer, Block]]:
        for layer, data in self.arrays():
            blocks = array_blocks(data.floats, data.codes, data.model_float, axis=layer.params.axis)
            for block in blocks:
                yield layer, block


@dataclass(frozen=True)
class _Run:
    """What both models made of one sample."""

    quantized: Tensors
    floating: Tensors


class _Models:
    """Both models in the runtime, fed with the same samples."""

    def __init__(
        self, floating: Graph, quantized: Graph, pairs: Sequence[Pair], additions: Additions
    ) -> None:
        narrow = narrow_codes(pair.tensor for pair in pairs if not pair.tensor.is_constant)
        self._quantized = Session(quantized, _wanted_of_quantized(pairs), narrow, additions)
        self._floating = Session(floating, _wanted_of_float(pairs))
        self._inputs = _inputs(floating, quantized)
        self._input_params = _input_params(self._inputs, quantized, pairs)

    @property
    def specs(self) -> list[InputSpec]:
        """What a sample is made of: the float model's inputs."""
        return [spec for spec, _ in self._inputs]

    def run(self, sample: Sequence[NDArray[Any]], pairs: Sequence[Pair]) -> _Run:
        """What these pairs need."""
        feeds, quantized_feeds = {}, {}
        for values, (spec, quantized) in zip(sample, self._inputs, strict=True):
            feeds[spec.name] = values
            params = self._input_params.get(quantized.name)
            quantized_feeds[quantized.name] = (
                quantize(values, params) if params else values.astype(quantized.dtype, copy=False)
            )
        return _Run(
            self._quantized.run(quantized_feeds, _wanted_of_quantized(pairs)),
            self._floating.run(feeds, _wanted_of_float(pairs)),
        )


def _wanted_of_quantized(pairs: Sequence[Pair]) -> list[str]:
    """The quantized model's tensors that these pairs' arrays are made of."""
    return [
        tensor
        for pair in pairs
        if not pair.tensor.is_constant
        for tensor in (pair.tensor.codes, pair.tensor.floats)
        if tensor
    ]


def _wanted_of_float(pairs: Sequence[Pair]) -> list[str]:
    """The float model's."""
    return [pair.twin.tensor for pair in pairs if pair.twin and not pair.tensor.is_constant]


def _inputs(floating: Graph, quantized: Graph) -> list[tuple[InputSpec, InputSpec]]:
    """The inputs of both models: of the same name, else by their order.

    The float model's take on what only the quantized one says of their shape.

    Raises:
        QdebugError: one model has more of them.
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
    inputs: Sequence[tuple[InputSpec, InputSpec]], quantized: Graph, pairs: Sequence[Pair]
) -> dict[str, QuantParams]:
    """How inputs are quantized that the quantized model takes as codes.

    Raises:
        QdebugError: it does not say how.
    """
    by_codes = {pair.tensor.codes: pair.tensor for pair in pairs}
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


def _in_order(models: Sequence[str]) -> tuple[Network, Network, list[str]]:
    """The float network, the quantized one, and a note where they were given the other way round.

    Raises:
        QdebugError: a file that cannot be read, or not one of either.
    """
    shown = [printable(path) for path in models]
    if len(models) != 2:
        raise QdebugError(
            f"{', '.join(shown)}: found {len(models)} ONNX models, expected a float one and its "
            "quantized twin"
        )
    first, second = (network(read_graph(path)) for path in models)
    found = [bool(quantized_tensors(net)) for net in (first, second)]
    if found == [False, True]:
        return first, second, []
    if found == [True, False]:
        note = f"{shown[0]} is the quantized model and {shown[1]} the float one: taken so"
        return second, first, [note]
    what = "no quantized tensor" if found == [False, False] else "quantized tensors"
    if Path(models[0]).resolve() == Path(models[1]).resolve():
        where = f"{shown[0]}: found the same file twice, with {what}"
    else:
        where = f"{shown[0]}, {shown[1]}: found {what} in both"
    raise QdebugError(f"{where}; expected a float model and its quantized twin")


def _nodes(tensor: Quantized, twins: Mapping[str, Partner]) -> tuple[str, ...]:
    """Names of the float nodes that do the work of a tensor's operator; none where one has none."""
    outputs = tensor.operator.outputs if tensor.operator else ()
    for twin in (twins[output] for output in outputs if output in twins):
        if twin.operator:
            nodes = [operator.node.name for operator in (twin.operator, *reversed(twin.absorbed))]
            return tuple(nodes) if all(nodes) else ()
    return ()


def _unusable(tensor: Quantized) -> str:
    """Why a quantized tensor can be no layer, empty where it can."""
    if tensor.operator and tensor.operator.node.op == PACKED and tensor.is_constant:
        return f"weights packed for {PACKED} are not read (in QDQ form, they are)"
    if not tensor.scale:
        return "its scale is made while the model runs, for each input anew"
    if tensor.code_type not in CODE_TYPES:
        return f"its codes are no integers (ONNX type {tensor.code_type})"
    if tensor.block and not tensor.is_constant:
        return f"every {tensor.block} of its elements have a scale of their own"
    return ""


def _in_subgraphs(graph: Graph) -> list[tuple[str, str]]:
    """What is quantized within control flow."""
    found = []
    for node in graph.nodes:
        for name in node.inner_quantizers:
            found.append((name, f"it is within the {node.op} '{printable(node.name)}'"))
    return found


def _unique(name: str, taken: Container[str]) -> str:
    """The name, with a number where it is taken."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}:{count}"
    return unique
