"""What tests share: the command line, pair files made of arrays, a server of files."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from qdebug.cli import main
from tests.server import Server, serving

# A full collection walks all that matplotlib, dask and the tests keep: a tenth of the time.
gc.set_threshold(50_000, 50, 50)


@pytest.fixture
def qdebug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line; a crash fails the test with its traceback."""
    monkeypatch.delenv("QDEBUG_SOURCE", raising=False)

    def run(*args: Any) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="qdebug")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write layers, given as name -> fields, to a pair file."""

    def write(
        layers: dict[str, dict[str, Any]], name: str = "pairs.npz", packed: bool = False
    ) -> Path:
        path = tmp_path / name
        arrays = {
            f"{layer}/{field}": v for layer, fields in layers.items() for field, v in fields.items()
        }
        (np.savez_compressed if packed else np.savez)(path, allow_pickle=True, **arrays)
        return path

    return write


@pytest.fixture
def healthy() -> dict[str, Any]:
    """A layer whose error is rounding alone: 1000 normal floats in int8."""
    x = np.random.default_rng(7).normal(size=1000).astype(np.float32)
    scale = np.float32(8 / 255)
    codes = np.clip(np.rint(x.astype(np.float64) / scale), -128, 127).astype(np.int8)
    return {"float": x, "quantized": codes, "scale": scale, "zero_point": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the files in the test's own folder."""
    with serving(tmp_path) as state:
        yield state
