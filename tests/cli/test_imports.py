"""A command imports only what it needs."""

import subprocess
import sys

import pytest

HEAVY = {
    *("numpy", "tabulate", "matplotlib", "onnx", "onnxruntime", "ai_edge_litert", "isal"),
    *("dask", "distributed", "fsspec", "concurrent", "json", "tomllib", "asyncio"),
}
MODELS = ["sample_models/digits_float.tflite", "sample_models/digits_int8.tflite"]
PAIRS = "sample_models/digits.npz"
PLAIN = {"numpy", "tabulate", "isal"}


@pytest.mark.parametrize(
    ("allowed", "args"),
    [
        (set(), ["--help"]),
        (set(), ["--version"]),
        (PLAIN, ["report", PAIRS]),
        (PLAIN, ["report", PAIRS, "--format", "csv"]),
        (PLAIN | {"json"}, ["report", PAIRS, "--format", "json"]),
        (PLAIN, ["report", "--help"]),
        (PLAIN | {"json"}, ["explain", "StatefulPartitionedCall_1:0", "-m", PAIRS]),
        (PLAIN | {"tomllib"}, ["check", PAIRS]),
        (PLAIN | {"json"}, ["suggest", PAIRS]),
        (PLAIN | {"ai_edge_litert", "json", "tomllib"}, ["report", *MODELS]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_only_what_it_needs(allowed: set[str], args: list[str]) -> None:
    code = (
        "import sys\nfrom qdebug.cli import main\nmain(sys.argv[1:], standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *args]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(ran.stderr.splitlines()[-1].split())
    assert "click" in imported
    assert HEAVY & imported <= allowed
