"""Shards, what one thread reports of them, and a cluster to report them on."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from tests.run.shards import LARGE, SHARDS, command, quantized, save, shard


@pytest.fixture(scope="package")
def shards() -> Iterator[Path]:
    """A folder of 40 shards, 35 MB."""
    floats = np.random.default_rng(1).normal(size=LARGE + SHARDS).astype(np.float16)
    large = {"float": floats, "quantized": quantized(floats, np.float32(0.03))["quantized"]}
    with TemporaryDirectory(prefix="qdebug-test-") as folder:
        for number in range(SHARDS):
            layers = shard(number, large)
            own = layers.pop("large")
            save(Path(folder) / f"{number:02}.npz", layers | {"large": own})
            if number % 4 == 1:
                save(Path(folder) / f"{number:02}.npz", layers, packed=True)
                save(Path(folder) / f"{number:02}-large.npz", {"large": own})
        yield Path(folder)


@pytest.fixture(scope="package")
def expected(shards: Path) -> Any:
    """The shards' layers as one thread reports them."""
    done = command(str(shards / "*.npz"), "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    layers = json.loads(done.stdout)["layers"]
    of = {layer["name"]: layer["metrics"] for layer in layers}
    assert of["large"]["num_elements"] == SHARDS * LARGE
    assert of["gaps"]["non_finite"] == 2
    assert of["model_float"]["inherited_rmse_scale"] > 0.5
    assert len(of) == 9
    return layers


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    """A scheduler with two workers, which run in a folder of their own."""
    from distributed import LocalCluster

    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="qdebug-test-"))
        with chdir(folder):
            started = stack.enter_context(
                LocalCluster(
                    n_workers=2,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    memory_limit=None,
                    silence_logs=logging.CRITICAL,
                )
            )
            started.wait_for_workers(2, timeout=60)
        yield started.scheduler_address
