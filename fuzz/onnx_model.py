"""Fuzz ONNX models (.onnx): the quantized one beside a float model.

Without inputs only operators on constants would be run; here they are not: the runtime's own faults
are not qdebug's.
"""

import tempfile
from pathlib import Path
from typing import Any

from fuzz.target import QdebugError, fuzz, report_on
from qdebug.sources.onnx.run import Session
from tests.hostile.onnx_models import pair


def _refuse(*_: Any, **__: Any) -> None:
    raise QdebugError("the runtime is left out")


if __name__ == "__main__":
    Session.__init__ = _refuse  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "float.onnx")
        sound.write_bytes(pair()[0])
        fuzz(lambda path: report_on(str(sound), path), ".onnx")
