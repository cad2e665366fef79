"""Fuzz GGUF files: header, places and blocks of codes, beside a sound float file."""

from pathlib import Path

import numpy as np

from fuzz.target import fuzz, report_on
from tests.gguf_files import floats, gguf

_X = np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64)


def read(path: str) -> None:
    """As the quantized side of a pair."""
    beside = Path(path).with_name("f.gguf")
    if not beside.exists():
        beside.write_bytes(gguf([floats(_X)]))
    report_on(str(beside), path)


if __name__ == "__main__":
    fuzz(read, ".gguf")
