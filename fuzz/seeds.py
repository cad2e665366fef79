"""What the fuzzer starts from: the small files of tests/hostile, and sound ones of each kind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qdebug.report.tflite_csv import write_csv
from tests.gguf_files import architecture, gguf, q8_0
from tests.hostile.everyone import ALL
from tests.hostile.npz import members, zipped
from tests.hostile.texts import SOUND, changed
from tests.pairs import read
from tests.paths import DATA, SAMPLES

# The targets, each with the readers of tests/hostile whose files it starts from.
TARGETS = {
    "pair_file": ("pair file", "array", "name"),
    "tflite_model": ("LiteRT model",),
    "onnx_model": ("ONNX model",),
    "json_report": ("report",),
    "tflite_csv": ("CSV",),
    "configuration": ("configuration",),
    "inputs": ("inputs",),
    "gguf_model": ("GGUF",),
}

LARGEST = 1 << 15

_CONFIGURATION = """\
max_rmse_scale = 0.7
min-sqnr = 20
max_clipped = "1%"
fail_on = ["clipping", "bias"]
ignore = ["*/Relu*"]
source = "*.npz"
samples = 4
keys = { float = "{}_fp32" }
[[layer]]
name = "conv*"
max_rmse_scale = 1
"""


def write_seeds(target: str, folder: Path) -> int:
    """Write the seeds of one target into an empty folder; how many there are."""
    seeds = {*_sound(target), *_hostile(target)}
    for number, seed in enumerate(sorted(seeds)):
        (folder / f"{number:03}").write_bytes(seed)
    return len(seeds)


def _hostile(target: str) -> Iterator[bytes]:
    for case in ALL:
        if case.reader in TARGETS[target]:
            with tempfile.TemporaryDirectory() as folder:
                case.made(Path(folder))
                path = Path(folder, case.file)
                if path.is_file() and path.stat().st_size <= LARGEST:
                    yield path.read_bytes()


def _sound(target: str) -> Iterator[bytes]:
    if target == "tflite_model":
        yield from (path.read_bytes() for path in DATA.glob("*.tflite"))
    elif target == "tflite_csv":
        yield write_csv(read(Path(SOUND))).encode()
    elif target == "json_report":
        yield changed(lambda report: None).encode()
        yield changed(lambda report: report.update(layers=report["layers"][:1])).encode()
    elif target == "configuration":
        yield _CONFIGURATION.encode()
        yield b"[tool.qdebug]\n" + _CONFIGURATION.partition("[[layer]]")[0].encode()
    elif target == "gguf_model":
        x = np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64)
        yield gguf([q8_0(x)], architecture(attention__head_count=4))
    elif target == "inputs":
        yield (SAMPLES / "digits_inputs.npz").read_bytes()
    elif target == "pair_file":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "x.npz")
            channels = {"axis": 0, "scale": [0.01] * 40, "zero_point": [0] * 40}
            for fields in ({}, channels, {"bits": 4, "op": "CONV_2D", "nodes": ["a", "b"]}):
                zipped(path, members("l", **fields) | members("m"), 8 * bool(fields))
                yield path.read_bytes()
