"""What a test needs that may not be installed."""

from importlib.util import find_spec

import pytest

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs qdebug[dask]")
needs_fsspec = pytest.mark.skipif(find_spec("fsspec") is None, reason="needs qdebug[dask]")
needs_http = pytest.mark.skipif(find_spec("aiohttp") is None, reason="needs aiohttp")
