"""Library: the compiled kernel, where it is built. Imports no NumPy, for `qdebug --version`."""

import ctypes
import os
import zlib
from functools import cache
from pathlib import Path

from qdebug.errors import QdebugError

VARIABLE = "QDEBUG_KERNEL"
_NUMPY = "numpy"

# A plain shared library, for any Python; build.py makes it of the source, which is not installed.
FILE = Path(__file__).with_name("kernel.dll" if os.name == "nt" else "kernel.so")
SOURCE = Path(__file__).with_name("kernel.c")


def library() -> ctypes.CDLL | None:
    """The compiled kernel; None if it is missing, does not load, or is not wanted.

    Raises:
        QdebugError: the environment asks for another kernel.
    """
    return None if _numpy_wanted() else _load()[0]


def description() -> str:
    """Which kernel takes the statistics, for people.

    Raises:
        QdebugError: as `library`.
    """
    if _numpy_wanted():
        return f"NumPy ({VARIABLE}={_NUMPY})"
    found, problem = _load()
    return "compiled" if found is not None else f"NumPy ({problem})"


def _numpy_wanted() -> bool:
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", _NUMPY):
        raise QdebugError(f"{VARIABLE}: found {wanted!r:.40}, expected {_NUMPY} or nothing")
    return wanted == _NUMPY


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or the reason why there is none."""
    if not FILE.exists():
        return None, "no compiled kernel was built"
    try:
        found = ctypes.CDLL(str(FILE))
        built_of = ctypes.c_uint32.in_dll(found, "qdebug_source").value
    except (OSError, AttributeError, ValueError) as error:
        return None, f"the compiled kernel does not load: {error}".replace("\n", " ")
    if SOURCE.exists() and built_of != zlib.crc32(SOURCE.read_bytes()):
        return None, "the compiled kernel is not of this kernel.c"
    address, size, code, small = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int64, ctypes.c_int
    floats = (address, small, size, size, size)  # and their type, outer, channels, inner
    found.qdebug_measure.argtypes = [
        *(address, small) * 3,  # floats, codes, the float model's values; types
        *(size, size, size),  # outer, channels, inner
        *(address, address),  # scale, zero_point
        *(code, code, small),  # qmin, qmax, whether halves are rounded to even
        *(address, size),  # table, and its columns
    ]
    found.qdebug_decoded.argtypes = [
        *(address, small) * 5,  # floats, values, half distances below and above, ends; types
        *(size, size, size),  # outer, channels, inner
        *(address, size),  # table, and its columns
    ]
    found.qdebug_extremes.argtypes = [*floats, address, address]  # low, high
    found.qdebug_count.argtypes = [
        *floats,
        *(address, address, small),  # unit, first bin, mantissa bits
        *(code, address),  # bins, counts
    ]
    found.qdebug_distribute.argtypes = [
        *(address, small) * 2,  # floats, codes; types
        *(size, size, size),  # outer, channels, inner
        *(address, address),  # scale, zero_point
        *(address, size, address, address),  # edges of codes; counts of floats and codes
        *(address, size, address),  # edges of errors; counts
        ctypes.c_double,
    ]
    found.qdebug_distribute.restype = code
    found.qdebug_errors.argtypes = [
        *(address, small, address),  # floats; type; weights
        *(size, size, size, size),  # outer, channels, inner, candidates
        *(address, address, code, code),  # scale, zero_point, qmin, qmax
        *(address, address),  # least, totals
    ]
    for function in (
        *(found.qdebug_measure, found.qdebug_extremes),
        *(found.qdebug_count, found.qdebug_errors),
    ):
        function.restype = None
    return found, ""
