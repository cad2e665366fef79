"""Layer names, shortened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.names import shorten, shortened


def test_shortened_names_keep_both_ends() -> None:
    assert shorten("model/conv2d/Relu;model/bn/sub1", 12) == "model/…/sub1"
    assert shorten("short", 12) == "short"


def encoder(layers: int) -> list[str]:
    """Names as PyTorch's exporter gives them."""
    ends = ["intermediate/dense/Add", "intermediate/intermediate_act_fn/Add", "output/dense/Add"]
    ends += ["attention/self/query/Add", "attention/self/key/MatMul", "attention/self/Add"]
    return [
        f"/model/model.0/auto_model/encoder/layer.{layer}/{end}_output_0"
        for layer in range(layers)
        for end in ends
    ]


@pytest.mark.parametrize("width", [24, 28, 34, 40, 60])
def test_layers_that_repeat_can_be_told_apart(width: int) -> None:
    names = encoder(3)
    short = shortened(names, width)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= width
    if width > 28:
        for name, cut in zip(names, short, strict=True):
            assert name[-12:] == cut[-12:]  # what it is
            assert "~" not in cut


words = st.lists(st.sampled_from(["a", "layer.0", "layer.1", "dense", "x" * 30]), max_size=6)


@given(st.lists(words.map("/".join), max_size=40), st.integers(8, 60))
def test_different_names_stay_different(names: list[str], width: int) -> None:
    short = shortened(names, width)
    assert len(set(short)) == len(set(names))
    assert len(set(zip(names, short, strict=True))) == len(set(names))
    assert max(map(len, short), default=0) <= width
    if max(map(len, names), default=0) <= width:
        assert short == names
