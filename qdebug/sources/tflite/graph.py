"""The graph of a TFLite model: tensors, operators and their connections. Knows no file."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import FieldError

# Operators that change a value's representation, not the value.
PASSING = ("QUANTIZE", "DEQUANTIZE", "FAKE_QUANT")
VERIFY = "NumericVerify"

# Operators whose result depends only on their input's shape; operators used to compute with sizes.
_SHAPES = ("SHAPE", "RANK")
_ARITHMETIC = frozenset(
    """ADD SUB MUL DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM NEG CAST STRIDED_SLICE SLICE PACK UNPACK
    CONCATENATION GATHER RESHAPE SQUEEZE EXPAND_DIMS REDUCE_PROD REDUCE_MAX REDUCE_MIN SUM FILL
    RANGE EQUAL NOT_EQUAL LESS GREATER SELECT SELECT_V2 BROADCAST_ARGS""".split()  # noqa: SIM905
)
# Operators whose output size depends on values: always; if an input after the first is not
# constant.
_DATA_SIZED = frozenset(
    """WHERE UNIQUE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 WHILE IF CALL STABLEHLO_WHILE
    STABLEHLO_CASE RANGE FILL""".split()  # noqa: SIM905
)
_SIZED = frozenset(
    """RESHAPE SLICE STRIDED_SLICE TILE PAD PADV2 MIRROR_PAD BROADCAST_TO EXPAND_DIMS TOPK_V2
    ONE_HOT RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND
    RANDOM_UNIFORM RANDOM_STANDARD_NORMAL""".split()  # noqa: SIM905
)

_DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "FLOAT64": "<f8",
    "BFLOAT16": "<u2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "BOOL": "?",
}
# Types that pack several codes into a byte, the first in the lowest bits.
PACKED_BITS = {"INT4": 4, "INT2": 2, "UINT4": 4}
CODES = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", *PACKED_BITS)
FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")


@dataclass(frozen=True)
class Blocks:
    """A scale for each block of elements: tensors by index, -1 for one left out."""

    scale: int
    zero_point: int
    size: int


@dataclass(frozen=True, eq=False)
class Quantization:
    """How a tensor is quantized; `axis` is the quantized dimension.

    `unread` says why the codes cannot be read so, if the model uses another scheme. Weights with
    `blocks` can be read all the same.
    """

    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int
    unread: str | None = None
    blocks: Blocks | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a graph; `open_shape` has None for a length that the model leaves open."""

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    open_shape: tuple[int | None, ...]
    quantization: Quantization | None
    data: NDArray[np.uint8] | None
    variable: bool

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The NumPy type of its elements, if there is one."""
        named = _DTYPES.get(self.type)
        return None if named is None or self.type == "BFLOAT16" else np.dtype(named)

    def constant(self) -> NDArray[Any]:
        """Its elements as stored, not copied; packed codes are unpacked to one byte each.

        Raises:
            FieldError: more or fewer than its shape says, or a type that NumPy does not have.
        """
        assert self.data is not None
        size = math.prod(self.shape)
        if self.type in PACKED_BITS:
            bits = PACKED_BITS[self.type]
            shifts = np.arange(0, 8, bits, dtype=np.uint8)
            spread = (self.data[:, None] >> shifts) & (2**bits - 1)
            codes = np.asarray(spread, np.uint8).reshape(-1)
            if not size <= codes.size < size + len(shifts):
                raise self._wrong_size(codes.size)
            codes = codes[:size]
            if self.type.startswith("U"):
                return codes.reshape(self.shape)
            high = 8 - bits  # move the sign to the top and back, so that it is extended
            signed = (codes << high).view(np.int8) >> high
            return np.asarray(signed, np.int8).reshape(self.shape)
        if self.type not in _DTYPES:
            raise FieldError("quantized", found=self.type, expected="a type of numbers")
        dtype = np.dtype(_DTYPES[self.type])
        if self.data.size != size * dtype.itemsize:
            raise self._wrong_size(self.data.size // dtype.itemsize)
        values = np.ascontiguousarray(self.data).view(dtype).reshape(self.shape)
        if self.type == "BFLOAT16":
            return np.asarray(values.astype(np.uint32) << 16, np.uint32).view(np.float32)
        return values

    def _wrong_size(self, found: int) -> FieldError:
        return FieldError(
            "quantized" if self.quantization else "float",
            found=f"{found} elements",
            expected=f"{math.prod(self.shape)}, as its shape {list(self.shape)} says",
        )


@dataclass(frozen=True)
class Operator:
    """One operator; `inputs` and `outputs` are tensors by index, -1 for an input left out."""

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A subgraph of a model: tensors, and operators in execution order.

    `input_names` and `output_names` are the signature's, or the tensors' own.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @cached_property
    def producer(self) -> dict[int, Operator]:
        """Tensor -> the operator that computes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    @cached_property
    def root(self) -> tuple[int, ...]:
        """Tensor -> the first tensor with its value: the one before QUANTIZE and DEQUANTIZE."""
        root = list(range(len(self.tensors)))
        for operator in self.operators:
            if operator.op in PASSING and operator.inputs and operator.inputs[0] >= 0:
                for tensor in operator.outputs:
                    root[tensor] = root[operator.inputs[0]]
        return tuple(root)

    def is_constant(self, tensor: int) -> bool:
        """Whether the tensor's value is in the file."""
        return tensor >= 0 and self.tensors[tensor].data is not None

    def is_computed(self, tensor: int) -> bool:
        """Whether the tensor is computed or a graph input: neither a constant nor state."""
        return tensor >= 0 and (tensor in self.producer or tensor in self.inputs)

    def is_quantized(self, tensor: int) -> bool:
        """Whether the tensor holds codes."""
        return tensor >= 0 and self.tensors[tensor].quantization is not None

    @cached_property
    def sizes(self) -> frozenset[int]:
        """Computed tensors that depend only on the shapes of the graph's inputs."""
        sizes, unsized = set[int](), set[int]()
        for operator in self.operators:
            reads = [tensor for tensor in operator.inputs if tensor >= 0]
            unknown = [t for t in reads if not self.is_constant(t) and t not in sizes]
            known = operator.op in _ARITHMETIC and reads and not unknown
            if known or (operator.op in _SHAPES and not unsized.intersection(reads)):
                sizes.update(operator.outputs)
            elif (
                operator.custom
                or operator.op in _DATA_SIZED
                or unsized.intersection(reads)
                or (operator.op in _SIZED and set(unknown).intersection(reads[1:]))
            ):
                unsized.update(operator.outputs)
        return frozenset(sizes)

    def nearest(self, tensor: int, among: Set[int]) -> tuple[int, ...]:
        """The tensors of `among` nearest upstream of a tensor, in its operator's input order.

        The input of a SHAPE does not count, because SHAPE uses only its size, not its values.
        """
        found: dict[int, None] = {}
        seen: set[int] = set()
        waiting = self._reads(tensor)
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in among:
                found[current] = None
            else:
                waiting += self._reads(current)
        return tuple(found)

    def _reads(self, tensor: int) -> list[int]:
        """The inputs of a tensor's operator, the last first."""
        operator = self.producer.get(tensor)
        if operator is None or operator.op in _SHAPES:
            return []
        return [read for read in reversed(operator.inputs) if read >= 0]

    def without(self, dropped: Set[int]) -> "Graph":
        """The same without the operators of these indices."""
        kept = tuple(operator for operator in self.operators if operator.index not in dropped)
        return replace(self, operators=kept)

    def after(self, operators: Set[int]) -> set[int]:
        """These operators, by index, and all operators that depend on their outputs."""
        found, computed = set(operators), set[int]()
        for operator in self.operators:
            if operator.index in found or computed.intersection(operator.inputs):
                found.add(operator.index)
                computed.update(operator.outputs)
        return found

    def needed(self, tensors: Sequence[int]) -> set[int]:
        """Indices of all operators that these tensors depend on."""
        wanted, needed = set(tensors), set()
        for operator in reversed(self.operators):
            if wanted.intersection(operator.outputs):
                needed.add(operator.index)
                wanted.update(operator.inputs)
        return needed
