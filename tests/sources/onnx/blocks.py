"""Weights quantized in blocks, and pairs of ONNX models with them."""

import itertools

import numpy as np

from tests.sources.onnx.models import NODE, TensorProto, helper, made, numpy_helper, onnx

CODES = {
    "int4": (TensorProto.INT4, -8, 7),
    "uint4": (TensorProto.UINT4, 0, 15),
    "int8": (TensorProto.INT8, -128, 127),
}


def quantized(weight, axis, block, low, high, symmetric):
    """Codes, scales and zero points of blocks: from the least to the largest of each."""
    lengths = [len(range(0, n, block)) if i == axis else n for i, n in enumerate(weight.shape)]
    codes = np.zeros(weight.shape, np.int64)
    scale, zero = np.zeros(lengths, np.float32), np.zeros(lengths, np.int64)
    for place in itertools.product(*map(range, lengths)):
        here = tuple(
            slice(p * block, (p + 1) * block) if i == axis else p for i, p in enumerate(place)
        )
        x = weight[here]
        least, most = min(x.min(), 0), max(x.max(), 0)
        if symmetric:
            scale[place] = max(-least, most) / (high if low else high // 2)
            zero[place] = 0 if low else 8
        else:
            scale[place] = (most - least) / (high - low)
            zero[place] = np.clip(np.rint(low - least / scale[place]), low, high)
        codes[here] = np.clip(np.rint(x / scale[place]) + zero[place], low, high)
    return codes, scale, zero


def pair(folder, weight, codes, scale, zero, kind, axis, block, scale_type=np.float32):
    """A float model with one MatMul, and its twin with a weight in blocks."""
    names = ["q", "s"] if zero is None else ["q", "s", "z"]
    nodes = [
        NODE("DequantizeLinear", names, ["d"], axis=axis, block_size=block),
        NODE("MatMul", ["x", "d"], ["y"]),
    ]
    stored = [
        helper.make_tensor("q", kind, codes.shape, codes.reshape(-1)),
        numpy_helper.from_array(scale.astype(scale_type), "s"),
    ]
    if zero is not None:
        stored.append(helper.make_tensor("z", kind, zero.shape, zero.reshape(-1)))
    shapes = {"x": [1, weight.shape[0]]}, {"y": [1, weight.shape[1]]}
    onnx.save(made(nodes, *shapes, stored), folder / "q.onnx")
    floats = [numpy_helper.from_array(weight, "w")]
    onnx.save(made([NODE("MatMul", ["x", "w"], ["y"])], *shapes, floats), folder / "f.onnx")
