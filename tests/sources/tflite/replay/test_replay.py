"""Replays of whole models: every operator's codes are those of the runtime's kernels."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import qdebug
from qdebug.errors import QdebugError
from qdebug.sources.tflite.model import read_model
from qdebug.sources.tflite.run import Kernels
from tests.arithmetic.integer.one_operator import Tensor, computed, model
from tests.paths import DATA, ROOT
from tests.sources.tflite.models import INPUTS, INT8, branch_inputs, schema
from tests.sources.tflite.replay.device import LOGITS, POINTWISE, dumped, name_of

FLOAT = INT8.with_name("digits_float.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", get_args(Kernels))
def test_every_code_of_the_sample_model_is_reproduced(kernels: Kernels) -> None:
    found = qdebug.replay(INT8, INPUTS, kernels=kernels)
    assert (found.num_samples, len(found.operators), found.unsupported) == (40, 9, [])
    assert [each.num_differing for each in found.operators] == [0] * 9
    rounding = {"default": "single", "builtin": "double_up", "reference": "double"}[kernels]
    convolutions = [each for each in found.operators if each.op == "CONV_2D"]
    assert len(convolutions) == 3
    assert all(rounding in each.matching for each in convolutions)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["branches_int8", "branches_pertensor", "branches_uint8", "branches_int16"]
)
def test_every_type_of_activations_is_reproduced(name: str, tmp_path: Path) -> None:
    found = qdebug.replay(DATA / f"{name}.tflite", branch_inputs(tmp_path), kernels="reference")
    assert len(found.operators) >= 5
    assert [(each.name, each.num_differing) for each in found.operators if each.num_differing] == []


def test_float_operators_are_listed(tmp_path: Path) -> None:
    found = qdebug.replay(DATA / "branches_mixed.tflite", branch_inputs(tmp_path))
    assert found.unsupported
    assert all(each.reason for each in found.unsupported)
    assert not found.failing()


def test_the_worked_output_of_the_documentation() -> None:
    x = dumped()[name_of("digits_1/gap_1/")][0].astype(int)
    graph = read_model(str(INT8)).graph
    _, weights, bias = (
        graph.tensors[index]
        for index in next(o for o in graph.operators if o.op == "FULLY_CONNECTED").inputs
    )
    total = int((x + 128) @ weights.constant()[0].astype(int))
    with_bias = total + int(bias.constant()[0])
    product = with_bias * 1260439846
    page = (ROOT / "docs/integer.md").read_text()
    for step in (total, with_bias, product, f"{product / 2**40:.3f}, rounded -36"):
        assert f"| {step} |" in page
    assert dumped()[name_of(LOGITS)][0, 0] == -36 + 16


MOVES = [
    ("RESHAPE", "ReshapeOptionsT", {"newShape": [8, 6]}, [[8, 6]], (8, 6), 1),
    ("TRANSPOSE", None, {}, [[2, 0, 1, 3]], (4, 2, 3, 2), 2),
    ("PAD", None, {}, [[[0, 0], [1, 2], [0, 1], [0, 0]]], (2, 6, 5, 2), 2),
    ("MIRROR_PAD", "MirrorPadOptionsT", {"mode": 0}, [[[0, 0], [1, 2], [0, 1], [0, 0]]],
     (2, 6, 5, 2), 2),
    ("MIRROR_PAD", "MirrorPadOptionsT", {"mode": 1}, [[[0, 0], [1, 2], [0, 1], [0, 0]]],
     (2, 6, 5, 2), 2),
    ("SLICE", None, {}, [[0, 1, 0, 1], [2, 2, 3, 1]], (2, 2, 3, 1), 2),
    ("STRIDED_SLICE", "StridedSliceOptionsT",
     {"beginMask": 1, "endMask": 8, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 4},
     [[1, -1, 1, 0], [2, -4, 2, 9], [1, -2, 1, 1]], (2, 2, 2), 2),
    ("GATHER", "GatherOptionsT", {"axis": 2, "batchDims": 0}, [[2, 0, 2, 1]], (2, 3, 4, 2), 2),
    ("TILE", None, {}, [[1, 2, 1, 3]], (2, 6, 4, 6), 2),
    ("SPACE_TO_DEPTH", "SpaceToDepthOptionsT", {"blockSize": 2}, [], (2, 2, 2, 8), 2),
    ("DEPTH_TO_SPACE", "DepthToSpaceOptionsT", {"blockSize": 2}, [], (2, 4, 8, 1), 1),
    ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptionsT",
     {"alignCorners": False, "halfPixelCenters": False}, [[7, 5]], (2, 7, 5, 2), 2),
    ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptionsT",
     {"alignCorners": True, "halfPixelCenters": False}, [[7, 5]], (2, 7, 5, 2), 2),
    ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptionsT",
     {"alignCorners": False, "halfPixelCenters": True}, [[7, 5]], (2, 7, 5, 2), 2),
    ("REDUCE_MAX", "ReducerOptionsT", {"keepDims": True}, [[1, 2]], (2, 1, 1, 2), 2),
    ("REDUCE_MIN", "ReducerOptionsT", {"keepDims": False}, [[3]], (2, 4, 4), 2),
    ("EXPAND_DIMS", "ExpandDimsOptionsT", {}, [[1]], (2, 1, 4, 4, 2), 1),
    ("SQUEEZE", "SqueezeOptionsT", {"squeezeDims": []}, [], (2, 4, 4, 2), 1),
    ("REVERSE_V2", None, {}, [[1]], (2, 4, 4, 2), 3),
]  # fmt: skip
SHAPES = {
    "RESHAPE": (2, 4, 3, 2), "TRANSPOSE": (2, 3, 4, 2), "PAD": (2, 3, 4, 2),
    "MIRROR_PAD": (2, 3, 4, 2), "SLICE": (2, 3, 4, 2), "STRIDED_SLICE": (2, 5, 4, 2),
    "GATHER": (2, 3, 4, 2), "TILE": (2, 3, 4, 2), "DEPTH_TO_SPACE": (2, 2, 4, 4),
}  # fmt: skip


@pytest.mark.parametrize(("op", "kind", "fields", "more", "shape", "version"), MOVES)
def test_operators_that_move_codes(
    op: str, kind: str | None, fields: dict[str, object], more: list[object],
    shape: tuple[int, ...], version: int, tmp_path: Path,
) -> None:  # fmt: skip
    options = getattr(schema, kind)() if kind else None
    for field, value in fields.items():
        setattr(options, field, value)
    x = Tensor(SHAPES.get(op, (2, 4, 4, 2)), "int8", 0.1, -7)
    constants = [Tensor(np.shape(each), "int32", data=np.int32(each)) for each in more]
    output = Tensor(shape, "int8", 0.1, -7)
    content = model(op, options, [x, *constants], output, version=version)
    path = tmp_path / "one.tflite"
    path.write_bytes(content)
    values = np.random.default_rng(0).integers(-128, 128, size=x.shape).astype("int8")
    try:
        made = computed(content, [values])
    except ValueError as error:
        if "Didn't find op" not in str(error):
            raise
        pytest.skip(f"this LiteRT has no version {version} of {op}")
    codes = {"t0": values[None], f"t{len(constants) + 1}": made[None]}
    found = qdebug.replay(path, outputs=codes)
    assert [(each.op, each.num_differing) for each in found.operators] == [(op, 0)]
    assert found.operators[0].num_codes == made.size


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_concatenation(dtype: str, tmp_path: Path) -> None:
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    first = Tensor((2, 3), dtype, 0.1, 5)
    second = Tensor((2, 4), dtype, 0.03 if dtype == "uint8" else 0.1, 99 if dtype == "uint8" else 5)
    output = Tensor((2, 7), dtype, 0.1, 5)
    content = model("CONCATENATION", options, [first, second], output, version=2)
    path = tmp_path / "one.tflite"
    path.write_bytes(content)
    ends, rng = np.iinfo(dtype), np.random.default_rng(0)
    a, b = (
        rng.integers(ends.min, ends.max + 1, size=tensor.shape).astype(dtype)
        for tensor in (first, second)
    )
    codes = {"t0": a[None], "t1": b[None], "t2": computed(content, [a, b])[None]}
    (operator,) = qdebug.replay(path, outputs=codes).operators
    assert (operator.num_codes, operator.num_differing) == (14, 0)


def test_inputs_that_a_dump_lacks_come_from_the_local_run() -> None:
    codes = dumped()
    name = name_of(POINTWISE)
    found = qdebug.replay(INT8, INPUTS, outputs={name: codes[name]}, samples=3, kernels="reference")
    (operator,) = found.operators
    assert (operator.name, operator.recorded, operator.num_differing) == (name, "run", 0)
    assert len(found.unsupported) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "found no inputs, expected samples to run it on"),
        ({"outputs": {"nothing": np.zeros((3, 2), np.int8)}},
         "outputs: found 1 array ('nothing'), expected codes named like tensors"),
        ({"outputs": {"StatefulPartitionedCall_1:0": np.zeros((3, 10), np.float32)}},
         "outputs: array 'StatefulPartitionedCall_1:0': found float32, expected int8 for tensor "
         "'StatefulPartitionedCall_1:0'"),
        ({"outputs": {"StatefulPartitionedCall_1:0": np.zeros((3, 9), np.int8)}},
         "found shape (3, 9), expected (samples, 10) for tensor"),
        ({"outputs": {"StatefulPartitionedCall_1:0": np.zeros((3, 10), np.int8)}},
         "none of its 9 operators can be replayed; SOFTMAX 'StatefulPartitionedCall_1:0': "
         "'digits_1/logits_1/MatMul;digits_1/logits_1/BiasAdd' is not recorded"),
        ({"outputs": {"StatefulPartitionedCall_1:0": np.zeros((3, 10), np.int8),
                      "StatefulPartitionedCall:0": np.zeros((3, 10), np.int8)}},
         "outputs: array 'StatefulPartitionedCall:0': found no tensor of this name in"),
        ({"outputs": np.zeros((3, 10), np.int8)}, "outputs: found no named arrays, expected"),
        ({"inputs": INPUTS, "outputs": {"StatefulPartitionedCall_1:0": np.zeros((3, 10), np.int8)}},
         "found 3 samples, expected 40, as in the inputs"),
        ({"inputs": INPUTS, "tolerance": -1}, "tolerance: found -1, expected steps: 0 or more"),
        ({"inputs": INPUTS, "kernels": "fast"}, "kernels: found 'fast'"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(QdebugError) as caught:
        qdebug.replay(INT8, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_of_a_dump_that_are_not_compared_are_noted() -> None:
    found = qdebug.replay(INT8, outputs=dumped() | {"digits_1/logits_1/MatMul": np.zeros(3)})
    assert len(found.operators) == 9
    (note,) = found.notes
    assert note == (
        "outputs: 1 array left out, not codes of activations: 'digits_1/logits_1/MatMul'"
    )


def test_a_float_model_is_refused() -> None:
    with pytest.raises(QdebugError, match="found no quantized activations, expected an integer"):
        qdebug.replay(FLOAT, INPUTS)


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(QdebugError, match=r"model.onnx: expected a quantized .tflite model"):
        qdebug.replay("model.onnx", INPUTS)
