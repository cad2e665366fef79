"""Pair files that are changed or cut while they are read. Hostile ones: tests/hostile."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdebug.errors import QdebugError
from qdebug.report.report import LayerReport
from qdebug.run import session
from qdebug.run.workers import Threads
from qdebug.sources.pair_file import read as pair_file
from qdebug.sources.pair_file.read import PairFiles
from tests.layers import large_layer
from tests.pairs import read

Write = Callable[..., Path]
Fields = dict[str, Any]


@pytest.mark.parametrize("packed", [False, True])
def test_data_that_was_changed_is_found_by_its_checksum(
    packed: bool, healthy: Fields, write_pairs: Write
) -> None:
    path = write_pairs({"bad": healthy, "good": healthy}, packed=packed)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("bad/float.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 60 + info.compress_size // 2] ^= 0x10
    path.write_bytes(data)
    bad, good = read(path).layers
    assert bad.unreadable is not None
    assert "checksum" in bad.unreadable or "compressed data is broken" in bad.unreadable
    assert good.unreadable is None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, LayerReport]:
    """A packed pair file of one layer, and its report."""
    path = tmp_path_factory.mktemp("sound") / "sound.npz"
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    arrays = {"l/float": x, "l/quantized": np.rint(x * 99).astype(np.int8), "l/scale": 0.01}
    np.savez_compressed(path, **arrays)
    return path.read_bytes(), read(path).layers[0]


@pytest.mark.slow
@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_flipped_bits_are_an_error_or_change_nothing_that_is_read(
    data: st.DataObject, sound: tuple[bytes, LayerReport], tmp_path: Path
) -> None:
    content, expected = bytearray(sound[0]), sound[1]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.npz"
    path.write_bytes(content)
    try:
        report = read(path)
    except QdebugError as error:
        assert str(path) in str(error)
        return
    assert all(str(path) in line for line in report.complaints)
    for layer in report.layers:
        assert layer.unreadable or replace(layer, name="l") == expected


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """A layer is cut into parts of so many elements."""
    monkeypatch.setattr(pair_file, "TASK_ELEMENTS", 1 << 18)
    return 1 << 18


@pytest.mark.parametrize("place", [0.0001, 0.3, 0.999])
@pytest.mark.parametrize("field", ["float", "quantized"])
def test_a_changed_byte_is_found_in_whatever_part_it_is(
    field: str, place: float, parts: int, write_pairs: Write, healthy: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs({"good": healthy, "large": large_layer(rng, 2 * parts + 1)})
    source = PairFiles([str(path)])
    assert len(source.parts(source.layers[1:])) == 3  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"large/{field}.npy")
    with path.open("r+b") as file:
        file.seek(info.header_offset + 300 + int(place * (info.file_size - 300)))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    for jobs in (1, 2):
        good, broken = read(path, jobs=jobs).layers
        assert good.unreadable is None
        assert broken.unreadable == (
            f"{path}: layer 'large': its checksum (CRC-32) does not agree with its data"
        )


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_while_it_is_read_is_an_error(
    packed: bool, parts: int, write_pairs: Write
) -> None:
    rng = np.random.default_rng(0)
    path = write_pairs(
        {"first": large_layer(rng, 1000), "second": large_layer(rng, 2 * parts)}, packed=packed
    )
    source = PairFiles([str(path)])
    os.truncate(path, path.stat().st_size // 2)
    first, second = session.run(source, workers=Threads(2)).layers
    assert first.unreadable is None
    assert second.unreadable is not None
    assert second.unreadable.startswith(f"{path}: layer 'second': ")
    assert "too early" in second.unreadable
