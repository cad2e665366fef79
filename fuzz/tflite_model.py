"""Fuzz LiteRT models (.tflite): beside a float model, and alone, as in TFLite's debug mode.

Without inputs nothing is run: the runtime's own faults are not qdebug's.
"""

import contextlib

from fuzz.target import QdebugError, fuzz, report_on
from tests.paths import DATA

_FLOAT = str(DATA / "branches_float.tflite")


def read(path: str) -> None:
    """The weights of the pair."""
    with contextlib.suppress(QdebugError):
        report_on(path)
    report_on(_FLOAT, path)


if __name__ == "__main__":
    fuzz(read, ".tflite")
