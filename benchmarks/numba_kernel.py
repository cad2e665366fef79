"""The loop of kernel.c in Numba: the time to import it, to load it from the cache, and to run it.

Prints the seconds to import Numba, the seconds until a kernel compiled by an earlier run has
measured its first block, and the elements per second after that. The very first run compiles.
"""

import math
import time
from typing import Any

from kernel import PARAMS, SCALE, blocks_in_memory, rate

from qdebug.measure.layer import Block

start = time.perf_counter()
import numba  # noqa: E402 - this import is timed

IMPORTING = time.perf_counter() - start


@numba.njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator,unused-ignore]
def sums_of(xs: Any, qs: Any, scale: float, zero_point: float) -> Any:
    """The sums of kernel.c, in its order."""
    total = magnitude = steps_sum = e_sum = outward = 0.0
    xx = ss = xs_product = ee = zeros = saturated = doubtful = 0.0
    x_min, x_max, q_min, q_max, e_max = math.inf, -math.inf, 127.0, -128.0, 0.0
    for i in range(xs.size):
        x, q = float(xs[i]), float(qs[i])
        steps = q - zero_point
        e = steps * scale - x
        size = abs(e)
        total += x
        magnitude += abs(x)
        steps_sum += steps
        e_sum += e
        outward += math.copysign(1.0, x) * e if x != 0 else 0.0  # faster than two comparisons
        xx += x * x
        ss += steps * steps
        xs_product += x * steps
        ee += e * e
        x_min = x if x < x_min else x_min
        x_max = x if x > x_max else x_max
        q_min = q if q < q_min else q_min
        q_max = q if q > q_max else q_max
        e_max = size if size > e_max else e_max
        zeros += 1.0 if x == 0 else 0.0
        saturated += 1.0 if (q == -128) | (q == 127) else 0.0
        doubtful += 1.0 if size > 0.49999 * scale else 0.0
    sums = (total, magnitude, steps_sum, e_sum, outward, xx, ss, xs_product, ee)
    return *sums, x_min, x_max, q_min, q_max, e_max, zeros, saturated, doubtful


def kernel(block: Block) -> Any:
    """The sums of a block."""
    zero_point = float(PARAMS.zero_point[0])
    return sums_of(block.floats.reshape(-1), block.codes.reshape(-1), SCALE, zero_point)


if __name__ == "__main__":
    blocks = blocks_in_memory()
    start = time.perf_counter()
    kernel(blocks[0])
    loading = time.perf_counter() - start
    print(IMPORTING, loading, rate(kernel, blocks))
