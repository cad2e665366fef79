"""The cosine of an angle lies between -1 and 1, also in its last digits."""

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.metrics import layer_metrics

pytestmark = pytest.mark.usefixtures("both_kernels")


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_tensors_that_point_the_same_way_have_a_cosine_of_one_at_most(sign: int) -> None:
    """Floats on the codes' own grid, as a fake quantizer leaves them."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scale = float(rng.uniform(0.001, 0.1))
        codes = np.clip(np.rint(rng.normal(0, 40, 500)), -127, 127).astype(np.int8)
        floats = sign * codes * scale
        params = QuantParams.of(scale, 0)
        block = Block(floats.reshape(1, 1, -1), codes.reshape(1, 1, -1))
        cosine = layer_metrics(measure(block, params), params).cosine_similarity
        assert cosine is not None
        found.append(cosine)
    assert max(map(abs, found)) <= 1
    assert found == pytest.approx([sign] * len(found), abs=1e-12)
