"""The table for a terminal."""

import pytest

from qdebug.render.columns import View
from qdebug.render.table import table
from qdebug.run import session
from qdebug.sources.pair_file.read import PairFiles
from tests.paths import SAMPLES

DIGITS = SAMPLES / "digits.npz"


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_the_table_fits_a_terminal(width: int) -> None:
    fresh = session.run(PairFiles([str(DIGITS)]))
    text = table(fresh, View(), width)
    body = text.split("\n\n")[1]
    import click

    assert max(len(line) for line in click.unstyle(body).splitlines()) <= width
    if width < 140:
        assert f"left out to fit {width} columns: shape" in text
