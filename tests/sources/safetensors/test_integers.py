"""compressed-tensors' integers: packed into words, or int8."""

from pathlib import Path

import numpy as np
import pytest

from tests.sources.safetensors.models import decoded, opened, packed

RNG = np.random.default_rng(8)
ROWS = 16


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("inputs", [64, 100])
def test_packed_weights(
    tmp_path: Path, bits: int, groups: int, asymmetric: bool, inputs: int
) -> None:
    low = -1 << (bits - 1)
    codes = RNG.integers(low, -low, (ROWS, inputs))
    zeros = RNG.integers(low, -low, (ROWS, groups)) * asymmetric
    scale = RNG.uniform(0.01, 0.1, (ROWS, groups)).astype(np.float32)
    arrays = {
        "m.weight_packed": packed(codes - low, bits),
        "m.weight_scale": scale,
        "m.weight_shape": np.array([ROWS, inputs]),
        "m.bias": np.ones(ROWS, np.float32),
    }
    if asymmetric:
        arrays["m.weight_zero_point"] = packed((zeros - low).T, bits).T
    weights = opened(tmp_path, arrays, {"quant_method": "compressed-tensors"})
    assert weights.skipped == []
    per = f"groups of {inputs // groups}" if groups > 1 else "per channel"
    assert weights.tensors["m.weight"].encoding == f"compressed-tensors int{bits}, {per}"
    assert weights.tensors["m.bias"].floats
    group = np.arange(inputs) // (inputs // groups)
    values = scale.astype(np.float64)[:, group] * (codes - zeros[:, group])
    found = decoded(weights, "m.weight")
    np.testing.assert_allclose(found.values, values, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.ends, (codes == -1 - low) * 1 - (codes == low))


def test_groups_may_be_in_any_order_or_unset(tmp_path: Path) -> None:
    codes = RNG.integers(-8, 8, (ROWS, 64))
    scale = RNG.uniform(0.01, 0.1, (ROWS, 4)).astype(np.float32)
    order = RNG.permutation(np.repeat(range(4), 16))
    for g_idx in (order, np.full(64, -1)):
        arrays = {
            "m.weight_packed": packed(codes + 8, 4),
            "m.weight_scale": scale,
            "m.weight_shape": np.array([ROWS, 64]),
            "m.weight_g_idx": g_idx.astype(np.int32),
        }
        group = g_idx if g_idx.max() >= 0 else np.arange(64) // 16
        found = decoded(opened(tmp_path, arrays), "m.weight").values
        np.testing.assert_allclose(found, scale[:, group] * codes, rtol=1e-6)


def test_int8_with_zero_points_per_channel(tmp_path: Path) -> None:
    codes = RNG.integers(-128, 128, (ROWS, 20)).astype(np.int8)
    scale = RNG.uniform(0.01, 0.1, (ROWS, 1)).astype(np.float32)
    zeros = RNG.integers(-128, 128, (ROWS, 1)).astype(np.int8)
    arrays = {"weight": codes, "weight_scale": scale, "weight_zero_point": zeros}
    weights = opened(tmp_path, arrays)
    assert weights.tensors["weight"].encoding == "compressed-tensors int8, per channel"
    expected = scale.astype(np.float64) * (codes.astype(int) - zeros)
    np.testing.assert_allclose(decoded(weights, "weight").values, expected, rtol=1e-6, atol=1e-5)
