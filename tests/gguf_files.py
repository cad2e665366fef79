"""Write GGUF files, byte by byte, sound or not."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32, F16, Q4_0, Q8_0, Q4_K, IQ2_XXS, I32, BF16 = 0, 1, 2, 8, 12, 16, 26, 30


@dataclass(frozen=True)
class Entry:
    """One tensor: name, shape in C order, type, bytes; `start` if they are at another place."""

    name: str
    shape: tuple[int, ...]
    type: int
    data: bytes
    start: int | None = None


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def fact(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def architecture(name: str = "llama", **numbers: int) -> list[bytes]:
    """Metadata as a model has it: numbers, texts, and lists that are passed over."""
    tokens = b"".join(map(text, ("a", "b" * 3000, "")))
    return [
        fact("general.architecture", 8, text(name)),
        fact("general.license", 8, text("x" * 5000)),
        fact("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + tokens),
        fact("tokenizer.ggml.scores", 9, struct.pack("<IQ3f", 6, 3, 0, 0, 0)),
        *(
            fact(f"{name}.{key.replace('__', '.')}", 4, struct.pack("<I", number))
            for key, number in numbers.items()
        ),
    ]


def gguf(
    entries: Sequence[Entry],
    facts: Sequence[bytes] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file's bytes."""
    tensors, number = counts or (len(entries), len(facts))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, number) + b"".join(facts)
    data = b""
    for entry in entries:
        start = len(data) if entry.start is None else entry.start
        shape = entry.shape[::-1]
        head += text(entry.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", entry.type, start)
        data += entry.data + b"\0" * (-len(entry.data) % alignment)
    return head + b"\0" * (-len(head) % alignment) + data


def floats(values: NDArray[Any], name: str = "blk.0.ffn_up.weight") -> Entry:
    """A tensor of float32 or float16."""
    kind = {np.dtype(np.float32): F32, np.dtype(np.float16): F16}[values.dtype]
    return Entry(name, values.shape, kind, values.tobytes())


def q8_0(values: NDArray[Any], name: str = "blk.0.ffn_up.weight") -> Entry:
    """A tensor quantized to int8 in blocks of 32, by a few lines that are not qdebug's."""
    blocks = values.astype(np.float32).reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(blocks / np.maximum(scale.astype(np.float32), 1e-30)).astype(np.int8)
    data = np.concatenate([scale.view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()
    return Entry(name, values.shape, Q8_0, data)


def decoded_q8_0(entry: Entry) -> NDArray[np.float64]:
    """What the codes of `q8_0` stand for."""
    blocks = np.frombuffer(entry.data, np.uint8).reshape(-1, 34)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float64)
    values: NDArray[np.float64] = blocks[:, 2:].view(np.int8) * scale
    return values.reshape(entry.shape)


def write_pair(
    folder: Path, tensors: Mapping[str, NDArray[Any]], facts: Sequence[bytes] = ()
) -> list[str]:
    """The names of a float file and its twin in int8."""
    one, other = folder / "f.gguf", folder / "q.gguf"
    one.write_bytes(gguf([floats(values, name) for name, values in tensors.items()], facts))
    other.write_bytes(gguf([q8_0(values, name) for name, values in tensors.items()], facts))
    return [str(one), str(other)]
