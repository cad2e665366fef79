"""Tests of statistics run with each kernel."""

from collections.abc import Iterator

import pytest

from qdebug.measure.kernel.library import VARIABLE, description, library


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def both_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module's tests, with the compiled kernel and with NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setenv(VARIABLE, "numpy")
        else:
            patch.delenv(VARIABLE, raising=False)
            if library() is None:
                pytest.skip(description())
        yield
