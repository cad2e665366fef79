"""Arrays of Fortran order are turned."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.sources.npz import array, transpose
from qdebug.sources.npz.member import BrokenMemberError, read_directory


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


def test_a_read_that_fails_leaves_no_temporary_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.asfortranarray(np.ones((30, 40))))
    path.write_bytes(path.read_bytes().replace(np.ones(1).tobytes(), np.zeros(1).tobytes(), 1))
    opened: list[Any] = []
    made = tempfile.TemporaryFile

    def noted(**options: Any) -> Any:
        opened.append(made(**options))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    with path.open("rb") as file:
        (info,) = read_directory(file)
        stored = array.read_header(file, "x", info)
        with pytest.raises(BrokenMemberError, match="CRC"), array.taking_reordered(file, stored):
            pass
    assert [each.closed for each in opened] == [True]
