"""GGUF models, whole and split: their tensors, and what cannot be read of them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.sources.gguf import files
from qdebug.sources.gguf.files import open_gguf
from qdebug.sources.tensors import Files
from tests.gguf_files import BF16, I32, IQ2_XXS, Q4_0, Entry, architecture, floats, gguf, q8_0

RNG = np.random.default_rng(0)


def written(path: Path, *entries: Entry, facts: Any = ()) -> str:
    path.write_bytes(gguf(entries, facts))
    return str(path)


def test_rows_of_a_tensor_are_read_by_themselves(tmp_path: Path) -> None:
    x = RNG.normal(size=(2, 3, 64)).astype(np.float32)
    entry = q8_0(x, "q")
    found = open_gguf(written(tmp_path / "a.gguf", floats(x, "f"), entry))
    with Files() as opened:
        rows = found.tensors["f"].open(opened)
        np.testing.assert_array_equal(rows(1, 5).values, x.reshape(6, 64)[1:5])
        assert rows(0, 0).values.shape == (0, 64)
        codes = found.tensors["q"].open(opened)(2, 6)
        np.testing.assert_allclose(codes.values, x.reshape(6, 64)[2:6], atol=0.02)
    assert found.tensors["q"].encoding == "Q8_0"
    assert not found.tensors["q"].floats
    assert found.tensors["f"].floats


def test_bfloat16_is_read_as_the_upper_half_of_a_float(tmp_path: Path) -> None:
    x = np.array([[1.5, -2.0, 3.140625, 1e30]], np.float32)
    entry = Entry("b", (1, 4), BF16, (x.view(np.uint32) >> 16).astype("<u2").tobytes())
    with Files() as opened:
        rows = open_gguf(written(tmp_path / "a.gguf", entry)).tensors["b"].open(opened)
        np.testing.assert_allclose(rows(0, 1).values, x, rtol=2**-7)


def test_facts_have_the_names_of_other_formats(tmp_path: Path) -> None:
    facts = architecture("llama", attention__head_count=32, attention__head_count_kv=8)
    found = open_gguf(written(tmp_path / "a.gguf", facts=facts))
    assert found.facts == {
        "architecture": "llama",
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }


def test_unknown_types_and_whole_numbers_are_left_out(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.gguf",
        Entry("new", (32,), 99, b"x" * 18),
        Entry("ids", (2,), I32, b"x" * 8),
        floats(np.ones((2, 2), np.float32), "f"),
    )
    found = open_gguf(path)
    assert list(found.tensors) == ["f"]
    reasons = [("new", "its GGUF type 99 is not known"), ("ids", "numbers of type I32")]
    assert found.skipped == reasons


def test_vector_types_without_the_extra_are_a_problem_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = [Entry(name, (1, 256), IQ2_XXS, b"x" * 66) for name in ("v", "w")]
    path = written(tmp_path / "a.gguf", *vectors, floats(np.ones((1, 1), np.float32), "f"))
    assert list(open_gguf(path).tensors) == ["v", "w", "f"]
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    found = open_gguf(path)
    assert list(found.tensors) == ["f"]
    assert found.problems == [
        f"{path}: tensors of type IQ2_XXS need an extra: pip install 'qdebug[gguf]'"
    ]


def shards(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"m-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]
    for number, path in enumerate(paths):
        values = np.full((1, 2), number, np.float32)
        path.write_bytes(gguf([floats(values, f"blk.{number}.w")]))
    return paths


def test_any_file_of_a_split_model_stands_for_all(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    for path in paths:
        found = open_gguf(str(path))
        assert list(found.tensors) == ["blk.0.w", "blk.1.w", "blk.2.w"]
        assert found.files == [str(each) for each in paths]
    with Files() as opened:
        for number, tensor in enumerate(found.tensors.values()):
            assert tensor.open(opened)(0, 1).values.tolist() == [[number, number]]


def test_a_missing_shard_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    paths[1].unlink()
    found = open_gguf(str(paths[0]))
    assert list(found.tensors) == ["blk.0.w", "blk.2.w"]
    assert found.problems == [f"{paths[1]}: No such file or directory"]


def test_one_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    paths = shards(tmp_path, 2)
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(
        QdebugError, match=r"layer 'blk\.0\.w': found it in two of the model's files"
    ):
        open_gguf(str(paths[0]))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry("a", (2, 40), Q4_0, b"x" * 45)], "layer 'a': field 'shape': found rows of 40, exp"),
        ([Entry("a", (2**40,), 0, b"")], "layer 'a': the file ends too early: found"),
        ([Entry("a", (64,), 0, b"x" * 256, start=2**40)], "layer 'a': the file ends too early"),
        (
            [Entry("a", (64,), 0, b"x" * 256), Entry("b\x1b", (64,), 0, b"x" * 256, start=128)],
            "layer 'a': its data overlaps that of 'b\\x1b'",
        ),
    ],
    ids=["block", "elements", "offset", "overlap"],
)
def test_a_file_that_contradicts_itself_is_refused(
    entries: list[Entry], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.gguf", *entries)
    with pytest.raises(QdebugError) as error:
        open_gguf(path)
    assert str(error.value).startswith(f"{path}: {said}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(QdebugError, match=r"a\.gguf: No such file or directory$"):
        open_gguf(str(tmp_path / "a.gguf"))


def test_only_vector_types_need_the_gguf_package(tmp_path: Path) -> None:
    with Files() as opened:
        entry = q8_0(np.ones((1, 32), np.float32), "q")
        before = set(sys.modules)
        open_gguf(written(tmp_path / "a.gguf", entry)).tensors["q"].open(opened)(0, 1)
        assert "gguf" not in set(sys.modules) - before
