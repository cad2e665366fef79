"""Board: a pair of models as one graph in which every quantized tensor has a switch to float.

The protocol only; `sources.onnx.switchboard` and `sources.tflite.board` build boards, and
`advise.switchboard` searches on them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams

Outputs = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class BoardOperator:
    """An operator that a converter can leave in float.

    Attributes:
        layer: the report's name for its output tensor; for its weight, if only that is a layer.
        nodes: the float model's names for it, which converters take.
        op: its kind, such as ``Conv``.
    """

    layer: str
    nodes: tuple[str, ...]
    op: str | None


class Board(Protocol):
    """The switches of a pair of models, and the samples to run it on."""

    @property
    def operators(self) -> Sequence[BoardOperator]:
        """The operators that can be left in float, in the order of execution."""

    @property
    def neighbours(self) -> Sequence[frozenset[int]]:
        """For each quantized activation, the operators that touch it: places in `operators`."""

    @property
    def fixed(self) -> Sequence[tuple[str, str]]:
        """What has no switch and stays quantized: name and reason."""

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the model's float outputs."""

    @property
    def num_samples(self) -> int:
        """How many samples `run` has."""

    def float_outputs(self, sample: int) -> Outputs:
        """The outputs of the float model itself.

        Raises:
            QdebugError: the runtime fails.
        """

    def quantized_outputs(self, sample: int) -> Outputs:
        """The outputs of the quantized model itself, as floats.

        Raises:
            QdebugError: the runtime fails.
        """

    def run(
        self,
        sample: int,
        left: Collection[int] = (),
        changes: Mapping[str, QuantParams | None] | None = None,
    ) -> Outputs:
        """The outputs with the operators `left` in float, by the converter's own rule.

        Args:
            sample: which sample to run on.
            left: places in `operators`.
            changes: layers to quantize with other parameters; None for enough bits to count as
                exact (16-bit activations). A layer that its operators leave in float stays in
                float. An empty mapping changes nothing, but uses the arithmetic of runs with
                changes: compare those with it.

        Raises:
            QdebugError: the runtime fails, or a layer's codes cannot be changed this way.
        """


@dataclass(frozen=True)
class BoardLayer:
    """A quantized tensor whose parameters can be changed.

    Attributes:
        name: its name in the report.
        kind: ``activation`` or ``weight``.
        params: how it is quantized.
        operators: those that touch it, as places in `Board.operators`.
        axis: the axis of a weight's output channels, if known.
    """

    name: str
    kind: str
    params: QuantParams
    operators: frozenset[int]
    axis: int | None = None


@runtime_checkable
class TunableBoard(Board, Protocol):
    """A board that takes `changes`."""

    @property
    def layers(self) -> Sequence[BoardLayer]:
        """The layers that can be changed, in the order of the report."""

    def floats(self, names: Collection[str], sample: int) -> Mapping[str, NDArray[Any]]:
        """The floats of layers in a run of the float model.

        Raises:
            QdebugError: the runtime fails.
        """
