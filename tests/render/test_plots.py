"""What a picture is drawn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qdebug.measure.layer import Layer
from qdebug.render import plots
from qdebug.run import engine
from qdebug.sources.pair_file.read import PairFiles

Write = Callable[..., Path]
Fields = dict[str, Any]


def test_histograms_count_every_element_once(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].copy()
    x[:5] = np.nan, np.inf, 0.0, 1e20, -1e20
    fields = healthy | {"float": x}
    source = PairFiles([str(write_pairs({"layer": fields}))])
    (layer,) = source.layers
    assert isinstance(layer, Layer)
    (report,) = engine.run(source).layers
    assert report.metrics is not None
    blocks = engine.layer_blocks(source, layer)
    found = plots.distributions(layer, report.metrics, blocks)
    assert found.floats.counts.sum() == 998
    assert found.codes.counts.sum() == 998
    assert found.errors.counts.sum() + found.exact_zeros == 998
    assert found.floats.counts[[0, -1]].min() >= 1  # far outside: at the edge
