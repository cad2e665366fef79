"""Deflate and CRC-32: the standard library's, or ISA-L's where the extra `fast` is installed.

docs/performance.md measures both, and zlib-ng, the other candidate.
"""

from typing import Any

implementation: Any
try:
    from isal import isal_zlib as implementation
except ImportError:
    import zlib as implementation

decompressobj = implementation.decompressobj
crc32 = implementation.crc32
DeflateError: type[Exception] = implementation.error
