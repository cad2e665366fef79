"""Arrays of Fortran order are turned."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.sources.npz import transpose


@pytest.mark.slow
@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=5).map(tuple),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    tile=st.sampled_from([1, 3, 8, 17, 64, 1 << 20]),
)
@settings(deadline=None)
def test_fortran_order_is_turned_in_any_tiles(
    shape: tuple[int, ...], itemsize: int, tile: int
) -> None:
    x = np.arange(np.prod(shape, dtype=int), dtype=f"u{itemsize}").reshape(shape)
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - in_c_order closes it
    file.write(x.tobytes("F"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transpose, "_TILE", tile)
        with transpose.in_c_order(file, shape, itemsize) as turned:
            assert turned.read() == x.tobytes()
