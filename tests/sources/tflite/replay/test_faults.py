"""Kernel faults, planted in one layer of a device's dump: each is found, and named."""

from pathlib import Path

import numpy as np
import pytest

import qdebug
from qdebug.arithmetic.integer.products import fully_connected
from tests.arithmetic.integer.one_operator import Tensor, model
from tests.sources.tflite.models import INT8, schema
from tests.sources.tflite.replay.device import (
    FAULTS,
    LOGITS,
    POINTWISE,
    STEM,
    dumped,
    faulty,
    name_of,
    until,
)

PLANTED = [
    (layer, fault)
    for layer in (STEM, POINTWISE, LOGITS)
    for fault in FAULTS
    if fault != "accumulator" or layer != POINTWISE  # whose sums fit 16 bits
]


def test_a_sound_device_has_no_fault() -> None:
    found = qdebug.replay(INT8, outputs=dumped())
    assert not found.failing()
    assert sum(operator.num_codes for operator in found.operators) > 1000
    assert {operator.recorded for operator in found.operators} == {"dump"}
    assert not found.unsupported


@pytest.mark.parametrize(("layer", "fault"), PLANTED)
def test_a_planted_fault_is_found_and_named(layer: str, fault: str) -> None:
    name = name_of(layer)
    codes = until(name)
    codes[name] = faulty(layer, fault)
    assert (codes[name] != faulty(layer, "none")).any()
    found = qdebug.replay(INT8, outputs=codes)
    suspect = found.operators[-1]
    assert [each.name for each in found.failing()] == [suspect.name] == [name]
    assert suspect.fault is not None
    assert suspect.fault.name == FAULTS[fault]
    assert {each.reason for each in found.unsupported} <= {"its output is not in the dump"}


def test_a_sound_kernel_of_another_rounding_has_no_fault() -> None:
    codes = until(name_of(POINTWISE))
    codes[name_of(POINTWISE)] = faulty(POINTWISE, "none")
    found = qdebug.replay(INT8, outputs=codes)
    assert not found.failing()
    assert found.operators[-1].matching == ("single", "float")
    assert found.operators[0].matching == ("double", "double_up")


def test_a_fused_activation_left_out_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = Tensor((1, 9), "int8", 0.05, 3)
    weights = Tensor((5, 9), "int8", 0.01, 0, None, rng.integers(-127, 128, (5, 9)).astype("int8"))
    output, options = Tensor((1, 5), "int8", 0.02, -20), schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    path = tmp_path / "one.tflite"
    path.write_bytes(model("FULLY_CONNECTED", options, [x, weights], output, version=4))
    codes = rng.integers(-128, 128, size=(20, 9)).astype("int8")
    without = fully_connected(x.codes(codes), weights.codes(weights.data), None, output.params)
    found = qdebug.replay(path, outputs={"t0": codes, "t2": without.codes})
    (operator,) = found.operators
    assert operator.fault is not None
    assert operator.fault.name == "it ignores its fused activation RELU"


def test_codes_that_no_fault_explains_are_not_explained() -> None:
    codes = dumped()
    name = name_of(POINTWISE)
    codes[name] = np.roll(codes[name], 1, axis=1)
    found = next(each for each in qdebug.replay(INT8, outputs=codes).failing())
    assert (found.name, found.fault) == (name, None)
    first = found.first[0]
    assert first.recorded == codes[name][first.sample][first.index[1:]]
    assert found.max_steps >= abs(first.computed - first.recorded) > 0
