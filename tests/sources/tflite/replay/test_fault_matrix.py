"""Every known fault, in every kind of kernel that can have it, for every type: found and named."""

from collections.abc import Callable
from pathlib import Path

import pytest

import qdebug
from qdebug.report.replay import Replay
from tests.arithmetic.integer.one_operator import model
from tests.sources.tflite.replay.faulty import (
    NAMES,
    ROUNDED,
    WIDE,
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


@pytest.mark.parametrize("op", ["FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"])
def test_accumulators_of_int16_activations_are_wide(op: str, tmp_path: Path) -> None:
    (operator,) = replayed(tmp_path, product(op, "int16", WIDE[1], 0)).operators
    assert (operator.num_differing, operator.overflows) == (0, 0)


def replayed(path: Path, planted: Planted) -> Replay:
    content = model(planted.op, planted.options, planted.inputs, planted.output, version=1)
    (path / "one.tflite").write_bytes(content)
    return qdebug.replay(path / "one.tflite", outputs=planted.dump)


@pytest.mark.parametrize(("op", "dtype", "fault"), MATRIX)
def test_a_fault_is_found_and_named_and_a_sound_kernel_has_none(
    op: str, dtype: str, fault: str, tmp_path: Path
) -> None:
    planted = KINDS[op][0](op, dtype, fault, 0)
    found = replayed(tmp_path, planted)
    (operator,) = found.operators
    assert operator.num_codes == planted.made.size
    if fault == "none":
        assert (operator.num_differing, operator.fault) == (0, None)
        return
    assert [each.name for each in found.failing()] == [operator.name]
    assert operator.fault is not None
    assert operator.fault.name == NAMES[fault]
