"""ggml's own quantizers and dequantizers (libgguf), the `gguf` package's, and qdebug's values."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from qdebug.sources.gguf.types import TYPES, Type

gguf = pytest.importorskip("gguf", reason="needs qdebug[gguf]")
libgguf = pytest.importorskip("libgguf", reason="needs libgguf")

QUANTIZED = {number: kind for number, kind in TYPES.items() if kind.block > 1}
# Those that the `gguf` package can write.
WRITTEN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    x = (np.random.default_rng(0).normal(size=(8, 1024)) * 0.02).astype(np.float32)
    x[0, :256] = 0
    return x


def name(kind: object) -> str:
    return kind.name if isinstance(kind, Type) else str(kind)


@pytest.mark.parametrize("kind", WRITTEN)
def test_both_libraries_write_the_same_bytes(kind: str, weights: NDArray[np.float32]) -> None:
    number = gguf.GGMLQuantizationType[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = gguf.quants.quantize(weights, number)
    np.testing.assert_array_equal(libgguf.quantize_rows(weights, int(number)), expected)


@pytest.mark.parametrize(("number", "kind"), QUANTIZED.items(), ids=name)
def test_all_three_read_the_same_values(
    number: int, kind: Type, weights: NDArray[np.float32]
) -> None:
    blocks = libgguf.quantize_rows(weights, number)
    expected = libgguf.dequantize_rows(blocks, number)
    package = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(package, expected)
    assert kind.decode is not None
    found = kind.decode(blocks.reshape(-1, kind.size)).values
    np.testing.assert_array_equal(found.reshape(weights.shape), expected)


@pytest.mark.parametrize(
    ("number", "kind"), [(n, k) for n, k in QUANTIZED.items() if not k.by_library], ids=name
)
def test_what_ggml_quantizes_is_sound(
    number: int, kind: Type, weights: NDArray[np.float32]
) -> None:
    assert kind.decode is not None
    found = kind.decode(libgguf.quantize_rows(weights, number).reshape(-1, kind.size))
    error = found.values.astype(np.float64) - weights.reshape(found.values.shape)
    a, b = np.asarray(found.below, np.float64), np.asarray(found.above, np.float64)
    square = np.broadcast_to((a * a - a * b + b * b) / 3, error.shape)
    assert 0.85 < np.sqrt((error**2).mean() / square.mean()) < 1.1
