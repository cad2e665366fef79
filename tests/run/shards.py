"""Many pair files of layers of every kind, and reports on them."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.run.waiting import ended

Fields = dict[str, Any]

SHARDS = 40
LARGE = 1 << 18  # elements of each shard's largest layer
TASK = 3 << 20  # elements, a quarter of what a task is given else: 4 tasks of large layers in all

# As `python -m qdebug`.
_RUN = f"""
import runpy, signal
from qdebug.run.cluster import Cluster
# A job in the background inherits SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
Cluster.task_elements = {TASK}
runpy.run_module("qdebug", run_name="__main__", alter_sys=True)
"""


def quantized(floats: Any, scale: Any, dtype: str = "int8", **fields: Any) -> Fields:
    info = np.iinfo(dtype)
    zero_point = fields.get("zero_point", 0)
    codes = np.clip(np.rint(floats.astype(np.float64) / scale) + zero_point, info.min, info.max)
    return {"float": floats, "quantized": codes.astype(dtype), "scale": scale} | fields


def shard(number: int, large: Any) -> dict[str, Fields]:
    """Layers of every kind; of `large`, each shard has another excerpt."""
    rng = np.random.default_rng(number)
    x = rng.normal(size=(3, 8, 100 + number)).astype(np.float32)
    axis = np.linspace(0.02, 0.2, 8)
    layers = {
        "large": {field: values[number : number + LARGE] for field, values in large.items()}
        | {"scale": np.float32(0.03)},
        "per tensor": quantized(x, np.float32(0.03), zero_point=-3, op="CONV_2D", kind="weight"),
        "per channel": quantized(x, axis[:, None]) | {"scale": axis, "axis": 1},
        "model_float": quantized(x, 0.03)
        | {"model_float": x + rng.normal(0, 0.02, x.shape).astype(np.float32)},
        "half": quantized(np.maximum(x, 0).astype(np.float16), 0.02, "uint8", zero_point=4),
        "double": quantized(x.astype(np.float64), 1e-4, "int16"),
        "fortran": quantized(np.asfortranarray(x.reshape(24, -1)), 0.03),
    }
    if number == 11:
        x = x.copy()
        x[1, 2, 3], x[0, 0, 0] = np.nan, np.inf
    layers["gaps"] = quantized(np.nan_to_num(x, posinf=4), 0.03) | {"float": x}
    if number % 13 == 5:
        layers["in few"] = quantized(x, 0.5)
    return layers


def save(path: Path, layers: dict[str, Fields], packed: bool = False) -> Path:
    arrays = {f"{name}/{key}": v for name, fields in layers.items() for key, v in fields.items()}
    (np.savez_compressed if packed else np.savez)(path, allow_pickle=True, **arrays)
    return path


def qdebug_process(*args: str) -> subprocess.Popen[str]:
    """`qdebug report` of all figures, in a process of its own."""
    words = [sys.executable, "-c", _RUN, "report", *args, "--format", "json"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    with ended(qdebug_process(*args)) as process:
        out, err = process.communicate(timeout=60)
    # Where bokeh is installed, a local cluster has a dashboard, too.
    err = re.sub(r"\ADashboard: http://\S+\n", "", err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_same(found: Any, wanted: Any, where: str = "") -> None:
    """Two JSON values; numbers to 1e-9 relative."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9), f"{where}: {found}, not {wanted}"
    else:
        assert found == wanted, where
