"""Every integer operator against LiteRT's reference kernels: not a code differs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.integer import activations, elementwise, pooling, products
from qdebug.arithmetic.integer.codes import Activation, Arithmetic, Computed
from tests.arithmetic.integer.one_operator import Tensor, computed, model

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

pytestmark = pytest.mark.slow

ACTIVATIONS: dict[Activation, int] = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
ROUNDS = 12
DOUBLE = Arithmetic("double")


class Draw:
    """Random tensors and options of one kind of activation."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.rng, self.dtype, self.ends = np.random.default_rng(seed), dtype, np.iinfo(dtype)

    def tensor(self, shape: tuple[int, ...], scale: float | None = None) -> Tensor:
        scale = float(10 ** self.rng.uniform(-3, -0.5)) if scale is None else scale
        zero_point = int(self.rng.integers(self.ends.min, self.ends.max + 1))
        return Tensor(
            shape, self.dtype, np.float32(scale), 0 if self.dtype == "int16" else zero_point
        )

    def values(self, tensor: Tensor) -> Any:
        size = tensor.shape
        return self.rng.integers(self.ends.min, self.ends.max + 1, size=size).astype(self.dtype)

    def weights(self, shape: tuple[int, ...], axis: int, *, per_channel: bool = True) -> Tensor:
        if self.dtype == "uint8":
            data = self.rng.integers(0, 256, size=shape).astype("uint8")
            return Tensor(
                shape, "uint8", np.float32(0.01), int(self.rng.integers(1, 255)), None, data
            )
        scale = np.float32(10 ** self.rng.uniform(-3, -1, size=shape[axis] if per_channel else ()))
        data = self.rng.integers(-127, 128, size=shape).astype("int8")
        return Tensor(shape, "int8", scale, 0, axis if per_channel else None, data)

    def bias(self, x: Tensor, weights: Tensor, count: int) -> Tensor:
        dtype = "int64" if self.dtype == "int16" else "int32"
        scale = np.float32(x.scale) * np.broadcast_to(weights.scale, (count,))
        data = self.rng.integers(-5000, 5000, size=count).astype(dtype)
        return Tensor((count,), dtype, scale, 0, 0, data)

    def around(self, x: Tensor, weights: Tensor, taps: int) -> float:
        """An output scale under which some codes saturate and most do not."""
        amplitude = float(x.scale) * float(np.median(weights.scale)) * 800 * np.sqrt(taps)
        return amplitude * float(10 ** self.rng.uniform(-0.5, 0.5))

    def activation(self) -> Activation:
        return list(ACTIVATIONS)[int(self.rng.integers(len(ACTIVATIONS)))]

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return int(self.rng.integers(least, most)), int(self.rng.integers(least, most))


def _compare(name: str, options: Any, inputs: list[Tensor], output: Tensor, values: list[Any],
             compute: Callable[[], Computed], version: int) -> None:  # fmt: skip
    expected = compute().codes
    output.shape = expected.shape
    found = computed(model(name, options, inputs, output, version=version), values)
    assert np.array_equal(found, expected)


dtypes = pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
seeds = pytest.mark.parametrize("seed", range(ROUNDS))


@dtypes
@seeds
def test_fully_connected_rounds_once(dtype: str, seed: int) -> None:
    draw = Draw(dtype, seed)
    x, weights = draw.tensor((40, 17)), draw.weights((5, 17), 0, per_channel=False)
    bias, values = draw.bias(x, weights, 1), draw.values(x)
    assert bias.data is not None
    assert weights.data is not None
    bias.shape, bias.data = (5,), np.repeat(bias.data, 5)
    output, act = draw.tensor((40, 5), draw.around(x, weights, 17)), draw.activation()
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[act]
    _compare(
        "FULLY_CONNECTED", options, [x, weights, bias], output, [values],
        lambda: products.fully_connected(
            x.codes(values), weights.codes(weights.data), bias.data, output.params, activation=act),
        4 if dtype != "uint8" else 1,
    )  # fmt: skip


@dtypes
@seeds
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"])
def test_convolutions_round_twice(dtype: str, seed: int, kind: str) -> None:
    draw = Draw(dtype, seed)
    padding: products.Padding = "SAME" if draw.rng.random() < 0.5 else "VALID"
    stride, kernel, act = draw.pair(1, 4), draw.pair(1, 4), draw.activation()
    dilation = draw.pair(1, 3) if stride == (1, 1) and kind != "TRANSPOSE_CONV" else (1, 1)
    x = draw.tensor((2, 9, 8, 4))
    groups = int(draw.rng.integers(1, 3))
    shape, axis = {
        "CONV_2D": ((6, *kernel, 4 // groups), 0),
        "DEPTHWISE_CONV_2D": ((1, *kernel, 8), 3),
        "TRANSPOSE_CONV": ((6, *kernel, 4), 0),
    }[kind]
    weights = draw.weights(shape, axis)
    bias, values = draw.bias(x, weights, shape[axis]), draw.values(x)
    assert weights.data is not None
    taps, w = kernel[0] * kernel[1], weights.codes(weights.data)
    output = draw.tensor((1,), draw.around(x, weights, taps))
    inputs: list[Tensor] = [x, weights, bias]
    names: dict[str, Any] = {"stride": stride, "padding": padding, "activation": act}
    if kind == "CONV_2D":
        options = schema.Conv2DOptionsT()
        options.dilationHFactor, options.dilationWFactor = dilation
        function, names["dilation"] = products.conv_2d, dilation
    elif kind == "DEPTHWISE_CONV_2D":
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 2
        options.dilationHFactor, options.dilationWFactor = dilation
        function, names["dilation"] = products.depthwise_conv_2d, dilation
    else:
        options = schema.TransposeConvOptionsT()
        lengths = [
            n * s if padding == "SAME" else (n - 1) * s + k
            for n, s, k in zip((9, 8), stride, kernel, strict=True)
        ]
        function, names["shape"] = products.transpose_conv, (2, *lengths, 6)
        inputs = [Tensor((4,), "int32", data=np.int32(names["shape"])), weights, x, bias]
    options.strideH, options.strideW = stride
    options.padding, options.fusedActivationFunction = padding == "VALID", ACTIVATIONS[act]
    _compare(
        kind, options, inputs, output, [values],
        lambda: function(x.codes(values), w, bias.data, output.params, arithmetic=DOUBLE, **names),
        5 if kind != "TRANSPOSE_CONV" else 4,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@seeds
def test_matrix_products_round_twice(dtype: str, seed: int) -> None:
    draw = Draw(dtype, seed)
    left, right = draw.tensor((2, 8, 17)), draw.tensor((2, 17, 9))
    a, b = draw.values(left), draw.values(right)
    output = draw.tensor((1,), float(left.scale * right.scale) * draw.ends.max * 12)
    _compare(
        "BATCH_MATMUL", schema.BatchMatMulOptionsT(), [left, right], output, [a, b],
        lambda: products.batch_matmul(
            left.codes(a), right.codes(b), output.params, arithmetic=DOUBLE),
        3,
    )  # fmt: skip


@dtypes
@seeds
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_sums_and_products_of_two(dtype: str, seed: int, kind: str) -> None:
    draw = Draw(dtype, seed)
    left = draw.tensor((2, 5, 7))
    right = draw.tensor((1, 5, 1) if draw.rng.random() < 0.5 else (2, 5, 7))
    scale = left.scale * right.scale * 60 if kind == "Mul" else 2 * max(left.scale, right.scale)
    output, act = draw.tensor((1,), float(scale)), draw.activation()
    a, b = draw.values(left), draw.values(right)
    options = getattr(schema, f"{kind}OptionsT")()
    options.fusedActivationFunction = ACTIVATIONS[act]
    if kind != "Mul":
        options.potScaleInt16 = False
    function = {
        "Add": elementwise.add,
        "Sub": elementwise.subtract,
        "Mul": elementwise.multiply_codes,
    }[kind]
    _compare(
        kind.upper(), options, [left, right], output, [a, b],
        lambda: function(
            left.codes(a), right.codes(b), output.params, activation=act, arithmetic=DOUBLE),
        3 if kind == "Mul" else 4,
    )  # fmt: skip


@dtypes
@seeds
@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pools(dtype: str, seed: int, kind: str) -> None:
    draw = Draw(dtype, seed)
    x, size, stride, act = (
        draw.tensor((2, 9, 8, 3)),
        draw.pair(1, 5),
        draw.pair(1, 4),
        draw.activation(),
    )
    padding: products.Padding = "SAME" if draw.rng.random() < 0.5 else "VALID"
    options = schema.Pool2DOptionsT()
    options.strideH, options.strideW = stride
    options.filterHeight, options.filterWidth = size
    options.padding, options.fusedActivationFunction = padding == "VALID", ACTIVATIONS[act]
    output, values = Tensor(x.shape, dtype, x.scale, x.zero_point), draw.values(x)
    function = pooling.average_pool_2d if kind == "AVERAGE_POOL_2D" else pooling.max_pool_2d
    _compare(
        kind, options, [x], output, [values],
        lambda: function(x.codes(values), output.params, size=size, stride=stride,
                         padding=padding, activation=act),
        3,
    )  # fmt: skip


@dtypes
@seeds
def test_means(dtype: str, seed: int) -> None:
    draw = Draw(dtype, seed)
    axes = [[1, 2], [1], [3], [0, 1, 2, 3], [2, 3]][int(draw.rng.integers(5))]
    keep, x = bool(draw.rng.integers(2)), draw.tensor((2, 9, 8, 3))
    output = draw.tensor((1,), float(x.scale) * float(10 ** draw.rng.uniform(-0.6, 0.3)))
    if seed % 3 == 0:
        output.scale, output.zero_point = x.scale, x.zero_point
    values, options = draw.values(x), schema.ReducerOptionsT()
    options.keepDims = keep
    _compare(
        "MEAN", options, [x, Tensor((len(axes),), "int32", data=np.int32(axes))], output, [values],
        lambda: pooling.mean(
            x.codes(values), output.params, axes=axes, keep_dims=keep, arithmetic=DOUBLE),
        3,
    )  # fmt: skip


@seeds
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in ("QUANTIZE", "RELU", "RELU6", "LEAKY_RELU", "RELU_N1_TO_1", "HARD_SWISH")
        for dtype in ("int8", "uint8", "int16")
        if dtype != "int16" or kind not in ("RELU_N1_TO_1", "HARD_SWISH")  # which do not exist
    ],
)
def test_functions_of_one_code(dtype: str, seed: int, kind: str) -> None:
    draw = Draw(dtype, seed)
    x = draw.tensor((3, 300))
    output = draw.tensor((1,), float(x.scale) * float(10 ** draw.rng.uniform(-0.6, 0.6)))
    values, options, codes = draw.values(x), None, None
    codes, y = x.codes(values), output.params
    alpha = float(np.float32(draw.rng.uniform(0, 1.5)))
    if kind == "LEAKY_RELU":
        options = schema.LeakyReluOptionsT()
        options.alpha = alpha
    compute: dict[str, Callable[[], Computed]] = {
        "QUANTIZE": lambda: elementwise.requantize(codes, y, arithmetic=DOUBLE),
        "LEAKY_RELU": lambda: elementwise.leaky_relu(codes, y, alpha=alpha, arithmetic=DOUBLE),
        "HARD_SWISH": lambda: elementwise.hard_swish(codes, y),
    }
    relu = lambda: elementwise.relu(codes, y, activation=kind, arithmetic=DOUBLE)  # type: ignore[arg-type]  # noqa: E731
    _compare(
        kind, options, [x], output, [values], compute.get(kind, relu),
        {"HARD_SWISH": 1, "RELU_N1_TO_1": 1}.get(kind, 2),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@seeds
@pytest.mark.parametrize("kind", ["TANH", "SOFTMAX", "LOGISTIC"])
def test_bounded_functions(dtype: str, seed: int, kind: str) -> None:
    draw = Draw(dtype, seed)
    x = draw.tensor((3, 300), float(10 ** draw.rng.uniform(-2.5, -0.3)))
    least = int(draw.ends.min)
    output = Tensor((1,), dtype, 1 / 256, least)
    if kind == "TANH":
        output = Tensor((1,), dtype, 1 / 128, least + 128)
    values, options, beta = draw.values(x), None, 2.0 ** int(draw.rng.integers(-1, 2))
    if kind == "SOFTMAX":
        options = schema.SoftmaxOptionsT()
        options.beta = beta
    codes, y = x.codes(values), output.params
    compute: dict[str, Callable[[], Computed]] = {
        "TANH": lambda: activations.tanh(codes, y),
        "LOGISTIC": lambda: activations.logistic(codes, y),
        "SOFTMAX": lambda: activations.softmax(codes, y, beta=beta),
    }
    _compare(kind, options, [x], output, [values], compute[kind], 2 if dtype == "int8" else 1)
