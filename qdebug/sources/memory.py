"""Pairs in memory: float and quantized tensors as arrays. Knows no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.arithmetic.affine import CODE_DTYPES, FLOAT_DTYPES, QuantParams
from qdebug.errors import FieldError, locate
from qdebug.measure.layer import Layer, Part, UnreadableLayer, Visitor
from qdebug.measure.slabs import cut, hand_over
from qdebug.names import shown
from qdebug.sources.pair_file.fields import KINDS, check_codes, normal_axis


@dataclass(frozen=True, eq=False)
class Pair:
    """A float tensor and the codes it was quantized to.

    Attributes:
        floats: the float reference x: float16, float32 or float64, any shape. Integers and other
            floats become float64.
        codes: the codes q: int8, uint8, int16, uint16 or int32, of the same shape.
        scale: above 0; () or (1,) per tensor, (channels,) per channel.
        zero_point: within the code range; (), (1,) or (channels,).
        axis: the channel axis, where there is more than one scale; may be negative.
        bits: bits in use, where the codes' type has more.
        narrow_range: the lowest code is not used.
        model_float: the same tensor in an end-to-end run of the float model.
        op: the operator that makes it, such as ``CONV_2D``.
        kind: ``activation``, ``weight`` or ``bias``.
        nodes: what the float model calls the operator.

    >>> Pair([0.1, 0.2], np.array([1, 2], np.int8), scale=0.1).params.scale
    array([0.1])

    Raises:
        FieldError: the arrays do not make a pair; the message names the field, what was found and
            what was expected.
    """

    floats: NDArray[Any]
    codes: NDArray[Any]
    params: QuantParams
    model_float: NDArray[Any] | None
    op: str | None
    kind: str | None
    nodes: tuple[str, ...]

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
        model_float: ArrayLike | None = None,
        op: str | None = None,
        kind: str | None = None,
        nodes: Sequence[str] = (),
    ) -> None:
        x, q = _floats(floats, "float"), np.asarray(codes)
        if q.dtype.name not in CODE_DTYPES:
            raise FieldError("quantized", found=str(q.dtype), expected=", ".join(CODE_DTYPES))
        m = None if model_float is None else _floats(model_float, "model_float")
        for field, array in (("quantized", q), ("model_float", m)):
            if array is not None and array.shape != x.shape:
                raise FieldError(
                    field, found=f"shape {array.shape}", expected=f"{x.shape}, as 'float' has"
                )
        if kind is not None and kind not in KINDS:
            raise FieldError("kind", found=f"'{shown(kind)}'", expected=" or ".join(KINDS))
        params = QuantParams.of(
            scale,
            zero_point,
            q.dtype.name,
            axis=normal_axis(axis, x.ndim),
            bits=bits,
            narrow_range=narrow_range,
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
        fields |= {"op": op, "kind": kind, "nodes": tuple(nodes)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)


def _floats(values: ArrayLike, field: str) -> NDArray[Any]:
    """Floats of a type that pair files know.

    Raises:
        FieldError: no numbers.
    """
    array = np.asarray(values)
    if array.dtype.name in FLOAT_DTYPES:
        return array
    if array.dtype.kind not in "biuf":
        raise FieldError(field, found=str(array.dtype), expected=", ".join(FLOAT_DTYPES))
    return array.astype(np.float64)


class MemoryPairs:
    """The source of pairs that are in memory, by layer."""

    def __init__(self, pairs: Mapping[str, Pair]) -> None:
        """Take the pairs; they are not copied."""
        self._pairs = dict(pairs)
        self.files: Sequence[str] = []
        self.problems: Sequence[str] = []
        self.notes: Sequence[str] = []
        self.skipped: Sequence[tuple[str, str]] = []
        self.layers: Sequence[Layer | UnreadableLayer] = [
            Layer(name, p.params, p.floats.shape, p.op, p.kind, p.nodes)
            for name, p in self._pairs.items()
        ]

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
        try:
            cut(self.layer, pair.floats.shape)
        except FieldError as error:
            raise locate(error, layer=shown(self.layer.name)) from None
        hand_over(visitor, self.layer, pair.floats, pair.codes, pair.model_float)
