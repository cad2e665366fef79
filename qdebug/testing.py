"""Assertions for a user's own tests of quantized models."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from qdebug.api import Layer, analyze, named_pair
from qdebug.arguments import texts
from qdebug.names import shown
from qdebug.report.limits import Config, check, limits_of, parse_causes

__all__ = ["assert_quantized"]


def assert_quantized(
    x: ArrayLike,
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    axis: int | None = None,
    *,
    name: str = "tensor",
    bits: int | None = None,
    narrow_range: bool = False,
    fail_on: str | Sequence[str] = (),
    **limits: float | str,
) -> Layer:
    """Assert that codes represent these floats within limits.

    Args:
        x: the float reference, any shape.
        q: the codes, of an integer type and the same shape.
        scale: above 0; () or (1,) per tensor, (channels,) per channel.
        zero_point: integers; (), (1,) or (channels,).
        axis: the channel axis, if there is more than one scale.
        name: the tensor's name in messages.
        bits: bits in use, if fewer than the codes' type has.
        narrow_range: the lowest code is not used.
        fail_on: causes that the diagnosis may not have (docs/diagnosis.md).
        limits: as for `qdebug.Report.check`; ``max_rmse_scale=0.7`` if none is given.

    Returns:
        The figures, for further assertions.

    >>> import numpy as np
    >>> layer = assert_quantized([0.1, 0.26], np.array([1, 3], np.int8), 0.1, max_rmse_scale=0.4)
    >>> assert_quantized([0.1, 0.26], np.array([1, 9], np.int8), 0.1, max_rmse_scale=0.4)
    Traceback (most recent call last):
    AssertionError: tensor: rmse_scale: found 4.525, expected <= 0.4
    ...

    Raises:
        AssertionError: a limit is exceeded, or there is no element; the message names the limit
            and the diagnosis.
        QdebugError: the arrays do not make a pair, or there is no such limit.
    """
    __tracebackhide__ = True
    causes = parse_causes(texts("fail_on", fail_on), "fail_on")
    bounds = limits_of(limits)
    pair = named_pair(name, x, q, scale, zero_point, axis, bits=bits, narrow_range=narrow_range)
    report = analyze({name: pair})
    (layer,) = report.layers
    result = check(report, bounds, dict.fromkeys(causes, "fail_on"), Config())
    wrong = [f"{f.figure}: found {f.found}, expected {f.expected}" for f in result.failures]
    wrong += result.unknown
    if not wrong and not pair.floats.size:
        wrong = ["found no element, expected some"]
    if not wrong:
        return layer
    lines = [f"{shown(name)}: {'; '.join(wrong)}"]
    if layer.diagnosis is not None and layer.diagnosis.cause != "ok":
        lines += [f"{layer.diagnosis.cause}: {layer.diagnosis.evidence}", layer.diagnosis.advice]
    raise AssertionError("\n".join(filter(None, lines)))
