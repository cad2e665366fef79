"""What if, for layers in files and for arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from qdebug.advise.whatif import WhatIf, explore
from qdebug.arithmetic.affine import QuantParams
from qdebug.run.session import Session
from qdebug.sources.pair_file.read import PairFiles
from tests import oracle
from tests.visits import ArraySource


def what_ifs(*paths: Path) -> dict[str, WhatIf]:
    source = PairFiles([str(path) for path in paths])
    return explore(Session(source), [layer.name for layer in source.layers])[1]


def in_memory(
    x: np.ndarray, params: QuantParams, q: np.ndarray | None = None, **known: Any
) -> WhatIf:
    """What if for an array, its codes `q` or those that the parameters give."""
    if q is None:
        s, z = params.along(x.ndim)
        ideal = oracle.ideal_codes(np.nan_to_num(x), s, z, params.qmin, params.qmax)
        q = ideal.astype(params.dtype)
    return explore(Session(ArraySource(x, q, params, **known)), ["layer"])[1]["layer"]
