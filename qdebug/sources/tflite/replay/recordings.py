"""Recorded tensors, sample by sample: a runtime's, a device's dump, or both. Compares nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import OptionError, QdebugError
from qdebug.names import nearest, printable, some
from qdebug.report.replay import Recorded
from qdebug.sources.inputs import Inputs, InputSpec, Samples, array_names, file_of, read_samples
from qdebug.sources.tflite.build import Built, build
from qdebug.sources.tflite.graph import Graph
from qdebug.sources.tflite.layers import unique_names
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.references import check_fed, quantized_inputs
from qdebug.sources.tflite.run import Kernels

Values = Mapping[int, NDArray[Any]]


class Recordings:
    """Recorded tensors, sample by sample; can be iterated any number of times.

    Attributes:
        dumped: tensors whose codes are those of the dump.
        run: the graph that the runtime runs; None if nothing is run.
        what: what computed the codes.
        count: number of samples.
        notes: one line each.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs | None,
        outputs: Inputs | None,
        samples: int | None,
        kernels: Kernels | None,
    ) -> None:
        graph = model.graph
        self.notes: list[str] = []
        self.dumped: list[int] = []
        self.run: Graph | None = None
        self._graph = graph
        self._dump: Samples | None = None
        self._inputs: Samples | None = None
        self._built: Built | None = None
        self._given = {tensor: place for place, tensor in enumerate(graph.inputs)}
        self.what = f"{kernels or 'default'} kernels"
        if inputs is None and outputs is not None and kernels is not None:
            raise OptionError("kernels", "samples to run the model on (--inputs)")
        if outputs is not None:
            self.dumped, self._dump = self._read_dump(model, outputs, samples)
            self.what = next(iter(file_of(outputs)), "outputs")
            self.notes += self._dump.notes
        if inputs is not None:
            self._inputs = read_samples(inputs, _specs(model), samples)
            self.notes += self._inputs.notes
            self._check_counts(model)
            check_fed(model.path, [graph.tensors[tensor] for tensor in self._given])
            first = quantized_inputs(graph.tensors, self._given, next(iter(self._inputs)))
            reset = any(tensor.variable for tensor in graph.tensors)
            self._built = build(
                model, graph, kernels or "default", first, reset=reset, notes=self.notes
            )
            self.run = self._built.graph
        elif self._dump is None:
            raise QdebugError(
                f"{printable(model.path)}: found no inputs, expected samples to run it on "
                "(--inputs), or the codes of a device (--outputs)"
            )
        counted = self._inputs or self._dump
        assert counted is not None
        self.count = counted.count

    def __iter__(self) -> Iterator[Values]:
        """Each sample's tensors: those of the dump, and the others from the runtime."""
        dump = iter(self._dump) if self._dump else None
        for inputs in self._inputs or range(self.count):
            values: dict[int, NDArray[Any]] = {}
            if self._built and isinstance(inputs, list):
                codes = quantized_inputs(self._graph.tensors, self._given, inputs)
                self._built.runner.run(codes, any(t.variable for t in self._graph.tensors))
                values = {
                    tensor.index: value
                    for tensor in self._graph.tensors
                    if (value := self._built.runner.value(tensor.index)) is not None
                }
            if dump:
                values |= zip(self.dumped, next(dump), strict=True)
            yield values

    def has(self, tensor: int) -> bool:
        """Whether a tensor's value is recorded."""
        if tensor in self.dumped or self._graph.is_constant(tensor):
            return True
        return self.run is not None and self.run.is_computed(tensor)

    def source(self, tensors: Sequence[int]) -> Recorded:
        """Where the codes of these tensors come from, constants apart."""
        dumped = [t in self.dumped for t in tensors if not self._graph.is_constant(t)]
        if not any(dumped):
            return "run"
        return "dump" if all(dumped) else "both"

    def _read_dump(
        self, model: Model, outputs: Inputs, samples: int | None
    ) -> tuple[list[int], Samples]:
        graph, names = model.graph, unique_names(model.graph)
        shown, where = printable(next(iter(file_of(outputs)), "outputs")), printable(model.path)
        stored = array_names(outputs)
        known = {
            index: InputSpec(name, graph.tensors[index].open_shape, dtype, "tensor")
            for index, name in names.items()
            if name in stored
            and graph.is_quantized(index)
            and graph.is_computed(index)
            and (dtype := graph.tensors[index].dtype) is not None
        }
        if not known:
            count = f"{len(stored)} array{'s' * (len(stored) != 1)}"
            found = f"{count} ({some(sorted(stored))})" if stored else "no named arrays"
            expected = [names[t.index] for t in graph.tensors if graph.is_computed(t.index)]
            raise QdebugError(
                f"{shown}: found {found}, "
                f"expected codes named like tensors of {where} ({some(expected)})"
            )
        for name in stored:
            if name not in names.values():
                raise QdebugError(
                    f"{shown}: array '{printable(name)}': found no tensor of this name in {where}; "
                    f"{nearest(name, names.values())}"
                )
        unused = [name for name in stored if name not in [spec.name for spec in known.values()]]
        if unused:
            count = f"{len(unused)} array{'s' * (len(unused) != 1)}"
            self.notes.append(
                f"{shown}: {count} left out, not codes of activations: {some(unused)}"
            )
        return list(known), read_samples(outputs, list(known.values()), samples, "outputs")

    def _check_counts(self, model: Model) -> None:
        assert self._inputs is not None
        if self._dump is not None and self._dump.count != self._inputs.count:
            raise QdebugError(
                f"{printable(self.what)}: found {self._dump.count} samples, expected "
                f"{self._inputs.count}, as in the inputs"
            )


def _specs(model: Model) -> list[InputSpec]:
    """What samples must be: floats for inputs that are quantized.

    Raises:
        QdebugError: an input takes something else than numbers.
    """
    specs = []
    for index, name in zip(model.graph.inputs, model.graph.input_names, strict=True):
        tensor = model.graph.tensors[index]
        dtype = np.dtype(np.float32) if tensor.quantization is not None else tensor.dtype
        if dtype is None:
            where = f"{printable(model.path)}: its input '{printable(name)}'"
            raise QdebugError(f"{where} takes {tensor.type}, expected numbers")
        specs.append(InputSpec(name, tensor.open_shape, dtype))
    return specs
