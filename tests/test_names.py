"""Layer names, shortened."""

from qdebug.names import shorten


def test_shortened_names_keep_both_ends() -> None:
    assert shorten("model/conv2d/Relu;model/bn/sub1", 12) == "model/…/sub1"
    assert shorten("short", 12) == "short"
