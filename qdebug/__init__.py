"""Debugger for quantized neural networks: which layers does quantization hurt, and why.

The names below are the library (docs/api.md). Each is imported when it is first used, so that
``import qdebug`` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qdebug import testing
    from qdebug.api import (
        Layer,
        Pair,
        QdebugError,
        Report,
        analyze,
        capture,
        compare,
        load,
        quantize,
        save_pairs,
    )

__all__ = [
    "Layer",
    "Pair",
    "QdebugError",
    "Report",
    "analyze",
    "capture",
    "compare",
    "load",
    "quantize",
    "save_pairs",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'qdebug' has no attribute '{name}'")
    from importlib import import_module

    if name == "testing":
        return import_module("qdebug.testing")
    return getattr(import_module("qdebug.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
