"""Histograms of a layer: what a picture is drawn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qdebug.run.session import Session
from qdebug.sources.pair_file.read import PairFiles

Write = Callable[..., Path]
Fields = dict[str, Any]


def test_histograms_count_every_element_once(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].copy()
    x[:5] = np.nan, np.inf, 0.0, 1e20, -1e20
    fields = healthy | {"float": x}
    source = PairFiles([str(write_pairs({"layer": fields}))])
    session = Session(source)
    found = session.distributions(session.report())["layer"]
    assert found.floats.counts.sum() == 998
    assert found.codes.counts.sum() == 998
    assert found.errors.counts.sum() + found.exact_zeros == 998
    assert found.floats.counts[[0, -1]].min() >= 1  # far outside: at the edge
