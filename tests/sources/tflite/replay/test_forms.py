"""Forms of arithmetic that only one kernel has: its sound codes are no fault."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdebug
from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer import xnnpack
from qdebug.report.replay import OperatorReplay
from qdebug.sources.tflite.replay.forms import forms_of
from tests.arithmetic.integer.one_operator import Array, Tensor, model
from tests.sources.tflite.models import schema
from tests.sources.tflite.replay.test_one_operator import codes

SHAPE = (1, 4, 5, 40)
PARAMS = QuantParams.of(0.1)


def computed(content: bytes, values: list[Array], resolver: str) -> Array:
    """The runtime's codes, of another set of kernels than the reference's."""
    from ai_edge_litert import interpreter as litert

    runner = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType[resolver],
    )
    runner.allocate_tensors()
    for detail, value in zip(runner.get_input_details(), values, strict=True):
        runner.set_tensor(detail["index"], value)
    runner.invoke()
    found: Array = runner.get_tensor(runner.get_output_details()[0]["index"])
    return found


def replayed(
    path: Path, op: str, options: Any, inputs: list[Tensor], output: Tensor, resolver: str
) -> OperatorReplay:
    """The replay of these kernels' codes."""
    content = model(op, options, inputs, output, version=2)
    rng = np.random.default_rng(0)
    values = [codes(rng, tensor) for tensor in inputs if tensor.data is None]
    (path / "one.tflite").write_bytes(content)
    dump = {f"t{place}": each[None] for place, each in enumerate(values)}
    dump[f"t{len(inputs)}"] = computed(content, values, resolver)[None]
    return qdebug.replay(path / "one.tflite", outputs=dump).operators[0]


def alpha(slope: float) -> Any:
    made = schema.LeakyReluOptionsT()
    made.alpha = slope
    return made


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("op", "options"), [("QUANTIZE", schema.QuantizeOptionsT()), ("LEAKY_RELU", alpha(0.3))]
)
def test_xnnpack_converts_with_few_bits(op: str, options: Any, dtype: str, tmp_path: Path) -> None:
    x, output = Tensor(SHAPE, dtype, 0.0713, 20), Tensor(SHAPE, dtype, 0.0914, 35)
    found = replayed(tmp_path, op, options, [x], output, "AUTO")
    assert (found.matching, found.rounding, found.fault) == (("xnnpack",), "xnnpack", None)
    assert found.differing["double"] > 20  # the form tells: one code in ten


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op", ["ADD", "SUB"])
@pytest.mark.parametrize("activation", [0, 1, 2, 3])
def test_xnnpack_adds_with_one_shift(op: str, dtype: str, activation: int, tmp_path: Path) -> None:
    options = getattr(schema, f"{op.title()}OptionsT")()
    options.potScaleInt16, options.fusedActivationFunction = False, activation
    inputs = [Tensor(SHAPE, dtype, 0.0713, 20), Tensor(SHAPE, dtype, 0.0114, 35)]
    output = Tensor(SHAPE, dtype, 0.05, 12)
    found = replayed(tmp_path, op, options, inputs, output, "AUTO")
    assert "xnnpack" in found.matching


def test_the_built_in_depthwise_convolution_rounds_the_last_channels_otherwise(
    tmp_path: Path,
) -> None:
    rng, channels = np.random.default_rng(1), 12  # a block of 8, and 4 more
    weights = Tensor((1, 3, 3, channels), "int8", rng.uniform(0.005, 0.02, channels), 0, 3)
    weights.data = codes(rng, weights)
    x = Tensor((1, 60, 60, channels), "int8", 0.05, -9)
    output = Tensor((1, 58, 58, channels), "int8", 0.07, 4)
    bias = Tensor((channels,), "int32", 0.05 * weights.scale, 0, 0)
    bias.data = rng.integers(-4000, 4000, channels).astype(np.int32)
    options = schema.DepthwiseConv2DOptionsT()
    options.strideH = options.strideW = options.padding = options.depthMultiplier = 1
    options.dilationHFactor = options.dilationWFactor = 1
    resolver = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    found = replayed(tmp_path, "DEPTHWISE_CONV_2D", options, [x, weights, bias], output, resolver)
    assert found.differing["double_mixed"] == 0
    assert min(found.differing[each] for each in ("double", "double_up")) > 0


def test_a_form_is_tried_where_its_kernel_has_it() -> None:
    tiny, coarse = QuantParams.of(1e-5), QuantParams.of(40.0)
    wide, unsigned = QuantParams.of(0.1, 0, "int16"), QuantParams.of(0.1, 0, "uint8")
    assert "xnnpack" in forms_of("ADD", [PARAMS, PARAMS], PARAMS)
    assert "xnnpack" not in forms_of("ADD", [PARAMS, tiny], PARAMS)
    assert "xnnpack" not in forms_of("ADD", [PARAMS, coarse], PARAMS)
    assert "xnnpack" not in forms_of("ADD", [wide, wide], wide)
    assert "xnnpack" not in forms_of("QUANTIZE", [unsigned], PARAMS)
    assert "xnnpack" not in forms_of("QUANTIZE", [], PARAMS)  # of floats
    assert "xnnpack" not in forms_of("MUL", [PARAMS, PARAMS], PARAMS)


def test_the_larger_multiplier_of_a_sum_has_21_bits() -> None:
    x, zero = (Tensor((1,), "int8", scale).codes(np.array([c], np.int8)) for scale, c in
               ((1.0, 1), (0.5, 0)))  # fmt: skip
    # 1 / 2 is a half, and rounds up; one unit of the multiplier's last bit less does not.
    assert xnnpack.add(x, zero, QuantParams.of(2.0)).codes[0] == 1
    assert xnnpack.add(x, zero, QuantParams.of(float(np.float32(2.0 * (1 + 2**-19))))).codes[0] == 0
    assert xnnpack.add(x, zero, QuantParams.of(float(np.float32(2.0 * (1 + 2**-23))))).codes[0] == 1
