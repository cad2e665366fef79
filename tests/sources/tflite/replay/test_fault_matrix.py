"""Every known fault, in every kind of kernel that can have it, for every type: found and named."""

from collections.abc import Callable
from pathlib import Path

import pytest

import qdebug
from tests.arithmetic.integer.one_operator import model
from tests.sources.tflite.replay.faulty import (
    NAMES,
    ROUNDED,
    ZERO_POINTS,
    Planted,
    of_one,
    of_two,
    product,
)

Plant = Callable[[str, str, str, int], Planted]
KINDS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    **dict.fromkeys(("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"), (product, tuple(NAMES))),
    **dict.fromkeys(("ADD", "SUB", "MUL"), (of_two, (*ROUNDED, *ZERO_POINTS, "weight zero point"))),
    **dict.fromkeys(("QUANTIZE", "RELU", "LEAKY_RELU", "MEAN"), (of_one, (*ROUNDED, *ZERO_POINTS))),
    "AVERAGE_POOL_2D": (of_one, ("truncation",)),
    "PAD": (of_one, ("output zero point",)),
}


def can_have(op: str, dtype: str, fault: str) -> bool:
    """Whether the fault changes a code: zero points that are 0 can be ignored."""
    if "zero point" in fault and dtype == "int16":
        return False
    if fault == "weight zero point" and KINDS[op][0] is product:
        return dtype == "uint8"
    return fault != "accumulator of 32 bits" or dtype == "int16"


MATRIX = [
    (op, dtype, fault)
    for op, (_, faults) in KINDS.items()
    for dtype in ("int8", "uint8", "int16")
    for fault in ("none", *faults)
    if can_have(op, dtype, fault)
]


@pytest.mark.parametrize(("op", "dtype", "fault"), MATRIX)
def test_a_fault_is_found_and_named_and_a_sound_kernel_has_none(
    op: str, dtype: str, fault: str, tmp_path: Path
) -> None:
    planted = KINDS[op][0](op, dtype, fault, 0)
    path = tmp_path / "one.tflite"
    content = model(op, planted.options, planted.inputs, planted.output, version=1)
    path.write_bytes(content)
    found = qdebug.replay(path, outputs=planted.dump)
    (operator,) = found.operators
    assert operator.num_codes == planted.made.size
    if fault == "none":
        assert (operator.num_differing, operator.fault) == (0, None)
        return
    assert [each.name for each in found.failing()] == [operator.name]
    assert operator.fault is not None
    assert operator.fault.name == NAMES[fault]
