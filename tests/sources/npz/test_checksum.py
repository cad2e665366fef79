"""Checksums of an array's ranges."""

import random
import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qdebug.sources.npz.checksum import RangeSum, agree


@given(data=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 300)))
def test_checksums_of_ranges_make_up_that_of_the_whole(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sums = [
        RangeSum(
            "a", start, stop - start, zlib.crc32(data[start:stop]), len(data), zlib.crc32(data)
        )
        for start, stop in pairwise(ends)
    ]
    random.Random(0).shuffle(sums)
    assert agree(sums)
    assert len(sums) == 1 or not agree(sums[1:])
    wrong = RangeSum("a", ends[0], ends[1], sums[0].crc ^ 1, len(data), zlib.crc32(data))
    assert not agree([wrong, *(part for part in sums if part.start != ends[0])])
