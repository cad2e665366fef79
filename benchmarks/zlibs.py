"""zlib and its faster replacements: CRC-32 and inflate, in bytes of array data per second."""

import importlib
import importlib.util
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pairs import Fields, activation, normal, pair

MODULES = {"zlib": "zlib", "isal": "isal.isal_zlib", "zlib-ng": "zlib_ng.zlib_ng"}
ELEMENTS = 1 << 21
REPETITIONS = 7


class Rates(NamedTuple):
    """Bytes of array data per second, on one core."""

    crc32: float
    inflate_normal: float
    inflate_activations: float


def rates() -> dict[str, Rates]:
    """The rates of each library that is installed."""
    arrays = [_bytes(make(normal(ELEMENTS))) for make in (pair, activation)]
    found = {}
    for name, module in MODULES.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue
        codec = importlib.import_module(module)
        inflating = [
            _rate(partial(codec.decompress, _deflated(data), -15), len(data)) for data in arrays
        ]
        found[name] = Rates(_rate(partial(codec.crc32, arrays[0]), len(arrays[0])), *inflating)
    return found


def _bytes(fields: Fields) -> bytes:
    return fields["float"].tobytes() + fields["quantized"].tobytes()


def _deflated(data: bytes) -> bytes:
    """The data, compressed as by numpy.savez_compressed."""
    packer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _rate(work: Callable[[], object], size: int) -> float:
    best = float("inf")
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return size / best
