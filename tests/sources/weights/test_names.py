"""A Hugging Face model beside its GGUF twin: names, and the order of query and key rows."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from qdebug.arithmetic.grids import Decoded
from qdebug.errors import MissingExtraError
from qdebug.sources.tensors import Files, Rows, Tensor, Weights
from qdebug.sources.weights.names import as_gguf

pytest.importorskip("gguf", reason="needs qdebug[gguf]")

RNG = np.random.default_rng(0)
HEADS, KV_HEADS, HEAD = 4, 2, 8
FACTS: Mapping[str, str | int] = {
    "architecture": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
}


@dataclass(frozen=True)
class InMemory:
    """A tensor that is an array."""

    name: str
    values: NDArray[np.float32]
    floats: bool = True
    encoding = "F32"
    divisible = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def open(self, files: Files) -> Rows:
        rows = self.values.reshape(-1, self.values.shape[-1])
        return lambda start, stop: Decoded(rows[start:stop])


def as_converted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The rows as llama.cpp's converter writes them, one by one."""
    size = len(weight) // heads
    rows = [
        weight[head * size + half * (size // 2) + i]
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return np.array(rows)


HF: dict[str, NDArray[np.float32]] = {
    "model.embed_tokens.weight": RNG.normal(size=(10, 16)).astype(np.float32),
    "model.layers.0.self_attn.q_proj.weight": RNG.normal(size=(32, 16)).astype(np.float32),
    "model.layers.1.self_attn.k_proj.weight": RNG.normal(size=(16, 16)).astype(np.float32),
    "model.layers.1.mlp.up_proj.weight": RNG.normal(size=(24, 16)).astype(np.float32),
    "rotary.inv_freq": np.ones(4, np.float32),
}
GGUF = {
    "token_embd.weight": HF["model.embed_tokens.weight"],
    "blk.0.attn_q.weight": HF["model.layers.0.self_attn.q_proj.weight"],
    "blk.1.attn_k.weight": HF["model.layers.1.self_attn.k_proj.weight"],
    "blk.1.ffn_up.weight": HF["model.layers.1.mlp.up_proj.weight"],
}


def weights(tensors: Mapping[str, NDArray[np.float32]], *, floats: bool = True) -> Weights:
    found: dict[str, Tensor] = {n: InMemory(n, values, floats) for n, values in tensors.items()}
    return Weights(["hf" if floats else "q.gguf"], found, facts={} if floats else FACTS)


def rows_of(tensor: Tensor, start: int, stop: int) -> NDArray[np.floating]:
    with Files() as files:
        return tensor.open(files)(start, stop).values


def test_tensors_get_the_names_of_gguf() -> None:
    found = as_gguf(weights(HF), weights(GGUF, floats=False))
    assert list(found.tensors) == [*GGUF, "rotary.inv_freq"]
    assert [tensor.name for tensor in found.tensors.values()] == list(found.tensors)
    for name, values in GGUF.items():
        np.testing.assert_array_equal(rows_of(found.tensors[name], 0, len(values)), values)
    assert found.notes == []


def test_query_and_key_rows_are_brought_into_the_order_of_the_converter() -> None:
    converted = GGUF | {
        "blk.0.attn_q.weight": as_converted(GGUF["blk.0.attn_q.weight"], HEADS),
        "blk.1.attn_k.weight": as_converted(GGUF["blk.1.attn_k.weight"], KV_HEADS),
    }
    found = as_gguf(weights(HF), weights(converted, floats=False))
    for name, values in converted.items():
        for start, stop in ((0, len(values)), (3, 5), (6, len(values) - 1), (2, 2)):
            expected = values[start:stop]
            np.testing.assert_array_equal(rows_of(found.tensors[name], start, stop), expected)
    assert found.notes == [
        "the rows of 2 query and key tensors are in the order of llama.cpp's converter; those of "
        "hf are compared in that order"
    ]


def test_an_architecture_that_is_not_known_keeps_all_names() -> None:
    other = Weights(["q.gguf"], {}, facts={"architecture": "new", "num_hidden_layers": 2})
    assert list(as_gguf(weights(HF), other).tensors) == list(HF)


@pytest.mark.parametrize("blocks", [-1, 10**15, "2"])
def test_numbers_of_blocks_that_no_model_has_give_no_names(blocks: int | str) -> None:
    facts = {"architecture": "llama", "num_hidden_layers": blocks}
    assert list(as_gguf(weights(HF), Weights(["q.gguf"], {}, facts=facts)).tensors) == list(HF)


def test_the_table_of_names_needs_the_gguf_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    with pytest.raises(
        MissingExtraError, match=r"hf: comparing it with a \.gguf file needs an ext"
    ):
        as_gguf(weights(HF), weights(GGUF, floats=False))
