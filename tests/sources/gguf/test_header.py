"""Headers of GGUF files: what is kept of them, what is passed over, what is refused."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.errors import QdebugError
from qdebug.sources.gguf.header import StoredTensor, read_header
from tests.gguf_files import Entry, architecture, fact, gguf, text

SOUND = gguf(
    [Entry("a", (2, 32), 0, b"x" * 256), Entry("b\x1b[2J", (3,), 0, b"y" * 12)],
    [*architecture(attention__head_count=32), fact("odd", 7, b"\x01")],
)


def read(data: bytes) -> list[StoredTensor]:
    return list(read_header(io.BytesIO(data), "x.gguf").tensors)


def test_numbers_and_short_texts_are_kept() -> None:
    found = read_header(io.BytesIO(SOUND), "x.gguf")
    assert found.facts == {
        "general.architecture": "llama",
        "llama.attention.head_count": 32,
        "odd": True,
    }
    assert found.size == len(SOUND)


def test_shapes_are_in_c_order_and_starts_count_from_the_beginning_of_the_file() -> None:
    one, other = read(SOUND)
    assert (one.name, one.shape, one.type) == ("a", (2, 32), 0)
    assert (other.name, other.shape) == ("b\x1b[2J", (3,))
    assert SOUND[one.start : one.start + 256] == b"x" * 256
    assert SOUND[other.start : other.start + 12] == b"y" * 12


def test_the_file_says_where_data_is_aligned() -> None:
    facts = [fact("general.alignment", 4, struct.pack("<I", 256))]
    data = gguf([Entry("a", (1,), 0, b"wxyz")], facts, alignment=256)
    (tensor,) = read(data)
    assert not tensor.start % 256
    assert data[tensor.start : tensor.start + 4] == b"wxyz"


def test_a_version_2_file_is_read() -> None:
    assert read(gguf([Entry("a", (1,), 0, b"wxyz")], version=2))[0].name == "a"


@settings(max_examples=300)
@given(st.integers(0, len(SOUND) - 320))
def test_a_header_that_is_cut_anywhere_is_refused_in_one_line(size: int) -> None:
    with pytest.raises(QdebugError, match=r"^x\.gguf: [^\n]+$"):
        read(SOUND[:size])


@settings(max_examples=500)
@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=9))
def test_damaged_bytes_are_read_or_refused_in_one_line(place: int, damage: bytes) -> None:
    data = SOUND[:place] + damage + SOUND[place + len(damage) :]
    try:
        read(data)
    except QdebugError as error:
        assert str(error).startswith("x.gguf: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "found no GGUF header, expected a .gguf file"),
        (b"PK\x03\x04" + b"\0" * 99, "found no GGUF header"),
        (gguf([], version=1), "found GGUF version 1, expected version 2 or 3, little-endian"),
        (gguf([], version=3 << 24), "found big-endian numbers, expected version 2 or 3"),
        (gguf([], counts=(10**15, 0)), f"found {10**15} tensors, expected as many as"),
        (gguf([], counts=(0, 2**64 - 1)), f"found {2**64 - 1} metadata entries, expected"),
        (gguf([], [fact("a", 99, b"")]) + b"\0" * 99, "found metadata of type 99, expected"),
        (
            gguf([], [fact("a", 9, struct.pack("<IQ", 8, 2**60))]) + b"\0" * 99,
            f"found {2**60} texts, expected as many as",
        ),
        (
            gguf([], [fact("a", 9, struct.pack("<IQ", 9, 1))]) + b"\0" * 99,
            "found an array of type 9, expected numbers or texts",
        ),
        (gguf([], [fact("a", 9, struct.pack("<IQ", 0, 2**63))]), "the file ends too early"),
        (gguf([], [fact("a", 8, struct.pack("<Q", 2**63))]), "the file ends too early"),
        (
            gguf([], [fact("general.alignment", 4, struct.pack("<I", 3))]),
            "general.alignment: found 3, expected a power of two",
        ),
        (
            gguf([], [fact("general.alignment", 4, struct.pack("<I", 0))]),
            "general.alignment: found 0, expected a power of two",
        ),
        (gguf([Entry("a", (1,) * 5, 0, b"")]), "tensor 'a': found 5 axes, expected 4 at most"),
        (
            gguf([Entry("a", (2**40, 2**40), 0, b"")]),
            "tensor 'a': found shape (1099511627776, 1099511627776), expected fewer elements",
        ),
        (
            gguf([Entry("a\x1b", (1,), 0, b"wxyz")] * 2),
            "tensor 'a\\x1b': found it twice, expected different names",
        ),
        (
            gguf([Entry("a\udcff", (1,), 0, b"wxyz")]),
            "found a name that is not UTF-8",
        ),
        (
            gguf([], [struct.pack("<Q", 2**17) + b"a" * 2**17 + struct.pack("<I", 0) + b"0"]),
            "found a name of 131072 bytes, expected at most 65536",
        ),
    ],
    ids=range(18),
)  # fmt: skip
def test_what_is_wrong_is_named(data: bytes, said: str) -> None:
    with pytest.raises(QdebugError) as error:
        read(data)
    assert str(error.value).startswith(f"x.gguf: {said}")


def test_lists_longer_than_a_read_are_passed_over() -> None:
    tokens = b"".join(text("t" * (i % 90)) for i in range(60_000))
    facts = [fact("tokens", 9, struct.pack("<IQ", 8, 60_000) + tokens), fact("n", 4, b"\7\0\0\0")]
    found = read_header(io.BytesIO(gguf([Entry("a", (1,), 0, b"wxyz")], facts)), "x.gguf")
    assert found.facts == {"n": 7}
    assert found.tensors[0].name == "a"
