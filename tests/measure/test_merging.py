"""Parts merge into what all elements together give."""

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import layer_metrics
from qdebug.measure.statistics import no_statistics

pytestmark = pytest.mark.usefixtures("both_kernels")


def test_parts_of_huge_floats_merge_without_a_warning() -> None:
    x = np.linspace(-1, 1, 99) * 1e200  # their squares are beyond float64
    codes, params = np.arange(99, dtype=np.int8), QuantParams.of(1e140)
    merged = no_statistics(1)
    for part in np.split(np.arange(99), 3):
        block = Block(x[part].reshape(1, 1, -1), codes[part].reshape(1, 1, -1))
        merged = merged.merged(measure(block, params))
    metrics = layer_metrics(merged, params)
    assert (metrics.float_min, metrics.float_max, metrics.mse) == (-1e200, 1e200, None)
