"""Weights whose scale differs from block to block: DequantizeLinear with `block_size`.

ONNX's operator (since operator set 21) has a scale, and perhaps a zero point, for each block of
`block_size` elements along `axis`; the last block may be shorter.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from qdebug.arithmetic.affine import code_range
from qdebug.arithmetic.grids import Decoded, Grid, affine_blocks, spread
from qdebug.errors import FieldError
from qdebug.sources.onnx.graph import Graph
from qdebug.sources.onnx.layers import Quantized, axis_of, scale_and_zero_point


def grid_of(graph: Graph, tensor: Quantized, shape: Sequence[int]) -> Grid:
    """How a tensor of this shape is quantized.

    Raises:
        FieldError: the constants are not a valid scale and zero point for this shape.
    """
    axis, block = axis_of(tensor, shape), tensor.block
    if block <= 0:
        raise FieldError("block_size", found=str(block), expected="1 or more")
    blocks = [-(-n // block) if i == axis else n for i, n in enumerate(shape)]
    dtype, bits, *vectors = scale_and_zero_point(graph, tensor)
    for field, values in zip(("scale", "zero_point"), vectors, strict=True):
        if values.ndim and list(values.shape) != blocks:
            raise FieldError(field, found=f"shape {values.shape}", expected=f"{tuple(blocks)}")
    unsigned = "u" if dtype.startswith("u") else ""
    return Grid.of_blocks(f"{unsigned}int{bits}", shape, axis, block)


def decoded(graph: Graph, tensor: Quantized, codes: NDArray[Any]) -> Decoded:
    """What the codes of a tensor stand for; see `grid_of`.

    Raises:
        FieldError: the constants cannot be decoded.
    """
    axis = axis_of(tensor, codes.shape)
    block = min(tensor.block, max(codes.shape[axis], 1))
    dtype, bits, *vectors = scale_and_zero_point(graph, tensor)
    scale, zeros = (spread(values, codes.shape, axis, block) for values in vectors)
    return affine_blocks(codes, scale, -scale * zeros, code_range(dtype, bits))
