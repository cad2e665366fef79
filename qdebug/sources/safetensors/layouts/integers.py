"""compressed-tensors with integers: packed into words (pack-quantized), or int8 (int-quantized).

Source: the compressors of the library compressed-tensors; docs/weights.md has the fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded, affine_blocks
from qdebug.errors import FieldError
from qdebug.sources.safetensors.arrays import Array
from qdebug.sources.safetensors.layouts.module import Module, expect_shape
from qdebug.sources.safetensors.layouts.packing import bits_of, unpacked, words_for
from qdebug.sources.safetensors.layouts.scales import Blocks, blocks_of
from qdebug.sources.tensors import Files, Rows, Tensor

_SCALES = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class IntegerTensor:
    """A weight of integer codes; see `tensors.Tensor`.

    Attributes:
        codes: of type I8, or of words of 32 bits, in which a code has 2^(bits - 1) added.
        g_idx: the group of each input, if it is not the one after the other.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    blocks: Blocks
    codes: Array
    scale: Array
    zero_point: Array | None
    g_idx: Array | None
    floats = False
    divisible = True

    @property
    def encoding(self) -> str:
        """Bits and groups."""
        return f"compressed-tensors int{self.bits}, {self.blocks.words}"

    def open(self, files: Files) -> Rows:
        """Read the scales; return a function that decodes rows."""
        scales = self.scale.read(files).astype(np.float32).reshape(self.blocks.grid)
        zeros = self._zero_points(files)
        offsets = None if zeros is None else -scales * zeros
        group = self._group_of_each_input(files)
        least = -1 << (self.bits - 1)

        def each(table: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
            if group is None:
                return self.blocks.of_rows(table, start, stop)
            return table[start:stop][:, group]

        def rows(start: int, stop: int) -> Decoded:
            codes = self._codes(files, start, stop)
            offset = 0.0 if offsets is None else each(offsets, start, stop)
            return affine_blocks(codes, each(scales, start, stop), offset, (least, -1 - least))

        return rows

    def _codes(self, files: Files, start: int, stop: int) -> NDArray[Any]:
        found = self.codes.rows(files, start, stop)
        if self.codes.dtype == "I8":
            return found
        codes = unpacked(found, self.bits, self.blocks.columns)
        return (codes - np.uint8(1 << (self.bits - 1))).view(np.int8)

    def _zero_points(self, files: Files) -> NDArray[Any] | None:
        """One for each block."""
        if self.zero_point is None:
            return None
        found = self.zero_point.read(files)
        if self.zero_point.dtype != "I32":
            return found.reshape(self.blocks.grid)
        # Packed along the outputs: (words, groups)
        codes = unpacked(found.T, self.bits, self.blocks.rows).T
        return codes.astype(np.int16) - (1 << (self.bits - 1))

    def _group_of_each_input(self, files: Files) -> NDArray[np.int64] | None:
        """Indexes of groups; None if they are in order.

        Raises:
            FieldError: there is no such group.
        """
        if self.g_idx is None:
            return None
        found = self.g_idx.read(files).astype(np.int64)
        if not found.size or found.max() < 0:  # -1 everywhere: never set
            return None
        most = self.blocks.grid[1] - 1
        if found.min() < 0 or found.max() > most:
            between = f"{found.min()} to {found.max()}"
            raise FieldError("weight_g_idx", found=between, expected=f"0 to {most}")
        return found


def tensors(module: Module) -> Sequence[Tensor]:
    """The weight of a module with these arrays; none for other modules.

    Raises:
        FieldError: its arrays contradict each other.
    """
    if module.has("weight_packed", "weight_shape"):
        shape, bits, codes = _packed(module)
    elif module.has("weight", "weight_scale") and module.arrays["weight"].dtype == "I8":
        codes = module.arrays["weight"]
        shape, bits = codes.shape, module.setting("num_bits") or 8
        if not 2 <= bits <= 8 or len(shape) < 2:
            found = f"{bits} bits, shape {shape}"
            raise FieldError("weight", found=found, expected="2 to 8 bits, 2 axes or more")
    else:
        return []
    scale = module.array("weight_scale", *_SCALES)
    given = None, module.setting("group_size")
    blocks = blocks_of(shape, scale.shape, "weight_scale", given)
    zeros = None
    if module.has("weight_zero_point"):
        zeros = _zero_point(module, blocks, bits)
    g_idx = None
    if module.has("weight_g_idx") and blocks.grid[1] > 1:
        g_idx = module.array("weight_g_idx", "I32", "I64")
        expect_shape(g_idx, "weight_g_idx", (blocks.columns,))
        if blocks.height > 1:
            raise FieldError("weight_g_idx", found="it", expected="none for blocks of rows")
    name = module.named("weight")
    return [IntegerTensor(name, shape, bits, blocks, codes, scale, zeros, g_idx)]


def _packed(module: Module) -> tuple[tuple[int, ...], int, Array]:
    """Shape, bits and array of a packed weight."""
    packed = module.array("weight_packed", "I32", axes=2)
    stated = module.array("weight_shape", "I32", "I64", axes=1)
    expect_shape(stated, "weight_shape", (2,))
    shape = tuple(map(int, stated.read(module.files)))
    if shape[0] != packed.shape[0] or shape[1] < 1:
        expected = f"({packed.shape[0]}, inputs)"
        raise FieldError("weight_shape", found=f"{shape}", expected=expected)
    bits = bits_of(packed.shape[1], shape[1], module.setting("num_bits"))
    if bits is None:
        found = f"shape {packed.shape} for a weight of shape {shape}"
        raise FieldError("weight_packed", found=found, expected="2 to 8 bits per code")
    return shape, bits, packed


def _zero_point(module: Module, blocks: Blocks, bits: int) -> Array:
    """The zero points: packed along the outputs, or one number per block."""
    zeros = module.array("weight_zero_point", "I8", "I32")
    words = words_for(blocks.rows, bits), blocks.grid[1]
    if zeros.dtype == "I32" and blocks.height == 1:
        expect_shape(zeros, "weight_zero_point", words)
    elif zeros.dtype == "I32" or math.prod(zeros.shape) != math.prod(blocks.grid):
        found = f"{zeros.dtype} of shape {zeros.shape}"
        expected = f"I8 of shape {blocks.grid}, or I32 of shape {words}"
        raise FieldError("weight_zero_point", found=found, expected=expected)
    return zeros
