"""What if, for layers in files and for arrays."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qdebug.advise.whatif import WhatIf, predict
from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import slabs
from qdebug.measure.layer import Layer, WholePiece
from qdebug.run import engine
from qdebug.sources.pair_file.read import PairFiles
from tests import oracle


def what_ifs(*paths: Path) -> dict[str, WhatIf]:
    source = PairFiles([str(path) for path in paths])
    reports = {layer.name: layer for layer in engine.run(source).layers}
    blocks = partial(engine.layer_blocks, source)
    return {
        layer.name: predict(layer, reports[layer.name], blocks)
        for layer in source.layers
        if isinstance(layer, Layer) and reports[layer.name].metrics
    }


def in_memory(
    x: np.ndarray, params: QuantParams, q: np.ndarray | None = None, **known: Any
) -> WhatIf:
    """What if for an array, its codes `q` or those that the parameters give."""
    layer = Layer("layer", params, x.shape, **known)
    qmin, qmax = params.qmin, params.qmax
    if q is None:
        s, z = params.along(x.ndim)
        q = oracle.ideal_codes(np.nan_to_num(x), s, z, qmin, qmax).astype(params.dtype)

    class Source:
        files = problems = notes = skipped = ()
        layers = (layer,)

        def parts(self, layers):
            return [Part(*layers)]

    class Part(WholePiece):
        num_elements = x.size

        def __init__(self, layer):
            self.layers = [layer]

        def blocks(self, sums):
            (layer,) = self.layers
            for block in slabs.array_blocks(x, q, axis=layer.params.axis):
                yield layer, block

    source = Source()
    (report,) = engine.run(source).layers
    return predict(layer, report, partial(engine.layer_blocks, source))
