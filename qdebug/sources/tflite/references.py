"""References: what a quantized TFLite model computes, and the floats to compare it with.

Runs the quantized model, its local reference and the float model on one sample at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import dequantize, quantize
from qdebug.errors import FieldError, QdebugError, locate
from qdebug.measure.layer import Layer
from qdebug.names import printable
from qdebug.sources.inputs import InputSpec
from qdebug.sources.tflite.build import build, float_constants
from qdebug.sources.tflite.graph import FLOATS, PACKED_BITS, PASSING, Graph, Tensor
from qdebug.sources.tflite.layers import Broken, Skipped, codes_of_constant, nodes_of, params_of
from qdebug.sources.tflite.rewrite import Read
from qdebug.sources.tflite.run import Kernels, Runner
from qdebug.sources.tflite.twins import Twins


@dataclass(frozen=True, eq=False)
class Activation:
    """The activation at `tensor` of the quantized model, and the sources of its references.

    The local reference is one of: `given`, the position of a model input; `source`, another tensor
    of the quantized run; `local`, a tensor of the local run. `model` is a tensor of the float
    model's own run. `weighted` says whether the operator has quantized weights, or an input that is
    quantized for it.
    """

    layer: Layer
    tensor: int
    given: int | None = None
    source: int | None = None
    local: int | None = None
    model: int | None = None
    weighted: bool = False


@dataclass(frozen=True, eq=False)
class Value:
    """An activation's values after a run; `weights` as in `Block.weights_float`."""

    floats: NDArray[Any]
    codes: NDArray[Any]
    model: NDArray[Any] | None
    weights: NDArray[Any] | None


def input_specs(twins: Twins) -> list[InputSpec]:
    """What samples must be: the float graph's inputs, with the lengths that both graphs accept.

    Raises:
        QdebugError: an input of one model has no partner in the other, or does not take numbers.
    """
    quantized, floats = twins.quantized_graph, twins.float_graph
    given = given_inputs(twins)
    for graph, model, other, paired in (
        (quantized, twins.quantized, twins.floats, given.keys()),
        (floats, twins.floats, twins.quantized, {floats.inputs[at] for at in given.values()}),
    ):
        for index, name in zip(graph.inputs, graph.input_names, strict=True):
            where = f"{printable(model.path)}: its input '{printable(name)}'"
            if index not in paired:
                raise QdebugError(
                    f"{where} has no partner in {printable(other.path)}: not the same network"
                )
            if graph.tensors[index].dtype is None:
                raise QdebugError(f"{where} takes {graph.tensors[index].type}, expected numbers")
    specs = []
    for ours, position in given.items():
        tensor = floats.tensors[floats.inputs[position]]
        assert tensor.dtype is not None
        shape = tuple(
            there if here is None else here
            for here, there in zip(
                tensor.open_shape, quantized.tensors[ours].open_shape, strict=True
            )
        )
        dtype = tensor.dtype if tensor.quantization is None else np.dtype(np.float32)
        specs.append((position, InputSpec(floats.input_names[position], shape, dtype)))
    return [spec for _, spec in sorted(specs, key=lambda entry: entry[0])]


def given_inputs(twins: Twins) -> dict[int, int]:
    """Each input of the quantized graph -> the position of its partner among the float graph's.

    Raises:
        LayerError: as `check_fed`.
    """
    floats = twins.float_graph
    positions = {floats.root[tensor]: position for position, tensor in enumerate(floats.inputs)}
    partners = {
        tensor: twins.pairing.values.get(twins.quantized_graph.root[tensor])
        for tensor in twins.quantized_graph.inputs
    }
    given = {
        tensor: positions[partner]
        for tensor, partner in partners.items()
        if partner is not None and partner in positions
    }
    check_fed(twins.quantized.path, [twins.quantized_graph.tensors[tensor] for tensor in given])
    return given


def check_fed(path: str, inputs: Sequence[Tensor]) -> None:
    """Check that a model's inputs can be quantized by their own parameters.

    Raises:
        LayerError: the scale or zero point of one is none; the message names it and the file.
    """
    for tensor in inputs:
        try:
            if tensor.quantization is not None:
                params_of(tensor)
        except FieldError as error:
            raise locate(error, file=printable(path), layer=printable(tensor.name)) from None


def quantized_inputs(
    tensors: Sequence[Tensor], given: Mapping[int, int], inputs: Sequence[NDArray[Any]]
) -> dict[int, NDArray[Any]]:
    """The inputs as a quantized model of these `tensors` takes them; `given` as `given_inputs`."""
    taken = {}
    for index, position in given.items():
        tensor, values = tensors[index], inputs[position]
        if tensor.quantization is not None:
            taken[index] = np.asarray(quantize(values, params_of(tensor)))
        else:
            assert tensor.dtype is not None
            taken[index] = values.astype(tensor.dtype, copy=False)
    return taken


class Runs:
    """The interpreters of a pair of twins, each built once, for inputs of one shape.

    Attributes:
        quantized_graph: the operators of the quantized model that are run.
        float_graph: the operators of the float model that are run.
        given: each input of the quantized graph -> its position among the given inputs.
        notes: what the user should know about how the models are run, one line each.
    """

    def __init__(self, twins: Twins, kernels: Kernels, inputs: Sequence[NDArray[Any]]) -> None:
        """Build the interpreters; `inputs` are those of the first sample.

        Raises:
            QdebugError: the runtime cannot run one of the models.
        """
        self.given = given_inputs(twins)
        self.float_graph = twins.float_graph
        self.notes: list[str] = []
        self._lock = Lock()
        self._ran: dict[Runner, int] = {}  # the sample that each has run last
        self._tensors = twins.quantized_graph.tensors
        self._inputs = twins.float_graph.inputs
        self._reset = any(
            tensor.variable
            for tensor in (*twins.quantized_graph.tensors, *twins.float_graph.tensors)
        )
        self._local: Runner | None = None
        self._weighted: Runner | None = None  # the local run with the quantized weights
        self._floats: Runner | None = None
        self._fed: dict[Runner, dict[int, int]] = {}
        ran = twins.float_graph if twins.in_one else twins.quantized_graph
        codes = quantized_inputs(self._tensors, self.given, inputs)
        built = build(twins.quantized, ran, kernels, codes, reset=self._reset, notes=self.notes)
        self._quantized, self.quantized_graph = built.runner, built.graph
        if not twins.in_one:
            given = dict(zip(self._inputs, inputs, strict=True))
            built = build(
                twins.floats,
                twins.float_graph,
                kernels,
                given,
                reset=self._reset,
                notes=self.notes,
                constants=float_constants(twins.float_graph),
            )
            self._floats, self.float_graph = built.runner, built.graph
            self._run(self._quantized, 0, lambda: codes)

            def local(cuts: dict[Read, int], weights: Mapping[int, NDArray[Any]]) -> Runner:
                made = build(
                    twins.floats,
                    built.graph,
                    kernels,
                    given,
                    reset=self._reset,
                    notes=self.notes,
                    constants={**built.constants, **weights},
                    cuts=cuts,
                    fed={tensor: self._meaning(tensor).shape for tensor in set(cuts.values())},
                )
                self._fed[made.runner] = {
                    index: tensor for (_, tensor), index in made.fresh.items()
                }
                return made.runner

            self._local = local(_cuts(twins), {})
            self._weighted = local(_cuts(twins, in_codes_only=True), quantized_weights(twins))

    def values(
        self, number: int, inputs: Sequence[NDArray[Any]], activations: Sequence[Activation]
    ) -> list[Value | str]:
        """The values of these activations in a run with these inputs, or why there are none.

        `number` is the sample's. A model that has run this sample last does not run again.

        Raises:
            QdebugError: a run fails.
        """
        with self._lock:
            self._run(
                self._quantized, number, lambda: quantized_inputs(self._tensors, self.given, inputs)
            )
            given = dict(zip(self._inputs, inputs, strict=True))
            if self._local and any(activation.local is not None for activation in activations):
                self._run(self._local, number, lambda: given | self._cut(self._local))
            if self._weighted and any(activation.weighted for activation in activations):
                self._run(self._weighted, number, lambda: given | self._cut(self._weighted))
            if self._floats and any(activation.model is not None for activation in activations):
                self._run(self._floats, number, lambda: given)
            return [self._value(activation, inputs) for activation in activations]

    def outputs(
        self, number: int, inputs: Sequence[NDArray[Any]]
    ) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """The float model's float outputs and the quantized model's, dequantized, by name.

        Outputs that the runtime does not compute, or whose shapes differ, are left out.

        Raises:
            QdebugError: a run fails.
        """
        if self._floats is None:  # one model in debug mode has no float run of its own
            return {}
        with self._lock:
            self._run(
                self._quantized, number, lambda: quantized_inputs(self._tensors, self.given, inputs)
            )
            given = dict(zip(self._inputs, inputs, strict=True))
            self._run(self._floats, number, lambda: given)
            found = {}
            for name, (ours, theirs) in _outputs(self.quantized_graph, self.float_graph).items():
                floats, codes = self._floats.value(theirs), self._quantized.value(ours)
                if floats is None or codes is None or floats.shape != codes.shape:
                    continue
                values = self._meaning(ours)
                if floats.dtype.kind == values.dtype.kind == "f":
                    found[name] = (floats, values)
            return found

    def _run(
        self, runner: Runner, number: int, inputs: Callable[[], Mapping[int, NDArray[Any]]]
    ) -> None:
        if self._ran.get(runner) != number:
            self._ran.pop(runner, None)  # stays so if the run fails
            runner.run(inputs(), self._reset)
            self._ran[runner] = number

    def _cut(self, runner: Runner | None) -> dict[int, NDArray[Any]]:
        """What a local run reads from the quantized one."""
        assert runner is not None
        fed = self._fed[runner]
        read = {tensor: self._meaning(tensor) for tensor in set(fed.values())}
        return {index: read[tensor] for index, tensor in fed.items()}

    def _value(self, activation: Activation, inputs: Sequence[NDArray[Any]]) -> Value | str:
        """The values of an activation in the last run, or why there are none."""
        codes = self._quantized.value(activation.tensor)
        floats: NDArray[Any] | None = None
        if activation.given is not None:
            floats = inputs[activation.given]
        elif activation.source is not None:
            floats = self._meaning(activation.source)
        elif self._local and activation.local is not None:
            floats = self._local.value(activation.local)
        weights = None if activation.local is None else floats
        if self._weighted and activation.weighted and activation.local is not None:
            weights = self._weighted.value(activation.local)
        model: NDArray[Any] | None = None
        if self._floats and activation.model is not None:
            model = self._floats.value(activation.model)
        if codes is None or floats is None:
            return "the runtime does not keep its value"
        for other in (floats, model, weights):
            if other is not None and other.shape != codes.shape:
                return (
                    f"its shape is {list(codes.shape)}, and {list(other.shape)} in the float model"
                )
        return Value(floats, codes, model, weights)

    def _meaning(self, index: int) -> NDArray[Any]:
        """The floats of a tensor of the quantized run, dequantized if it holds codes."""
        value = self._quantized.value(index)
        tensor = self._tensors[index]
        if value is None:
            raise QdebugError(f"the runtime does not keep the value of '{printable(tensor.name)}'")
        if tensor.quantization is None:
            return value
        return dequantize(value, params_of(tensor)).astype(np.float32)


def quantized_weights(twins: Twins) -> dict[int, NDArray[Any]]:
    """The float graph's weights and biases -> what the quantized model has in their place.

    Values are dequantized; constants that cannot be, or have another shape, are left out.
    """
    quantized, floats = twins.quantized_graph, twins.float_graph
    values: dict[int, NDArray[Any]] = {}
    for operator in quantized.operators:
        partner = twins.pairing.operators.get(operator.index)
        for ours, theirs in zip(operator.inputs, partner.inputs if partner else (), strict=False):
            root = quantized.root[ours] if ours >= 0 else -1
            there = floats.root[theirs] if theirs >= 0 else -1
            if not (quantized.is_constant(root) and quantized.is_quantized(root)):
                continue
            tensor = quantized.tensors[root]
            if not floats.is_constant(there) or floats.tensors[there].shape != tensor.shape:
                continue
            with suppress(FieldError):
                codes = codes_of_constant(tensor)
                values[there] = dequantize(codes, params_of(tensor)).astype(np.float32)
    return {tensor: values[root] for tensor, root in enumerate(floats.root) if root in values}


def _outputs(quantized: Graph, floats: Graph) -> dict[str, tuple[int, int]]:
    """The float model's outputs -> both models' tensors, paired by name, else by order."""
    ours = dict(zip(quantized.output_names, quantized.outputs, strict=True))
    theirs = dict(zip(floats.output_names, floats.outputs, strict=True))
    if ours.keys() == theirs.keys():
        return {name: (ours[name], tensor) for name, tensor in theirs.items()}
    if len(quantized.outputs) != len(floats.outputs):
        return {}
    pairs = zip(quantized.outputs, floats.outputs, strict=True)
    return dict(zip(floats.output_names, pairs, strict=True))


def _cuts(twins: Twins, in_codes_only: bool = False) -> dict[Read, int]:
    """What the float operators of the local run read from the quantized run.

    Where the quantized model holds an operator's input as codes, the operator is cut from the
    producer of that input and fed with the dequantized codes. If the value is quantized more than
    once, these are the codes that the operator's own partner reads. A value that the quantized
    model has in float before it quantizes it (its input, for example) is fed as it is. TFLite's
    NumericVerify does the same. With `in_codes_only`, the operator is fed with the codes that its
    partner reads of it, dequantized.
    """
    quantized, floats = twins.quantized_graph, twins.float_graph
    twin_of = {theirs: ours for ours, theirs in twins.pairing.values.items()}
    operators = {operator.index: operator for operator in quantized.operators}
    partner = {theirs.index: operators[ours] for ours, theirs in twins.pairing.operators.items()}
    in_codes = {
        root for tensor, root in enumerate(quantized.root) if quantized.is_quantized(tensor)
    }
    cuts = {}
    for operator in floats.operators:
        if operator.op in PASSING:
            continue
        for tensor in operator.inputs:
            twin = twin_of.get(floats.root[tensor]) if tensor >= 0 else None
            if twin not in in_codes or floats.tensors[tensor].type not in FLOATS:
                continue
            reads = partner[operator.index].inputs if operator.index in partner else ()
            read = [ours for ours in reads if ours >= 0 and quantized.root[ours] == twin]
            if read and (in_codes_only or quantized.is_quantized(twin)):
                cuts[operator.index, tensor] = read[0]
            elif twin not in quantized.inputs or quantized.is_quantized(twin):
                cuts[operator.index, tensor] = twin
    return cuts


def activations(
    twins: Twins, runs: Runs, names: Mapping[int, str], inputs: Sequence[NDArray[Any]]
) -> list[tuple[int, Activation | Broken | Skipped]]:
    """The quantized activations, each with the operator that computes it (-1 for inputs).

    The run with `inputs` gives the layers their shapes and shows which values the runtime keeps.

    Raises:
        QdebugError: a run fails.
    """
    graph = twins.quantized_graph
    found: list[tuple[int, Activation | Broken | Skipped]] = []
    computed = dict.fromkeys(graph.inputs, -1)
    for operator in graph.operators:
        computed |= dict.fromkeys(operator.outputs, operator.index)
    for tensor, operator_index in computed.items():
        if graph.is_quantized(tensor):
            found.append((operator_index, _activation(twins, runs, names, tensor)))
    planned = [entry for _, entry in found if isinstance(entry, Activation)]
    values = dict(
        zip((entry.tensor for entry in planned), runs.values(0, inputs, planned), strict=True)
    )
    return [(index, _shaped(entry, values.get(entry.tensor))) for index, entry in found]


def _shaped(
    entry: Activation | Broken | Skipped, value: Value | str | None
) -> Activation | Broken | Skipped:
    """The activation, with its shape from a run."""
    if not isinstance(entry, Activation):
        return entry
    if isinstance(value, str):
        return Skipped(entry.tensor, value)
    assert value is not None
    shape = value.codes.shape
    # The slices of an activation with one scale: its channels.
    sliced = entry.layer.params.axis is None and len(shape) > 1
    view = (len(shape) - 1, shape[-1]) if sliced else None
    return replace(entry, layer=replace(entry.layer, shape=shape, view=view))


def _activation(
    twins: Twins, runs: Runs, names: Mapping[int, str], index: int
) -> Activation | Broken | Skipped:
    """Where the references of one activation come from, or why it has none."""
    graph, tensor = twins.quantized_graph, twins.quantized_graph.tensors[index]
    assert tensor.quantization is not None
    operator = graph.producer.get(index)
    if tensor.quantization.unread:
        return Skipped(index, tensor.quantization.unread)
    if tensor.type in PACKED_BITS:
        return Skipped(index, f"an activation of type {tensor.type}")
    if operator and index not in runs.quantized_graph.producer:
        return Skipped(index, _lacking(graph))
    try:
        params = params_of(tensor)
    except FieldError as error:
        return Broken(index, error)
    layer = Layer(
        names[index],
        params,
        tensor.shape,
        operator.op if operator else None,
        "activation",
        nodes_of(operator, twins.pairing.operators, twins.float_graph),
    )
    partner = None if twins.in_one else twins.pairing.values.get(graph.root[index])
    model = partner
    if partner is not None:
        theirs = runs.float_graph
        if theirs.tensors[partner].type not in FLOATS:
            return Skipped(index, f"in the float model it is {theirs.tensors[partner].type}")
        if not theirs.is_computed(partner):
            return Skipped(index, _lacking(twins.float_graph))
    if not operator:
        return Activation(layer, index, given=runs.given[index], model=model)
    if operator.op == "QUANTIZE":
        return Activation(layer, index, source=operator.inputs[0], model=model)
    if index in twins.verified:
        return Activation(layer, index, source=twins.verified[index])
    if twins.in_one:
        return Skipped(index, "no NumericVerify operator reads it")
    if partner is None:
        return Skipped(index, f"it has no partner in the float model (operator {operator.op})")
    weighted = any(map(partial(_is_rounded_for_its_reader, graph), operator.inputs))
    return Activation(layer, index, local=partner, model=model, weighted=weighted)


def _is_rounded_for_its_reader(graph: Graph, tensor: int) -> bool:
    """Whether a tensor is a quantized constant, or codes of a value that is computed in float."""
    if not graph.is_quantized(tensor):
        return False
    root = graph.root[tensor]
    return graph.is_constant(root) or not graph.is_quantized(root)


def _lacking(graph: Graph) -> str:
    custom = sorted({operator.op for operator in graph.operators if operator.custom})
    return f"it needs the custom operator {', '.join(map(printable, custom))}, which LiteRT lacks"
