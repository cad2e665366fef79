"""LiteRT models: the layers of a float .tflite and its quantized twin, run on samples.

Each activation has three values: the codes of the quantized run; `float`, the output of the float
operator for the quantized run's own inputs (the local reference); and `model_float`, the same
tensor in a run of the whole float model. docs/models.md describes how they are obtained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from qdebug.arithmetic.grids import Grid
from qdebug.errors import FieldError, LayerError, QdebugError, locate
from qdebug.measure.layer import Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.outputs import Output, OutputRuns
from qdebug.measure.slabs import hand_over, hand_over_decoded
from qdebug.names import printable
from qdebug.sources.inputs import Inputs, Samples, file_of, read_samples
from qdebug.sources.tflite.graph import Graph
from qdebug.sources.tflite.layers import (
    Broken,
    Constant,
    Skipped,
    constants,
    feeders,
    unique_names,
)
from qdebug.sources.tflite.model import read_model
from qdebug.sources.tflite.references import Activation, Runs, activations, input_specs
from qdebug.sources.tflite.run import Kernels
from qdebug.sources.tflite.twins import Twins, check_same_network, open_twins

if TYPE_CHECKING:
    from qdebug.measure.requantized import Requantized
    from qdebug.sources.tflite.apply import Recipe

_Entry = Constant | Activation | Broken | Skipped


class LitertModels:
    """The source of a float and a quantized .tflite model, or of one in TFLite's debug mode.

    Attributes:
        files: the files read, by the names the user gave them.
        problems: always empty, because without both models there is nothing to report.
        layers: in the order in which the quantized model runs: an operator's weights, its bias,
            its outputs.
        skipped: name and reason of each quantized tensor that is not a layer.
        notes: what the user should know about how the files were used, one line each.
        samples: what the models are run on; None if no inputs were given.
        runtime: its version and kernels, once it is used.
    """

    def __init__(
        self,
        models: Sequence[str],
        inputs: Inputs | None = None,
        *,
        samples: int | None = None,
        kernels: Kernels = "default",
        signature: str | None = None,
    ) -> None:
        """Read and pair the models, and run them on the first sample.

        Args:
            models: a float and a quantized .tflite, or one .tflite with NumericVerify operators.
            inputs: the samples, a file (.npz or .npy) or arrays; None for weights and biases only.
            samples: how many samples to take, from the first; None for all.
            kernels: the runtime's kernels that run the models.
            signature: the signature to run, if a model has several.

        Raises:
            QdebugError: a file cannot be read or run, or the models are not such a pair.
        """
        self.files: list[str] = [*models, *file_of(inputs)]
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.layers: list[Layer | UnreadableLayer] = []
        self.samples: Samples | None = None
        self.runtime: dict[str, str] = {}
        self._twins = open_twins([read_model(path, signature) for path in models], self.notes)
        self._runs: Runs | None = None
        self._output_runs = OutputRuns()
        self._constants: dict[str, Constant] = {}
        self._activations: dict[str, Activation] = {}

        graph, operators = self._twins.quantized_graph, self._twins.pairing.operators
        names = unique_names(graph)
        weights = constants(graph, self._twins.float_graph, operators, names)
        check_same_network(self._twins, [entry for _, entry in weights])
        found: list[tuple[int, _Entry]] = [*weights]
        if inputs is None:
            self.notes.append("no inputs: weights and biases only")
        else:
            self.samples = read_samples(inputs, input_specs(self._twins), samples)
            self.notes += self.samples.notes
            first = next(iter(self.samples))
            try:
                self._runs = Runs(self._twins, kernels, first)
            except QdebugError as error:
                if any(graph.is_quantized(tensor) for tensor in _computed(graph)):
                    raise
                self.notes.append(f"no outputs: {error}")
            else:
                self.notes += self._runs.notes
                self.runtime = {"ai-edge-litert": version("ai-edge-litert"), "kernels": kernels}
                found += activations(self._twins, self._runs, names, first)
                found.sort(key=lambda entry: entry[0])
        for _, entry in found:
            self._add(entry, names[entry.tensor])
        layers = {names[e.tensor]: e.tensor for _, e in found if not isinstance(e, Skipped)}
        fed_by = feeders(graph, layers)
        self.layers = [replace(layer, inputs=fed_by[layer.name]) for layer in self.layers]
        self._add_others({entry.tensor for _, entry in found}, names)
        if not self.layers:
            raise QdebugError(self._nothing())

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """A part for each constant, and one for all activations, because they share the runs."""
        parts: list[Part] = [
            _ConstantPart(replace(self._constants[layer.name], layer=layer), self._twins)
            for layer in layers
            if layer.name in self._constants
        ]
        wanted = [layer for layer in layers if layer.name in self._activations]
        if wanted:
            assert self._runs is not None
            assert self.samples is not None
            entries = [replace(self._activations[layer.name], layer=layer) for layer in wanted]
            parts.append(_ActivationPart(entries, self._runs, self.samples, self._output_runs))
        return parts

    def outputs(self) -> Sequence[Output]:
        """The models' float outputs over all samples."""
        if self._runs is None or self.samples is None:
            return ()
        return self._output_runs.completed(self.samples.count, self.samples, self._runs.outputs)

    def requantized(self, recipe: "Recipe", calibration: Inputs | None = None) -> "Requantized":
        """The float model, quantized again by a recipe of ai-edge-quantizer.

        Args:
            recipe: its entries.
            calibration: samples for the ranges; None for those that the models are run on.

        Raises:
            QdebugError: there are no inputs or no float model, or the converter fails.
        """
        from qdebug.sources.tflite.apply import requantized

        if self.samples is None:
            raise QdebugError("found no samples, expected some to calibrate with (--inputs)")
        if self._twins.in_one:
            raise QdebugError(
                f"{printable(self._twins.quantized.path)}: found a model in TFLite's debug mode, "
                "expected a float and a quantized model"
            )
        specs = input_specs(self._twins)
        given = self.samples if calibration is None else read_samples(calibration, specs)
        models = self._twins.floats, self._twins.quantized
        return requantized(*models, recipe, self.samples, given)

    def _add(self, entry: _Entry, name: str) -> None:
        if isinstance(entry, Skipped):
            self.skipped.append((name, entry.reason))
        elif isinstance(entry, Broken):
            file = printable(self._twins.quantized.path)
            reason = str(locate(entry.error, file=file, layer=printable(name)))
            self.layers.append(UnreadableLayer(name, reason))
        else:
            self.layers.append(entry.layer)
            if isinstance(entry, Constant):
                self._constants[name] = entry
            else:
                self._activations[name] = entry

    def _add_others(self, known: set[int], names: dict[int, str]) -> None:
        """Note why the remaining quantized tensors, which no operator computes, are not layers."""
        graph = self._twins.quantized_graph
        for tensor in graph.tensors:
            index = tensor.index
            if tensor.quantization is None or index in known or graph.is_computed(index):
                continue
            if index in self._twins.scaffolding:
                continue
            reason = (
                "no operator reads it" if tensor.data is not None else "no operator computes it"
            )
            if tensor.variable:
                reason = "a state that an operator keeps"
            self.skipped.append((names[index], reason))
        self.skipped += [
            (name, f"a graph apart from the one that was run; {count} of its tensors are quantized")
            for name, count in self._twins.quantized.others
        ]

    def _nothing(self) -> str:
        """The error message for a pair without layers."""
        shown = printable(self._twins.quantized.path)
        if self.samples is None:
            return f"{shown}: found no quantized weights, expected samples to run it on (--inputs)"
        name, reason = self.skipped[0] if self.skipped else ("", "nothing runs")
        return (
            f"{shown}: none of its {len(self.skipped)} quantized tensors can be reported; "
            f"'{printable(name)}': {reason}"
        )


def _computed(graph: Graph) -> list[int]:
    """The tensors that a run computes."""
    return [tensor.index for tensor in graph.tensors if graph.is_computed(tensor.index)]


@dataclass(frozen=True, eq=False)
class _ConstantPart:
    """One weight or bias."""

    constant: Constant
    twins: Twins
    whole = None
    waits = False

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.constant.layer]

    @property
    def num_elements(self) -> int:
        return math.prod(self.constant.layer.shape)

    def read(self, visitor: Visitor) -> None:
        graphs = self.twins.quantized_graph, self.twins.float_graph
        if isinstance(self.constant.layer.quantization, Grid):
            hand_over_decoded(visitor, self.constant.layer, *self.constant.rows(*graphs))
            return
        hand_over(visitor, self.constant.layer, *self.constant.arrays(*graphs))


@dataclass(frozen=True, eq=False)
class _ActivationPart:
    """Activations, read sample by sample."""

    activations: Sequence[Activation]
    runs: Runs
    samples: Samples
    outputs: OutputRuns
    whole = None
    waits = False

    @property
    def layers(self) -> Sequence[Layer]:
        return [activation.layer for activation in self.activations]

    @property
    def num_elements(self) -> int:
        return self.samples.count * sum(math.prod(layer.shape) for layer in self.layers)

    def read(self, visitor: Visitor) -> None:
        """Run each sample once.

        Raises:
            LayerError: a run fails.
            QdebugError: the samples cannot be read.
        """
        for number, inputs in enumerate(self.samples):
            try:
                values = self.runs.values(number, inputs, self.activations)
                self.outputs.note(number, self.runs.outputs(number, inputs))
            except QdebugError as error:
                raise LayerError(str(error)) from None
            for activation, value in zip(self.activations, values, strict=True):
                if isinstance(value, str):
                    visitor.fail(activation.layer, self._located(activation, number, value))
                    continue
                try:
                    more = value.model, value.weights
                    hand_over(visitor, activation.layer, value.floats, value.codes, *more)
                except FieldError as error:
                    visitor.fail(activation.layer, self._located(activation, number, str(error)))

    def _located(self, activation: Activation, number: int, reason: str) -> str:
        return f"layer '{printable(activation.layer.name)}': sample {number}: {reason}"
