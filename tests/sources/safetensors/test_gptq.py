"""GPTQ: packed along the inputs, stored transposed, zero points minus one in version 1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sources.safetensors.models import decoded, opened, packed

RNG = np.random.default_rng(7)
INPUTS, OUTPUTS, GROUPS = 64, 32, 4


def layer(bits: int, version: int, g_idx: Any = None) -> tuple[dict[str, Any], Any, Any]:
    """Arrays of a module, what they stand for, and the steps of its elements."""
    codes = RNG.integers(0, 1 << bits, (OUTPUTS, INPUTS))
    zeros = RNG.integers(0, 1 << bits, (OUTPUTS, GROUPS))
    zeros[0, 0] = 0  # stored as the largest code in version 1
    scales = RNG.uniform(0.01, 0.1, (OUTPUTS, GROUPS)).astype(np.float16)
    group = np.arange(INPUTS) // (INPUTS // GROUPS) if g_idx is None else g_idx
    values, steps = np.empty((OUTPUTS, INPUTS)), np.empty((OUTPUTS, INPUTS))
    for o in range(OUTPUTS):
        for i in range(INPUTS):
            steps[o, i] = float(scales[o, group[i]])
            values[o, i] = steps[o, i] * (codes[o, i] - zeros[o, group[i]])
    stored = (zeros - (version == 1)) % (1 << bits)
    arrays = {
        "m.qweight": packed(codes, bits).T,
        "m.qzeros": packed(stored.T, bits),
        "m.scales": scales.T,
    }
    if g_idx is not None:
        arrays["m.g_idx"] = np.asarray(g_idx, np.int32)
    return arrays, values, steps


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("version", [1, 2])
def test_weights_are_what_the_format_says(tmp_path: Path, bits: int, version: int) -> None:
    arrays, values, steps = layer(bits, version)
    form = "gptq" if version == 1 else "gptq_v2"
    config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": form}
    weights = opened(tmp_path, arrays, config)
    assert list(weights.tensors) == ["m.weight"]
    assert weights.skipped == []
    tensor = weights.tensors["m.weight"]
    assert tensor.encoding == f"GPTQ v{version} int{bits}, groups of 16"
    assert (tensor.shape, tensor.divisible, tensor.floats) == ((OUTPUTS, INPUTS), False, False)
    found = decoded(weights, "m.weight")
    np.testing.assert_allclose(found.values, values, rtol=1e-6, atol=1e-6)
    assert found.below is not None
    np.testing.assert_allclose(found.below, steps / 2, rtol=1e-6)


def test_groups_may_be_in_any_order(tmp_path: Path) -> None:
    arrays, values, _ = layer(4, 1, g_idx=RNG.permutation(np.repeat(range(GROUPS), 16)))
    weights = opened(tmp_path, arrays, {"quant_method": "gptq", "bits": 4})
    found = decoded(weights, "m.weight").values
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "config", "reason"),
    [
        ({"m.qzeros": None}, {}, "field 'qzeros': found no such array, expected I32"),
        ({}, {"checkpoint_format": "marlin"}, "found marlin, expected gptq or gptq_v2"),
        ({"m.g_idx": np.zeros(3, np.int32)}, {}, "field 'g_idx': found shape (3,), expected (64,)"),
        ({"m.scales": np.ones((4, 31), np.float16)}, {}, "field 'qweight': found shape (8, 32)"),
    ],
)
def test_contradictions_name_the_field(
    tmp_path: Path, changed: dict[str, Any], config: dict[str, Any], reason: str
) -> None:
    arrays = layer(4, 1)[0] | changed
    arrays = {name: array for name, array in arrays.items() if array is not None}
    arrays["other"] = np.ones((2, 2), np.float32)
    weights = opened(tmp_path, arrays, {"quant_method": "gptq"} | config)
    assert list(weights.tensors) == ["other"]
    ((name, found),) = weights.skipped
    assert name == "m.weight"
    assert reason in found
