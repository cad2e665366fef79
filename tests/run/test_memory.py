"""The memory of a report does not grow with its layers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.paths import SAMPLES

WritePairs = Callable[..., Path]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only"),
]


def peak(*args: Any) -> float:
    """Megabytes that a command takes at its peak, in a process of its own."""
    code = (
        "import sys; from qdebug.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(ran.stderr) / 1024


@pytest.fixture(scope="module")
def small() -> float:
    """The peak of a report on 0.1 million elements."""
    return peak("report", SAMPLES / "digits.npz", "--jobs", 2)


@pytest.mark.parametrize("kind", ["stored", "packed", "fortran", "channels"])
def test_memory_does_not_grow_with_a_layer(
    kind: str, small: float, write_pairs: WritePairs
) -> None:
    """Floats of 80 MB and codes of 40 MB take less than either of them."""
    x = np.zeros((20_000, 1000), np.float32)
    x[::7] = 0.31
    fields: dict[str, Any] = {"float": x, "quantized": np.rint(x / 0.1).astype(np.int16)}
    fields["scale"] = np.full(1000 if kind == "channels" else 1, 0.1)
    fields["axis"] = 1
    if kind == "fortran":
        fields["float"] = np.asfortranarray(x)
    path = write_pairs({"a": fields}, packed=kind == "packed")
    del x, fields
    grown = peak("report", path, "--jobs", 2) - small
    print(grown)
    assert grown < 35
