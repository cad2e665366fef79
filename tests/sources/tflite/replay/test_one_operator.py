"""Replays of one-operator models: several inputs or outputs, int4 weights, all types of codes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdebug
from qdebug.report.replay import OperatorReplay
from tests.arithmetic.integer.one_operator import Array, Tensor, all_computed, model
from tests.sources.tflite.models import schema

ZERO_POINTS = {"int8": -7, "uint8": 99, "int16": 0}


def replayed(
    path: Path, op: str, options: Any, inputs: list[Tensor], outputs: list[Tensor], version: int
) -> OperatorReplay:
    """The replay of the reference kernels' codes for random inputs."""
    rng = np.random.default_rng(0)
    content = model(op, options, inputs, outputs, version=version)
    computed = [place for place, tensor in enumerate(inputs) if tensor.data is None]
    values = [codes(rng, inputs[place]) for place in computed]
    made = all_computed(content, values)
    (path / "one.tflite").write_bytes(content)
    dump = {f"t{place}": each[None] for place, each in zip(computed, values, strict=True)}
    dump |= {f"t{place}": each[None] for place, each in enumerate(made, len(inputs))}
    (operator,) = qdebug.replay(path / "one.tflite", outputs=dump).operators
    assert operator.num_codes == sum(each.size for each in made)
    return operator


def codes(rng: np.random.Generator, tensor: Tensor) -> Array:
    info = np.iinfo(tensor.dtype)
    return rng.integers(info.min, info.max + 1, tensor.shape).astype(tensor.dtype)


def options(kind: str, **fields: int) -> Any:
    made = getattr(schema, f"{kind}OptionsT")()
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def numbers(values: object) -> Tensor:
    return Tensor(np.shape(values), "int32", data=np.int32(values))  # type: ignore[arg-type]


SHAPE = (2, 6, 4, 2)
# Operator, options, inputs, shapes of the outputs; a tuple among the inputs is a tensor's shape.
SEVERAL: list[tuple[str, Any, list[Any], list[tuple[int, ...]]]] = [
    ("SPLIT", options("Split", numSplits=3), [numbers(1), SHAPE], [(2, 2, 4, 2)] * 3),
    ("SPLIT", options("Split", numSplits=3), [numbers(-3), SHAPE], [(2, 2, 4, 2)] * 3),
    ("SPLIT_V", options("SplitV", numSplits=2), [SHAPE, numbers([1, -1]), numbers(1)],
     [(2, 1, 4, 2), (2, 5, 4, 2)]),
    ("UNPACK", options("Unpack", num=4, axis=2), [SHAPE], [(2, 6, 2)] * 4),
    ("UNPACK", options("Unpack", num=2, axis=-1), [SHAPE], [(2, 6, 4)] * 2),
    ("PACK", options("Pack", valuesCount=2, axis=-1), [(3, 5), (3, 5)], [(3, 5, 2)]),
    ("CONCATENATION", options("Concatenation", axis=-2), [SHAPE, (2, 6, 3, 2)], [(2, 6, 7, 2)]),
    ("BROADCAST_TO", None, [(1, 6, 1, 2), numbers([3, 6, 4, 2])], [(3, 6, 4, 2)]),
    ("MAXIMUM", options("MaximumMinimum"), [SHAPE, (1, 1, 4, 2)], [SHAPE]),
    ("MINIMUM", options("MaximumMinimum"), [SHAPE, (1, 1, 4, 2)], [SHAPE]),
    ("STRIDED_SLICE", options("StridedSlice", ellipsisMask=2, newAxisMask=4),
     [SHAPE, numbers([0, 0, 0, -1]), numbers([1, 0, 0, -3]), numbers([1, 1, 1, -1])],
     [(1, 6, 4, 1, 2)]),
    ("STRIDED_SLICE", options("StridedSlice"),
     [SHAPE, numbers([0, -100, 3, 0]), numbers([2, 100, -100, 2]), numbers([1, 2, -1, 1])],
     [(2, 3, 4, 2)]),
]  # fmt: skip


@pytest.mark.parametrize("dtype", list(ZERO_POINTS))
@pytest.mark.parametrize(("op", "chosen", "reads", "shapes"), SEVERAL)
def test_operators_that_read_or_write_several_tensors(
    op: str, chosen: Any, reads: list[Any], shapes: list[tuple[int, ...]], dtype: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    def tensor(shape: tuple[int, ...]) -> Tensor:
        return Tensor(shape, dtype, 0.1, ZERO_POINTS[dtype])

    inputs = [tensor(each) if isinstance(each, tuple) else each for each in reads]
    version = 3 if op in ("BROADCAST_TO", "CONCATENATION") else 2
    found = replayed(tmp_path, op, chosen, inputs, [tensor(shape) for shape in shapes], version)
    assert (found.op, found.num_differing) == (op, 0)


@pytest.mark.parametrize("dtype", list(ZERO_POINTS))
def test_a_pad_with_a_value_of_its_own(dtype: str, tmp_path: Path) -> None:
    x = Tensor(SHAPE, dtype, 0.1, ZERO_POINTS[dtype])
    value = Tensor((), dtype, 0.1, ZERO_POINTS[dtype], None, np.array(9, dtype))
    widths = numbers([[0, 0], [1, 0], [2, 1], [0, 1]])
    output = Tensor((2, 7, 7, 3), dtype, 0.1, ZERO_POINTS[dtype])
    assert replayed(tmp_path, "PADV2", None, [x, widths, value], [output], 2).num_differing == 0


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", list(ZERO_POINTS))
def test_transposed_convolutions(dtype: str, biased: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kind, wide = ("uint8" if dtype == "uint8" else "int8"), dtype == "int16"
    weights = Tensor((5, 3, 3, 3), kind, 0.01, 7 if kind == "uint8" else 0)
    weights.data = codes(rng, weights)
    x = Tensor((1, 4, 4, 3), dtype, 0.02, ZERO_POINTS[dtype])
    bias = Tensor((5,), "int64" if wide else "int32", 0.0002)
    bias.data = rng.integers(-4000, 4000, 5).astype(bias.dtype)
    output = Tensor((1, 8, 8, 5), dtype, 0.03, ZERO_POINTS[dtype])
    chosen = options("TransposeConv", strideH=2, strideW=2, padding=0)
    inputs = [numbers([1, 8, 8, 5]), weights, x, *([bias] if biased else [])]
    found = replayed(tmp_path, "TRANSPOSE_CONV", chosen, inputs, [output], 3)
    assert (found.num_codes, found.num_differing) == (320, 0)
    assert wide or found.matching[0] == "double"  # as in all convolutions of the reference kernels


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("op", ["FULLY_CONNECTED", "CONV_2D"])
def test_weights_of_four_bits(op: str, dtype: str, tmp_path: Path) -> None:
    rng, dense = np.random.default_rng(2), op == "FULLY_CONNECTED"
    shape = (6, 9) if dense else (6, 3, 3, 3)
    nibbles = (rng.integers(-7, 8, shape).reshape(-1) & 15).astype(np.uint8)
    scale = 0.03 if dense else rng.uniform(0.01, 0.05, 6)
    packed = nibbles[::2] | nibbles[1::2] << 4
    weights = Tensor(shape, "int4", scale, 0, None if dense else 0, packed)
    x = Tensor((4, 9) if dense else (1, 6, 6, 3), dtype, 0.05, ZERO_POINTS[dtype])
    output = Tensor((4, 6) if dense else (1, 4, 4, 6), dtype, 0.12, ZERO_POINTS[dtype])
    kind = "int64" if dtype == "int16" else "int32"
    scales = 0.05 * np.asarray(scale)
    bias = Tensor((6,), kind, scales, 0, None if dense else 0)
    bias.data = rng.integers(-500, 500, 6).astype(kind)
    chosen = options("FullyConnected" if dense else "Conv2D")
    if not dense:
        chosen.strideH = chosen.strideW = chosen.padding = 1
    found = replayed(tmp_path, op, chosen, [x, weights, bias], [output], 7 if dense else 6)
    assert found.num_differing == 0
