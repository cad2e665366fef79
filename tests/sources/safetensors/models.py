"""Safetensors files, written by the package of that name or byte by byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded
from qdebug.sources.safetensors.files import open_safetensors
from qdebug.sources.tensors import Files, Weights

_NAMES = {
    "float16": "F16", "float32": "F32", "float64": "F64", "int8": "I8", "uint8": "U8",
    "int16": "I16", "int32": "I32", "int64": "I64", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def file_of(header: Any, data: bytes = b"") -> bytes:
    """A file with any header: an object for JSON, or text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def written(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    """A sound file."""
    header, data = {}, b""
    for name, array in arrays.items():
        start, data = len(data), data + np.ascontiguousarray(array).tobytes()
        kind = _NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, len(data)]}
    path.write_bytes(file_of(header, data))
    return path


def opened(folder: Path, arrays: Mapping[str, NDArray[Any]], config: Any = None) -> Weights:
    """A model with one file, and its quantization_config if there is one."""
    written(folder / "model.safetensors", arrays)
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    return open_safetensors([str(folder)])


def decoded(weights: Weights, name: str) -> Decoded:
    """All rows of a tensor, read in two goes."""
    tensor = weights.tensors[name]
    rows = int(np.prod(tensor.shape[:-1]))
    with Files() as files:
        read = tensor.open(files)
        parts = [read(0, rows // 3), read(rows // 3, rows)]
    joined = []
    for field in ("values", "below", "above", "ends"):
        each = [getattr(part, field) for part in parts]
        full = [np.broadcast_to(e, p.values.shape) for e, p in zip(each, parts, strict=True)]
        joined.append(np.concatenate(full))
    return Decoded(*joined)


def packed(codes: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Codes packed into words along the last axis, the first one in the lowest bits."""
    rows, count = codes.shape
    words = -(-count * bits // 32)
    out = np.zeros((rows, words), np.int32)
    for row in range(rows):
        number = sum(int(code) << (bits * k) for k, code in enumerate(codes[row]))
        out[row] = np.frombuffer(number.to_bytes(4 * words, "little"), "<i4")
    return out
