"""Assertions for a user's own tests of quantized models."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from qdebug.api import Layer, Pair, analyze
from qdebug.names import shown

__all__ = ["assert_quantized"]


def assert_quantized(
    x: ArrayLike,
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    axis: int | None = None,
    *,
    name: str = "tensor",
    fail_on: Sequence[str] = (),
    bits: int | None = None,
    narrow_range: bool = False,
    **limits: float | str,
) -> Layer:
    """Assert that codes stand for these floats within limits.

    Args:
        x: the float reference.
        q: the codes.
        scale: one, or one for each channel.
        zero_point: likewise.
        axis: the channel axis.
        name: what the message calls the tensor.
        fail_on: causes of the diagnosis that it may not have.
        bits: bits in use, where the codes' type has more.
        narrow_range: the lowest code is not used.
        limits: as for `qdebug.Report.check`; ``max_rmse_scale=0.7`` where there is none.

    Returns:
        The figures, for further assertions.

    >>> import numpy as np
    >>> layer = assert_quantized([0.1, 0.26], np.array([1, 3], np.int8), 0.1, max_rmse_scale=0.4)
    >>> assert_quantized([0.1, 0.26], np.array([1, 9], np.int8), 0.1, max_rmse_scale=0.4)
    Traceback (most recent call last):
    AssertionError: tensor: rmse_scale found 4.525, expected <= 0.4; ...

    Raises:
        AssertionError: a limit is exceeded; the message says which, and the diagnosis.
        QdebugError: the arrays do not make a pair, or no such limit.
    """
    __tracebackhide__ = True
    pair = Pair(x, q, scale, zero_point, axis, bits=bits, narrow_range=narrow_range)
    report = analyze({name: pair})
    result = report.check(fail_on=fail_on, config=None, **limits)
    layer = report[name]
    if result.passed:
        return layer
    wrong = [
        f"{each.figure} found {each.found}, expected {each.expected}" for each in result.failures
    ]
    wrong += result.unknown or ([] if wrong else ["found no element, expected some"])
    if layer.diagnosis is not None and layer.diagnosis.cause != "ok":
        wrong.append(f"{layer.diagnosis.cause}: {layer.diagnosis.evidence}")
    raise AssertionError(f"{shown(name)}: {'; '.join(wrong)}")
