"""Weights whose scale differs from block to block: TFLite's BlockwiseQuantization.

The tensor names another that holds the scales, and perhaps one with zero points. Both have the
weight's shape but for one axis, which has a block's number. It is the last axis in the operators
that read such weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import code_range
from qdebug.arithmetic.grids import Decoded, Grid, affine_blocks, spread
from qdebug.errors import FieldError
from qdebug.sources.tflite.graph import CODES, FLOATS, PACKED_BITS, Blocks, Graph, Tensor

_CODES = ("INT8", "UINT8", *PACKED_BITS)


def grid_of(graph: Graph, tensor: Tensor) -> Grid:
    """How a weight is quantized.

    Raises:
        FieldError: its scales are no constant of floats of such a shape, or cannot be read, or its
            zero points cannot.
    """
    blocks, shape = _blocks(tensor), tensor.shape
    if blocks.size <= 0 or not shape:
        raise FieldError("block_size", found=str(blocks.size), expected="1 or more, of an axis")
    if tensor.type not in _CODES:
        raise FieldError("quantized", found=tensor.type, expected=" or ".join(_CODES))
    scale = _held(graph, blocks.scale)
    if scale is None or scale.type not in FLOATS:
        found = "nothing" if scale is None else scale.type
        raise FieldError("scale", found=found, expected="a constant of floats")
    if scale.shape not in _shapes_of_blocks(shape, blocks.size):
        expected = f"{_shapes_of_blocks(shape, blocks.size)[0]} for blocks of {blocks.size}"
        raise FieldError("scale", found=f"shape {scale.shape}", expected=expected)
    scale.constant()
    if (zero_point := _zero_point(graph, tensor, scale)) is not None:
        zero_point.constant()
    return Grid.of_blocks(tensor.type.lower(), shape, _axis(scale, tensor), blocks.size)


def decoded(graph: Graph, tensor: Tensor, codes: NDArray[Any]) -> Decoded:
    """What the codes of a weight stand for that `grid_of` accepts."""
    blocks, held = _blocks(tensor), _held(graph, _blocks(tensor).scale)
    assert held is not None
    axis = _axis(held, tensor)
    size = min(blocks.size, max(codes.shape[axis], 1))
    scale = spread(held.constant().astype(np.float64), codes.shape, axis, size)
    zero_point = _zero_point(graph, tensor, held)
    zeros: NDArray[Any] = np.zeros(1)
    if zero_point is not None:
        zeros = spread(zero_point.constant(), codes.shape, axis, size)
    dtype = "uint8" if tensor.type.startswith("U") else "int8"
    limits = code_range(dtype, PACKED_BITS.get(tensor.type))
    if limits[0] < 0 and not zeros.any() and codes.min(initial=0) > limits[0]:
        limits = limits[0] + 1, limits[1]  # symmetric codes do not use the lowest one
    return affine_blocks(codes, scale, -scale * zeros, limits)


def _blocks(tensor: Tensor) -> Blocks:
    assert tensor.quantization is not None
    assert tensor.quantization.blocks is not None
    return tensor.quantization.blocks


def _held(graph: Graph, index: int) -> Tensor | None:
    """A constant; the index 0 of a table that leaves a field out is no such constant."""
    if not 0 <= index < len(graph.tensors) or graph.tensors[index].data is None:
        return None
    return graph.tensors[index]


def _zero_point(graph: Graph, tensor: Tensor, scale: Tensor) -> Tensor | None:
    """The zero points; None for 0, also if the index is of a tensor that cannot be theirs."""
    found = _held(graph, _blocks(tensor).zero_point)
    if found is None or found.shape != scale.shape or found.type not in CODES:
        return None
    return found


def _shapes_of_blocks(shape: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """The shapes that scales may have, by the axis of the blocks: the last first."""
    return [
        tuple(-(-n // size) if i == axis else n for i, n in enumerate(shape))
        for axis in reversed(range(len(shape)))
    ]


def _axis(scale: Tensor, tensor: Tensor) -> int:
    """The axis of the blocks: the last that the scales' shape allows."""
    place = _shapes_of_blocks(tensor.shape, _blocks(tensor).size).index(scale.shape)
    return len(tensor.shape) - 1 - place
