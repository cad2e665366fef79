"""Integer operators against exact rational arithmetic, one output element at a time."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer import activations, elementwise, pooling, products
from qdebug.arithmetic.integer.codes import Activation, Arithmetic, Codes, limits

seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def _codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float) -> Codes:
    ends = np.iinfo(dtype)
    zero_point = 0 if dtype == "int16" else int(rng.integers(ends.min, ends.max + 1))
    values = rng.integers(ends.min, ends.max + 1, size=shape).astype(dtype)
    return Codes(values, QuantParams.of(scale, zero_point, dtype))


def _nearest(sums: np.ndarray, real: np.ndarray | float, output: QuantParams) -> np.ndarray:
    """The real-valued result in steps, clamped: what every rounding stays within a step of."""
    steps = sums * real + int(output.zero_point[0])
    return np.clip(steps, output.qmin, output.qmax)


def _close(codes: np.ndarray, steps: np.ndarray, within: float = 0.501) -> None:
    assert np.abs(codes.astype(np.float64) - steps).max() <= within


@given(
    seeds, st.sampled_from(["int8", "uint8", "int16"]), pairs, pairs, pairs,
    st.sampled_from(["SAME", "VALID"]), st.sampled_from([1, 2]),
)  # fmt: skip
def test_a_convolution_is_the_sum_over_its_window(
    seed: int, dtype: str, kernel: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], padding: products.Padding, groups: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    x = _codes(rng, (2, 7, 8, 4), dtype, 0.02)
    scales = rng.uniform(0.01, 0.03, 6)
    weights = Codes(
        rng.integers(-127, 128, size=(6, *kernel, 4 // groups)).astype(np.int8),
        QuantParams.of(scales, np.zeros(6, int), axis=0),
    )
    bias = rng.integers(-500, 500, size=6).astype(np.int64 if dtype == "int16" else np.int32)
    output = QuantParams.of(5.0, 3 if dtype != "int16" else 0, dtype)
    found = products.conv_2d(
        x, weights, bias, output, stride=stride, dilation=dilation, padding=padding
    ).codes
    batch, height, width, channels = found.shape
    at = tuple(int(rng.integers(n)) for n in found.shape)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    before = [0, 0]
    if padding == "SAME":
        assert (height, width) == (-(-7 // stride[0]), -(-8 // stride[1]))
        before = [
            max((out - 1) * s + r - n, 0) // 2
            for out, s, r, n in zip((height, width), stride, reach, (7, 8), strict=True)
        ]
    total = int(bias[at[3]])
    first = at[3] // (6 // groups) * (4 // groups)  # the first input channel of the group
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row = at[1] * stride[0] - before[0] + i * dilation[0]
            column = at[2] * stride[1] - before[1] + j * dilation[1]
            if 0 <= row < 7 and 0 <= column < 8:
                for c in range(4 // groups):
                    code = int(x.values[at[0], row, column, first + c]) - x.zero_point
                    total += code * int(weights.values[at[3], i, j, c])
    real = 0.02 * float(scales[at[3]]) / 5.0
    _close(found[at], _nearest(np.array(total), real, output), 0.51)
    assert (batch, channels) == (2, 6)


@given(seeds, pairs, pairs, st.sampled_from(["SAME", "VALID"]))
def test_depthwise_is_a_convolution_of_as_many_groups(
    seed: int, kernel: tuple[int, int], stride: tuple[int, int], padding: products.Padding
) -> None:
    rng = np.random.default_rng(seed)
    x, output = _codes(rng, (1, 6, 5, 3), "int8", 0.1), QuantParams.of(2.0, -5)
    taps = rng.integers(-127, 128, size=(1, *kernel, 6)).astype(np.int8)
    options = {"stride": stride, "padding": padding}
    one = QuantParams.of(0.1)
    depthwise = products.depthwise_conv_2d(x, Codes(taps, one), None, output, **options)  # type: ignore[arg-type]
    grouped = Codes(np.moveaxis(taps, -1, 0).reshape(6, *kernel, 1), one)
    conv = products.conv_2d(x, grouped, None, output, **options)  # type: ignore[arg-type]
    assert np.array_equal(depthwise.codes, conv.codes)


@given(seeds, pairs, pairs, st.sampled_from(["SAME", "VALID"]))
def test_a_transposed_convolution_is_the_adjoint(
    seed: int, kernel: tuple[int, int], stride: tuple[int, int], padding: products.Padding
) -> None:
    """<conv(u), v> = <u, transpose_conv(v)> for all u and v, without any rounding."""
    rng = np.random.default_rng(seed)
    one = QuantParams.of(1.0, 0, "int16")
    w = rng.integers(-3, 4, size=(2, *kernel, 1)).astype(np.int8)
    u = rng.integers(-5, 6, size=(1, 6, 7, 1)).astype(np.int16)
    weights = Codes(w, QuantParams.of(1.0))
    forward = products.conv_2d(
        Codes(u, one), weights, None, one, stride=stride, padding=padding
    ).codes.astype(int)
    v = rng.integers(-5, 6, size=forward.shape).astype(np.int16)
    back = products.transpose_conv(
        Codes(v, one),
        Codes(w.transpose(3, 1, 2, 0), QuantParams.of(1.0)),
        None, one, shape=u.shape, stride=stride, padding=padding,
    ).codes.astype(int)  # fmt: skip
    assert (forward * v).sum() == (u * back).sum()


@pytest.mark.parametrize(
    ("activation", "ends"),
    [
        ("NONE", (-128, 127)),
        ("RELU", (-28, 127)),
        ("RELU6", (-28, 32)),
        ("RELU_N1_TO_1", (-38, -18)),
    ],
)
def test_fused_activations_clamp_codes(activation: Activation, ends: tuple[int, int]) -> None:
    output = QuantParams.of(0.1, -28)
    assert limits(output, activation) == ends
    x = Codes(np.array([[-128], [127]], np.int8), QuantParams.of(1.0))
    weights = Codes(np.array([[100]], np.int8), QuantParams.of(1.0))
    found = products.fully_connected(x, weights, None, output, activation=activation)
    assert tuple(found.codes.ravel().tolist()) == ends


def test_overflows_of_the_accumulator_are_counted_and_wrap() -> None:
    depth = 150_000
    x = Codes(np.full((2, depth), -128, np.int8), QuantParams.of(1.0, 127))
    x.values[1] = 127  # all zeros
    weights = Codes(np.full((1, depth), 127, np.int8), QuantParams.of(1.0))
    exact = -255 * 127 * depth
    output = QuantParams.of(2.0**26, 0)
    found = products.fully_connected(x, weights, None, output)
    assert found.overflows == 1
    kept = (exact + 2**31) % 2**32 - 2**31
    assert found.codes.ravel().tolist() == [round(kept / 2**26), 0]
    narrow = products.fully_connected(
        x, weights, None, QuantParams.of(512.0), arithmetic=Arithmetic(accumulator_bits=16)
    )
    assert narrow.codes.ravel().tolist() == [-64, 0]


@given(seeds, st.sampled_from(["int8", "uint8", "int16"]), st.sampled_from(["single", "double"]))
def test_sums_products_and_requantizing_stay_half_a_step_from_the_real_result(
    seed: int, dtype: str, rounding: str
) -> None:
    rng = np.random.default_rng(seed)
    arithmetic = Arithmetic(rounding)  # type: ignore[arg-type]
    a, b = _codes(rng, (4, 6), dtype, 0.03), _codes(rng, (1, 6), dtype, 0.007)
    output = QuantParams.of(0.04, 0 if dtype == "int16" else 20, dtype)
    left, right = a.centred * 0.03, b.centred * 0.007
    zero = int(output.zero_point[0])
    for found, real in (
        (elementwise.add(a, b, output, arithmetic=arithmetic), left + right),
        (elementwise.subtract(a, b, output, arithmetic=arithmetic), left - right),
        (elementwise.multiply_codes(a, b, output, arithmetic=arithmetic), left * right),
        (elementwise.requantize(a, output, arithmetic=arithmetic), left),
        (elementwise.relu(a, output, arithmetic=arithmetic), np.maximum(left, 0)),
        (elementwise.leaky_relu(a, output, alpha=0.3, arithmetic=arithmetic),
         np.where(left > 0, left, 0.3 * left)),
    ):  # fmt: skip
        steps = np.clip(real / 0.04 + zero, output.qmin, output.qmax)
        # The second rounding of two adds up to a quarter of a step, and more to 16-bit sums.
        within = 1.01 if dtype == "int16" else {"single": 0.52, "double": 0.77}[rounding]
        _close(found.codes, steps, within)


@given(seeds, pairs, pairs, st.sampled_from(["SAME", "VALID"]))
def test_pools_are_those_of_their_windows(
    seed: int, size: tuple[int, int], stride: tuple[int, int], padding: products.Padding
) -> None:
    rng = np.random.default_rng(seed)
    x = _codes(rng, (1, 5, 6, 1), "int8", 0.1)
    same = x.params
    mean = pooling.average_pool_2d(x, same, size=size, stride=stride, padding=padding).codes
    most = pooling.max_pool_2d(x, same, size=size, stride=stride, padding=padding).codes
    for i, j in np.ndindex(mean.shape[1:3]):
        before = [
            max((out - 1) * s + k - n, 0) // 2 if padding == "SAME" else 0
            for out, s, k, n in zip(mean.shape[1:3], stride, size, (5, 6), strict=True)
        ]
        top, left = i * stride[0] - before[0], j * stride[1] - before[1]
        window = x.values[
            0, max(top, 0) : max(top + size[0], 0), max(left, 0) : max(left + size[1], 0), 0
        ].astype(int)
        exact = Fraction(int(window.sum()), window.size)
        rounded = int(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)
        assert mean[0, i, j, 0] == rounded
        assert most[0, i, j, 0] == window.max()


@given(seeds, st.sampled_from([(1,), (0, 2), (-1,), (0, 1, 2)]), st.booleans())
def test_means_stay_half_a_step_from_the_real_mean(
    seed: int, axes: tuple[int, ...], keep: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, output = _codes(rng, (3, 4, 5), "int8", 0.1), QuantParams.of(0.07, 4)
    found = pooling.mean(x, output, axes=axes, keep_dims=keep).codes
    real = (x.centred * 0.1).mean(axis=axes, keepdims=keep)
    assert found.shape == np.shape(real)
    _close(found, np.clip(real / 0.07 + 4, -128, 127), 0.51)


@given(seeds, st.floats(0.002, 0.2))
def test_bounded_functions_stay_near_their_real_values(seed: int, scale: float) -> None:
    x = _codes(np.random.default_rng(seed), (2, 40), "int8", scale)
    real = x.centred * scale
    exps = np.exp(real - real.max(axis=-1, keepdims=True))
    softmax = exps / exps.sum(axis=-1, keepdims=True)
    for found, steps in (
        (activations.logistic(x, QuantParams.of(1 / 256, -128)), 256 / (1 + np.exp(-real)) - 128),
        (activations.tanh(x, QuantParams.of(1 / 128, 0)), 128 * np.tanh(real)),
        (activations.softmax(x, QuantParams.of(1 / 256, -128)), 256 * softmax - 128),
    ):
        _close(found.codes, np.clip(steps, -128, 127), 0.6)


@given(seeds, st.floats(0.005, 0.1))
def test_hard_swish_stays_near_its_real_value(seed: int, scale: float) -> None:
    x = _codes(np.random.default_rng(seed), (40,), "int8", scale)
    output = QuantParams.of(scale, -20)
    real = x.centred * scale
    steps = real * np.clip(real + 3, 0, 6) / 6 / scale - 20
    _close(elementwise.hard_swish(x, output).codes, np.clip(steps, -128, 127), 1.1)


def test_the_larger_and_the_smaller_code() -> None:
    a, b = (Codes(np.array(v, np.int8), QuantParams.of(1.0)) for v in ([1, -9], [0, 7]))
    output = QuantParams.of(1.0)
    assert elementwise.extreme(a, b, output, which="MAXIMUM").codes.tolist() == [1, 7]
    assert elementwise.extreme(a, b, output, which="MINIMUM").codes.tolist() == [0, -9]
