"""Pairs in memory: float and quantized tensors as arrays. Knows no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arguments import as_array, texts, whole
from qdebug.arithmetic.affine import CODE_DTYPES, FLOAT_DTYPES, QuantParams, Rounding
from qdebug.errors import FieldError, QdebugError
from qdebug.measure.layer import Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.outputs import Output
from qdebug.measure.slabs import hand_over
from qdebug.names import shown
from qdebug.sources.pair_file.fields import KINDS, check_codes, normal_axis


@dataclass(frozen=True, eq=False)
class Pair:
    """A float tensor and the codes it was quantized to. The arrays are not copied.

    Attributes:
        floats: the float reference x, any shape.
        codes: the codes q, of the same shape.
        params: how it is quantized: `scale`, `zero_point`, `axis`, `bits`, `narrow_range`,
            `rounding`, `dtype`, `qmin` and `qmax`.
        model_float: the same tensor in a run of the whole float model, if known.
        weights_float: the output of the float operator with the quantized model's weights, if
            known; `floats` itself if the operator has none.
        op: the operator that makes it, if known.
        kind: ``activation``, ``weight`` or ``bias``, if known.
        nodes: the float model's names for the operator.
        inputs: the layers that feed the operator; None if unknown.
    """

    floats: NDArray[Any]
    codes: NDArray[Any]
    params: QuantParams
    model_float: NDArray[Any] | None
    weights_float: NDArray[Any] | None
    op: str | None
    kind: str | None
    nodes: tuple[str, ...]
    inputs: tuple[str, ...] | None

    def __init__(
        self,
        floats: ArrayLike,
        codes: ArrayLike,
        scale: ArrayLike,
        zero_point: ArrayLike = 0,
        axis: int | None = None,
        *,
        bits: int | None = None,
        narrow_range: bool = False,
        rounding: Rounding = "half_away",
        model_float: ArrayLike | None = None,
        weights_float: ArrayLike | None = None,
        op: str | None = None,
        kind: str | None = None,
        nodes: str | Sequence[str] = (),
        inputs: str | Sequence[str] | None = None,
    ) -> None:
        """Check and keep the arrays. Arguments are those of a pair file (docs/pair-file.md).

        Args:
            floats: float16, float32 or float64; integers and other floats become float64.
            codes: int8, uint8, int16, uint16 or int32.
            scale: above 0; () or (1,) per tensor, (channels,) per channel.
            zero_point: integers within the code range; (), (1,) or (channels,).
            axis: the channel axis, if there is more than one scale; may be negative.
            bits: bits in use, if fewer than the codes' type has.
            narrow_range: the lowest code is not used.
            rounding: ``half_away`` from zero, as in TFLite, or ``half_even``, as in ONNX.
            model_float: of the shape of `floats`.
            weights_float: likewise.
            op: such as ``CONV_2D``.
            kind: ``activation``, ``weight`` or ``bias``.
            nodes: one name or several.
            inputs: names of other layers; none for a constant or a model's input.

        >>> pair = Pair([0.1, 0.2], np.array([1, 2], np.int8), scale=0.1)
        >>> pair
        <Pair float64 (2,) to int8, scale 0.1, zero point 0>
        >>> pair.scale
        array([0.1])

        Raises:
            QdebugError: the arrays do not make a pair; the message gives the field's name in a
                pair file, what was found and what was expected.
        """
        x, q = floats_of("float", floats), as_array("field 'quantized'", codes)
        if q.dtype.name not in CODE_DTYPES:
            raise FieldError("quantized", found=str(q.dtype), expected=", ".join(CODE_DTYPES))
        m = None if model_float is None else floats_of("model_float", model_float)
        w = None if weights_float is None else floats_of("weights_float", weights_float)
        w = x if weights_float is floats else w
        for field, array in (("quantized", q), ("model_float", m), ("weights_float", w)):
            if array is not None and array.shape != x.shape:
                raise FieldError(
                    field, found=f"shape {array.shape}", expected=f"{x.shape}, as 'float' has"
                )
        if op is not None and not isinstance(op, str):
            raise FieldError("op", found=f"{op!r:.60}", expected="text")
        if kind is not None and kind not in KINDS:
            raise FieldError("kind", found=f"'{shown(str(kind))}'", expected=" or ".join(KINDS))
        params = QuantParams.of(
            numbers_of("scale", scale, "biuf", "numbers"),
            numbers_of("zero_point", zero_point, "iu", "integers"),
            q.dtype.name,
            axis=normal_axis(whole("field 'axis'", axis), x.ndim),
            bits=whole("field 'bits'", bits),
            narrow_range=narrow_range,
            rounding=rounding,
        )
        if params.axis is not None and x.shape[params.axis] != params.channels:
            raise FieldError(
                "scale",
                found=f"{params.channels} values",
                expected=f"1 or {x.shape[params.axis]}, the length of axis {params.axis}",
            )
        if q.size:
            check_codes(q, params)
        fields = {"floats": x, "codes": q, "params": params, "model_float": m}
        fields |= {"weights_float": w}
        fields |= {"op": op, "kind": kind, "nodes": tuple(texts("nodes", nodes))}
        fields["inputs"] = None if inputs is None else tuple(texts("inputs", inputs))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def scale(self) -> NDArray[np.float64]:
        """The steps between codes, of shape (channels,)."""
        return self.params.scale

    @property
    def zero_point(self) -> NDArray[np.int64]:
        """The codes of 0.0, of shape (channels,)."""
        return self.params.zero_point

    @property
    def axis(self) -> int | None:
        """The channel axis, from 0; None for one scale."""
        return self.params.axis

    def __repr__(self) -> str:
        params = self.params
        steps = f"{params.channels} scales along axis {params.axis}"
        if params.axis is None:
            steps = f"scale {params.scale[0]:.7g}, zero point {params.zero_point[0]}"
        floats = f"{self.floats.dtype} {self.floats.shape}"
        return f"<Pair {floats} to {params.dtype}, {steps}>"


def floats_of(field: str, values: ArrayLike) -> NDArray[Any]:
    """The values as floats of a type that pair files support.

    Raises:
        QdebugError: they are not numbers.
    """
    array = numbers_of(field, values, "biuf", ", ".join(FLOAT_DTYPES))
    return array if array.dtype.name in FLOAT_DTYPES else array.astype(np.float64)


def numbers_of(field: str, values: ArrayLike, kinds: str, expected: str) -> NDArray[Any]:
    """An array of numbers whose NumPy type is of these kinds.

    Raises:
        QdebugError: it is something else.
    """
    array = as_array(f"field '{field}'", values)
    if array.dtype.kind not in kinds:
        raise FieldError(field, found=str(array.dtype), expected=expected)
    return array


def checked(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """Pairs by layer, as a dictionary.

    Raises:
        QdebugError: `pairs` is something else.
    """
    if not isinstance(pairs, Mapping):
        raise QdebugError(
            f"found a value of type {type(pairs).__name__}, expected a mapping of layers to pairs"
        )
    for name, pair in pairs.items():
        if not isinstance(name, str):
            raise QdebugError(f"layer {name!r:.60}: found a name that is not text, expected text")
        if not isinstance(pair, Pair):
            raise QdebugError(
                f"layer '{shown(name)}': found a value of type {type(pair).__name__}, expected a "
                "qdebug.Pair"
            )
    return dict(pairs)


class MemoryPairs:
    """The source for pairs in memory, by layer."""

    def __init__(self, pairs: Mapping[str, Pair]) -> None:
        """Keep the pairs; they are not copied.

        Raises:
            QdebugError: `pairs` is not a mapping of names to pairs.
        """
        self._pairs = checked(pairs)
        self.files: Sequence[str] = []
        self.problems: Sequence[str] = []
        self.notes: Sequence[str] = []
        self.skipped: Sequence[tuple[str, str]] = []
        self.layers: Sequence[Layer | UnreadableLayer] = [
            Layer(name, p.params, p.floats.shape, p.op, p.kind, p.nodes, inputs=p.inputs)
            for name, p in self._pairs.items()
        ]

    def outputs(self) -> Sequence[Output]:
        """None: a model's outputs are not among pairs."""
        return ()

    def parts(self, layers: Sequence[Layer]) -> Sequence[Part]:
        """Each layer by itself."""
        return [_MemoryPart(layer, self._pairs[layer.name]) for layer in layers]


@dataclass(frozen=True, eq=False)
class _MemoryPart:
    """One pair."""

    layer: Layer
    pair: Pair
    whole = None
    waits = False

    @property
    def layers(self) -> Sequence[Layer]:
        return [self.layer]

    @property
    def num_elements(self) -> int:
        return self.pair.floats.size

    def read(self, visitor: Visitor) -> None:
        pair = self.pair
        more = pair.model_float, pair.weights_float
        hand_over(visitor, self.layer, pair.floats, pair.codes, *more)
