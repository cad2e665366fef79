"""ONNX models: the layers of a float .onnx and its quantized twin, run on samples.

QDQ models hold their own reference: QuantizeLinear's input. In other models the float model's
tensor is the reference. docs/models.md says what the figures then mean.
"""

import math
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams, dequantize
from qdebug.arithmetic.grids import Grid
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.outputs import Output, OutputRuns
from qdebug.measure.slabs import hand_over, hand_over_decoded
from qdebug.names import printable, some
from qdebug.sources.inputs import Inputs, InputSpec, Samples, file_of, read_samples
from qdebug.sources.onnx.blocks import decoded, grid_of
from qdebug.sources.onnx.feeds import Feeds
from qdebug.sources.onnx.graph import CODE_TYPES, Additions, Graph, read_graph
from qdebug.sources.onnx.layers import (
    PACKED,
    Quantized,
    feeders,
    quant_params,
    quantized_tensors,
    slice_axis,
)
from qdebug.sources.onnx.network import Network, network
from qdebug.sources.onnx.pairing import Partner, partners
from qdebug.sources.onnx.references import (
    Arrays,
    Match,
    UnlikePartnerError,
    activation_arrays,
    clamp_of,
    constant_arrays,
    constant_shape,
    disagreement,
    narrow_codes,
    with_local_references,
)
from qdebug.sources.onnx.run import Session, Tensors

if TYPE_CHECKING:
    from qdebug.measure.requantized import Requantized

# onnxruntime's operators that take quantized weights and that no float operator is like.
_OWN_WAYS = (
    "DynamicQuantizeLSTM",
    "QAttention",
    "QEmbedLayerNormalization",
    "MatMulBnb4",
    "QMoE",
    "GatherBlockQuantized",
)


class OnnxModels:
    """The source of a float and a quantized ONNX model, which get the same inputs.

    Attributes:
        files: the files read, by the names the user gave them.
        problems: always empty, because without both models there is nothing to report.
        layers: in the order of execution: an operator's weights, its bias, its output.
        skipped: name and reason of each quantized tensor that is not a layer.
        notes: what the user should know about how the files were used, one line each.
        samples: what the models are run on; None if no inputs were given.
        floating: the float model's network.
        quantized: the quantized model's.
    """

    def __init__(
        self, models: Sequence[str], inputs: Inputs | None = None, *, samples: int | None = None
    ) -> None:
        """Read and pair the models, and run both on the first sample.

        Args:
            models: a float and a quantized .onnx.
            inputs: the samples, a file (.npz or .npy) or arrays; None for weights and biases only.
            samples: how many samples to use, from the first; None for all.

        Raises:
            QdebugError: a file cannot be read or run, or the models are not such a pair.
        """
        self.files: Sequence[str] = [*models, *file_of(inputs)]
        self.problems: Sequence[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.samples: Samples | None = None
        self.runtime: dict[str, str] = {}
        self._output_runs = OutputRuns()
        floating, quantized, self.notes = _in_order(models)
        self.floating, self.quantized = floating, quantized
        self._floating, self._quantized = floating.graph, quantized.graph
        matches = self._matched(floating, quantized)
        self._check_same_network(matches)
        tensors = {match.name: match.tensor for match in matches}
        self._matches: dict[str, Match] = {}
        self.layers: list[Layer | UnreadableLayer] = []
        run: _Run | None = None
        if inputs is None:
            self.notes.append("no inputs: weights and biases only")
            matches = [match for match in matches if match.tensor.is_constant]
        else:
            matches, additions = with_local_references(quantized, floating.graph, matches)
            self._models = _Models(floating.graph, quantized.graph, matches, additions)
            self.samples = read_samples(inputs, self._models.specs, samples)
            self.notes += self.samples.notes
            self.runtime = {"onnxruntime": version("onnxruntime")}
            run = self._models.run(0, next(iter(self.samples)), matches)
        for match in matches:
            self._add(match, run)
        fed_by = feeders(quantized, {name: tensors[name] for name in self._matches})
        self.layers = [replace(layer, inputs=fed_by[layer.name]) for layer in self.layers]
        if not self.layers:
            raise QdebugError(self._nothing())
        lonely = [
            p.name for p in self._matches.values() if not p.partner and not p.tensor.is_constant
        ]
        if lonely:
            self.notes.append(
                f"nothing in {printable(self._floating.path)} is the partner of {some(lonely)}: "
                "reported without the float model's own run"
            )

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """A part for each constant, and one for all activations, because they share the runs."""
        made = [layer for layer in layers if not self._matches[layer.name].tensor.is_constant]
        parts: list[Part] = [
            _Part([layer], partial(self._read_constant, layer))
            for layer in layers
            if self._matches[layer.name].tensor.is_constant
        ]
        if made:
            assert self.samples is not None
            parts.append(_Part(made, partial(self._read_activations, made), self.samples.count))
        return parts

    @property
    def matches(self) -> Sequence[Match]:
        """What each layer is in the models; also of layers that cannot be read."""
        return list(self._matches.values())

    def outputs(self) -> Sequence[Output]:
        """The models' float outputs over all samples."""
        if self.samples is None:
            return ()
        return self._output_runs.completed(
            self.samples.count,
            self.samples,
            lambda number, sample: self._models.run(number, sample, []).outputs,
        )

    def requantized(
        self, left: Collection[str], calibration: Inputs | None = None
    ) -> "Requantized":
        """The float model, quantized again with these nodes in float.

        Args:
            left: names of nodes.
            calibration: samples for the ranges; None for those that the models are run on.

        Raises:
            QdebugError: there are no inputs, or the converter fails.
        """
        from qdebug.sources.onnx.apply import requantized

        if self.samples is None:
            raise QdebugError("found no samples, expected some to calibrate with (--inputs)")
        given = (
            self.samples if calibration is None else read_samples(calibration, self._models.specs)
        )
        return requantized(self.floating, self.quantized, left, self.samples, given)

    def _matched(self, floating: Network, quantized: Network) -> list[Match]:
        """The quantized tensors that can be layers; the others go to `skipped`."""
        partner_of = partners(quantized, floating)
        shown = printable(floating.graph.path)
        self.skipped += [*_in_subgraphs(quantized.graph), *_unread(quantized.graph)]
        names: set[str] = set()
        matches = []
        lonely = 0  # weights without a partner
        for tensor in quantized_tensors(quantized):
            partner = partner_of.get(quantized.origin.get(tensor.codes, tensor.codes))
            reason = _unusable(tensor)
            if not reason and not tensor.floats and partner is None:
                reason = f"nothing in {shown} is its partner"
                lonely += tensor.is_constant
            if reason:
                self.skipped.append((tensor.tensor, reason))
                continue
            name = _unique(partner.tensor if partner else tensor.tensor, names)
            names.add(name)
            matches.append(Match(name, tensor, partner, _nodes(tensor, partner_of)))
        if not matches and lonely:
            raise QdebugError(
                f"{printable(quantized.graph.path)}: not the network of {shown}: none of its "
                f"{lonely} quantized weights has a partner there"
            )
        if not matches:
            raise QdebugError(self._nothing())
        return matches

    def _nothing(self) -> str:
        """The error message for a pair without layers."""
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

    def _check_same_network(self, matches: Sequence[Match]) -> None:
        """Check that most weights agree with the float model's.

        Raises:
            QdebugError: they do not, or only inputs have a partner.
        """
        theirs, ours = printable(self._floating.path), printable(self._quantized.path)
        if not any(match.partner and match.tensor.operator for match in matches):
            raise QdebugError(
                f"{ours}: not the network of {theirs}: no quantized tensor has a partner there"
            )
        weights = [match for match in matches if match.partner and match.tensor.kind == "weight"]
        apart = {
            match.name: steps
            for match in weights
            if (steps := disagreement(match, self._quantized, self._floating)) is not None
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

    def _add(self, match: Match, run: "_Run | None") -> None:
        """Add the layer of a match, or the reason to skip it; `run` has the activations' shapes."""
        try:
            shape = self._shape(match, run)
        except UnlikePartnerError as error:
            if match.tensor.is_constant or not match.tensor.floats:
                self.skipped.append((match.name, f"{printable(self._floating.path)}: {error}"))
                return
            match = replace(match, partner=None)
            shape = self._shape(match, run)
        self._matches[match.name] = match
        self.layers.append(self._layer(match, shape))

    def _shape(self, match: Match, run: "_Run | None") -> tuple[int, ...]:
        if run is None or match.tensor.is_constant:
            return constant_shape(match, self._quantized, self._floating)
        return self._made(match, run).codes.shape

    def _layer(self, match: Match, shape: tuple[int, ...]) -> Layer | UnreadableLayer:
        tensor = match.tensor
        how = grid_of if tensor.block else quant_params
        try:
            params: QuantParams | Grid = how(self._quantized, tensor, shape)
        except FieldError as error:
            return UnreadableLayer(match.name, str(self._located(error, match.name)))
        op = tensor.operator.op if tensor.operator else None
        view = None
        if params.axis is None and not tensor.is_constant and (axis := slice_axis(tensor, shape)):
            view = (axis, shape[axis])
        clamp = clamp_of(match, self._floating)
        about = (op, tensor.kind, match.nodes)
        return Layer(match.name, params, shape, *about, view=view, clamp=clamp)

    def _read_constant(self, layer: Layer, visitor: Visitor) -> None:
        tensor = self._matches[layer.name].tensor
        try:
            arrays = constant_arrays(self._matches[layer.name], self._quantized, self._floating)
            if isinstance(layer.quantization, Grid):
                grid, found = layer.quantization, decoded(self._quantized, tensor, arrays.codes)
                hand_over_decoded(visitor, layer, grid.rows(arrays.floats), found.mapped(grid.rows))
                return
        except QdebugError as error:
            raise self._located(error, layer.name) from None
        hand_over(visitor, layer, arrays.floats, arrays.codes)

    def _read_activations(self, layers: Sequence[Layer], visitor: Visitor) -> None:
        """Run each sample once.

        Raises:
            LayerError: a run fails.
            QdebugError: the samples cannot be read.
        """
        assert self.samples is not None
        matches = [self._matches[layer.name] for layer in layers]
        for number, sample in enumerate(self.samples):
            try:
                run = self._models.run(number, sample, matches)
            except QdebugError as error:
                raise LayerError(str(error)) from None
            self._output_runs.note(number, run.outputs)
            for layer, match in zip(layers, matches, strict=True):
                try:
                    made = self._made(match, run)
                    more = made.model_float, made.weights_float
                    hand_over(visitor, layer, made.floats, made.codes, *more)
                except FieldError as error:
                    located = self._located(f"sample {number}: {error}", layer.name)
                    visitor.fail(layer, str(located))
            del run  # free its memory before the next run

    def _made(self, match: Match, run: "_Run") -> Arrays:
        return activation_arrays(match, run.quantized, run.floating, self._floating)

    def _located(self, error: Exception | str, name: str) -> LayerError:
        return locate(error, file=printable(self._quantized.path), layer=printable(name))


@dataclass(frozen=True, eq=False)
class _Part:
    """Layers whose data is read together."""

    layers: Sequence[Layer]
    read_into: Callable[[Visitor], None]
    runs: int = 1
    whole = None
    waits = False

    @property
    def num_elements(self) -> int:
        return self.runs * sum(math.prod(layer.shape) for layer in self.layers)

    def read(self, visitor: Visitor) -> None:
        self.read_into(visitor)


@dataclass(frozen=True)
class _Run:
    """The values of both models for one sample.

    `outputs` maps a float output of the float model to its value in both models.
    """

    number: int
    quantized: Tensors
    floating: Tensors
    outputs: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


class _Models:
    """Both models in the runtime, fed with the same samples."""

    def __init__(
        self, floating: Graph, quantized: Graph, matches: Sequence[Match], additions: Additions
    ) -> None:
        narrow = narrow_codes(match.tensor for match in matches if not match.tensor.is_constant)
        self._outputs = _outputs(floating, quantized)
        wanted = [*_wanted_of_quantized(matches), *self._outputs.values()]
        self._quantized = Session(quantized, wanted, narrow, additions)
        self._floating = Session(floating, [*_wanted_of_float(matches), *self._outputs])
        self._feeds = Feeds(floating, quantized, [match.tensor for match in matches])
        self._codes = {match.tensor.codes: match.tensor for match in matches}
        self._graph = quantized
        self._last: _Run | None = None

    @property
    def specs(self) -> list[InputSpec]:
        """The inputs of a sample: those of the float model."""
        return self._feeds.specs

    def run(self, number: int, sample: Sequence[NDArray[Any]], matches: Sequence[Match]) -> _Run:
        """The values that these matches need; reuses the last run if it has all of them."""
        wanted = [*_wanted_of_quantized(matches), *self._outputs.values()]
        wanted_of_float = [*_wanted_of_float(matches), *self._outputs]
        last, self._last = self._last, None
        if (
            last is None
            or last.number != number
            or not last.quantized.keys() >= set(wanted)
            or not last.floating.keys() >= set(wanted_of_float)
        ):
            del last  # free its memory before the next run
            feeds, quantized_feeds = self._feeds.of(sample)
            made = self._quantized.run(quantized_feeds, wanted)
            made_in_float = self._floating.run(feeds, wanted_of_float)
            last = _Run(number, made, made_in_float, self._compared(made, made_in_float))
        self._last = last
        return last

    def _compared(
        self, made: Tensors, made_in_float: Tensors
    ) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """The float model's float outputs and the quantized model's, dequantized, by name."""
        found = {}
        for theirs, ours in self._outputs.items():
            floats, values = made_in_float[theirs], made[ours]
            if values.dtype.kind in "iu" and ours in self._codes:
                params = quant_params(self._graph, self._codes[ours], values.shape)
                values = dequantize(values, params)
            kinds = floats.dtype.kind + values.dtype.kind
            if kinds == "ff" and floats.shape == values.shape:
                found[theirs] = (floats, values)
        return found


def _outputs(floating: Graph, quantized: Graph) -> dict[str, str]:
    """The float model's outputs and the quantized one's, paired by name, else by order."""
    theirs, ours = floating.outputs, quantized.outputs
    if set(theirs) == set(ours):
        return {name: name for name in theirs}
    return dict(zip(theirs, ours, strict=False)) if len(theirs) == len(ours) else {}


def _wanted_of_quantized(matches: Sequence[Match]) -> list[str]:
    """The quantized model's tensors that the arrays of these matches need."""
    return [
        tensor
        for match in matches
        if not match.tensor.is_constant
        for tensor in (match.tensor.codes, match.tensor.floats, match.weighted)
        if tensor
    ]


def _wanted_of_float(matches: Sequence[Match]) -> list[str]:
    """The float model's."""
    return [
        match.partner.tensor for match in matches if match.partner and not match.tensor.is_constant
    ]


def _in_order(models: Sequence[str]) -> tuple[Network, Network, list[str]]:
    """The float network, the quantized one, and a note if they were given in reverse order.

    Raises:
        QdebugError: a file cannot be read, or the files are not one of each kind.
    """
    shown = [printable(path) for path in models]
    if len(models) != 2:
        raise QdebugError(
            f"{', '.join(shown)}: found {len(models)} ONNX models, expected a float one and its "
            "quantized partner"
        )
    first, second = (network(read_graph(path)) for path in models)
    found = [bool(quantized_tensors(net) or _unread(net.graph)) for net in (first, second)]
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


def _nodes(tensor: Quantized, partner_of: Mapping[str, Partner]) -> tuple[str, ...]:
    """Names of the float nodes that do the work of a tensor's operator; none if one is unnamed."""
    outputs = tensor.operator.outputs if tensor.operator else ()
    for partner in (partner_of[output] for output in outputs if output in partner_of):
        if partner.operator:
            nodes = [
                operator.node.name for operator in (partner.operator, *reversed(partner.absorbed))
            ]
            return tuple(nodes) if all(nodes) else ()
    return ()


def _unusable(tensor: Quantized) -> str:
    """Why a quantized tensor cannot be a layer, empty if it can."""
    if tensor.operator and tensor.operator.node.op == PACKED and tensor.is_constant:
        return f"weights packed for {PACKED} are not read (in QDQ form, they are)"
    if not tensor.scale:
        return "the scale is computed at run time, for each input"
    if tensor.code_type not in CODE_TYPES:
        return f"the codes are not integers (ONNX type {tensor.code_type})"
    if tensor.block and not tensor.is_constant:
        return f"each block of {tensor.block} elements has its own scale"
    return ""


def _in_subgraphs(graph: Graph) -> list[tuple[str, str]]:
    """Tensors that are quantized inside control flow."""
    found = []
    for node in graph.nodes:
        for name in node.inner_quantizers:
            found.append((name, f"it is within the {node.op} '{printable(node.name)}'"))
    return found


def _unread(graph: Graph) -> list[tuple[str, str]]:
    """Weights of operators that quantize in a way of their own."""
    return [
        (name, f"weights of {node.op} are not read")
        for node in graph.nodes
        if node.op in _OWN_WAYS
        for name in node.inputs
        if graph.is_constant(name)
        and CODE_TYPES.get(graph.code_type(name), ("", 32))[1] <= 8
        and len(graph.constant_shape(name)) > 1
    ]


def _unique(name: str, taken: Container[str]) -> str:
    """The name, with a number if it is taken."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}:{count}"
    return unique
