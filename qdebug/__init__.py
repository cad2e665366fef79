"""Debugger for quantized neural networks: which layers does quantization hurt, and why.

The names below are the public library (docs/api.md). Each is imported when it is first used, so
``import qdebug`` itself loads nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers take it for True; `typing` itself would be an import
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
        diff,
        load,
        quantize,
        replay,
        save_pairs,
        suggest,
    )

__all__ = [
    "Layer",
    "Pair",
    "QdebugError",
    "Report",
    "analyze",
    "capture",
    "compare",
    "diff",
    "load",
    "quantize",
    "replay",
    "save_pairs",
    "suggest",
    "testing",
]


if not TYPE_CHECKING:  # so that type checkers also report a misspelt name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'qdebug' has no attribute '{name}'")
        from importlib import import_module

        if name == "testing":
            return import_module("qdebug.testing")
        return getattr(import_module("qdebug.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
