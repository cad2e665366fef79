"""The memory of a report does not grow with its layers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WritePairs = Callable[..., Path]


def peak(*args: Any) -> float:
    """Megabytes that a command takes at its peak, in a process of its own."""
    code = (
        "import sys; from qdebug.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(ran.stderr) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@pytest.mark.parametrize("kind", ["stored", "packed", "fortran", "channels"])
def test_memory_does_not_grow_with_a_layer(kind: str, write_pairs: WritePairs) -> None:
    """240 MB of arrays, in less than 150 MB above the interpreter's own."""
    x = np.zeros((4000, 10_000), np.float32)
    x[::7] = 0.31
    fields: dict[str, Any] = {"float": x, "quantized": np.rint(x / 0.1).astype(np.int16)}
    fields["scale"] = np.full(10_000 if kind == "channels" else 1, 0.1)
    fields["axis"] = 1
    if kind == "fortran":
        fields["float"] = np.asfortranarray(x)
    path = write_pairs({"a": fields}, packed=kind == "packed")
    del x, fields
    assert peak("report", path, "--jobs", 2) - peak("--help") < 150


@pytest.mark.slow
def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    """40 million elements are read in the memory of a few blocks."""
    import subprocess
    import sys

    path = tmp_path / "large.npz"
    x = np.zeros(40_000_000, np.float32)
    np.savez_compressed(path, **{"l/float": x, "l/quantized": x.astype(np.int8), "l/scale": 0.1})
    peak = (
        "import resource, sys; from qdebug.run import session;"
        "from qdebug.sources.pair_file.read import PairFiles;"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "assert session.run(PairFiles([sys.argv[1]])).num_elements == 40_000_000;"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024)"
    )
    run = [sys.executable, "-c", peak, str(path)]
    grown = float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert grown < 60  # MB; the arrays are 200
