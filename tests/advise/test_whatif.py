"""What if: every alternative's figures are those of really quantizing the whole array with it."""

import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.advise.remedy import recommend
from qdebug.advise.whatif import WhatIf, explore
from qdebug.arithmetic.affine import QuantParams
from qdebug.measure import slabs, summary
from qdebug.measure.layer import Block, Layer, Visitor
from qdebug.measure.summary import Summarizer
from qdebug.run.session import Session
from tests import layers, oracle
from tests.advise.what_ifs import in_memory, what_ifs

Write = Callable[..., Path]
Fields = dict[str, Any]

# --- figures ---


SHOWN = ("num_elements", "mse", "rmse", "rmse_scale", "sqnr_db", "clipped", "max_abs_error_scale")


def disagreements(found: WhatIf, x: np.ndarray) -> list[Any]:
    """Figures that differ from those of quantizing the whole array at once."""
    wrong = []
    for each in (found.recorded, *found.alternatives):
        p = each.params
        axis = None if p.axis is None else p.axis
        s, z = p.along(x.ndim)
        codes = oracle.ideal_codes(
            np.where(np.isfinite(x), x, 0).astype(np.float64), s, z, p.qmin, p.qmax
        ).astype(p.dtype)
        expected = oracle.figures(x, codes, p.scale, p.zero_point, axis, p.bits, p.narrow_range)
        wrong += [
            (each.name, *entry)
            for entry in oracle.disagreements(asdict(each.metrics), expected, float(p.scale.max()))
            if entry[0] in SHOWN
        ]
    return wrong


@pytest.mark.parametrize(
    "block", [1 << 18, *(pytest.param(block, marks=pytest.mark.slow) for block in (7, 64))]
)
def test_figures_are_those_of_quantizing_the_whole_array(
    block: int, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(block)
    pairs = {f"layer{i}": layers.random_layer(rng, elements=7) for i in range(30)}
    for fields in pairs.values():
        if rng.random() < 0.7:
            fields["kind"] = str(rng.choice(["activation", "weight", "bias"]))
    monkeypatch.setattr(slabs, "BLOCK_ELEMENTS", block)
    found = what_ifs(write_pairs(pairs))
    assert len(found) > 25
    for name, each in found.items():
        assert not disagreements(each, pairs[name]["float"]), (name, pairs[name])


@pytest.mark.slow
def test_a_histogram_chooses_the_range_only_and_all_floats_judge_it(
    write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "WHOLE_ELEMENTS", 0)
    rng = np.random.default_rng(5)
    pairs = {f"layer{i}": layers.random_layer(rng, elements=7) for i in range(30)}
    found = what_ifs(write_pairs(pairs))
    assert len(found) > 25
    for name, each in found.items():
        assert not disagreements(each, pairs[name]["float"]), (name, pairs[name])


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_ranges_are_what_their_names_say(dtype: str, axis: int | None) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(1, 2, (50, 6, 40)) * np.array([1, 2, 3, 4, 5, 6.0])[:, None]
    bits = {"int16": 16}.get(dtype, 8)
    qmin, qmax = oracle.code_range(dtype)
    scale = 0.1 if axis is None else np.full(6, 0.1)
    found = in_memory(x, QuantParams.of(scale, 3, dtype, axis=axis), kind="activation")
    named = {each.name: each.params for each in found.alternatives}
    rows = x.transpose(1, 0, 2).reshape(6, -1) if axis else x.reshape(1, -1)

    def affine(low: np.ndarray, high: np.ndarray, qmin: int = qmin, qmax: int = qmax) -> Any:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        s = (high - low) / (qmax - qmin)
        return s, oracle.round_half_away(-low / s) + qmin

    def check(name: str, expected: tuple[np.ndarray, np.ndarray]) -> None:
        assert named[name].scale == pytest.approx(expected[0], rel=1e-12), name
        assert named[name].zero_point.tolist() == expected[1].tolist(), name

    check("affine", affine(rows.min(1), rows.max(1)))
    middle = np.full(len(rows), (qmin + qmax + 1) // 2)
    check("symmetric", (np.abs(rows).max(1) / (qmax - middle), middle))
    for p in (99.9, 99.99):
        check(f"percentile_{p}", affine(*np.percentile(rows, [50 - p / 2, 50 + p / 2], axis=1)))
    if axis is None:
        last = x.reshape(-1, 40)
        check("per_channel", affine(last.min(0), last.max(0)))
        assert named["per_channel"].axis == 2
    else:
        check("per_tensor", affine(x.min(keepdims=True).ravel(), x.max(keepdims=True).ravel()))
    low4 = 0 if dtype == "uint8" else -8
    check("int4", affine(rows.min(1), rows.max(1), low4, low4 + 15))
    if bits == 8:
        check("int16", (np.abs(rows).max(1) / 32767, np.zeros(len(rows))))
        assert "int8" not in named
    else:
        check("int8", affine(rows.min(1), rows.max(1), -128, 127))
        assert "int16" not in named


def test_weights_get_symmetric_narrow_codes_for_each_output_channel() -> None:
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 16))
    for op, axis in [("CONV_2D", 0), ("DEPTHWISE_CONV_2D", 3), ("MatMul", 3), ("ConvTranspose", 1)]:
        found = in_memory(w, QuantParams.of(0.1, 5), kind="weight", op=op)
        (params,) = [each.params for each in found.alternatives if each.name == "per_channel"]
        assert (params.axis, params.narrow_range, set(params.zero_point)) == (axis, True, {0})
        others = tuple(i for i in range(4) if i != axis)
        assert params.scale == pytest.approx(np.abs(w).max(others) / 127, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "known", "axis"),
    [
        ((8, 5, 5, 3), {"kind": "activation", "op": "CONV_2D"}, 3),
        ((8, 5, 5, 3), {"kind": "activation", "op": "Conv"}, 1),
        ((8, 5), {"kind": "activation", "op": "Gemm"}, 1),
        ((8, 5), {}, 1),
        ((8, 5), {"kind": "weight"}, 0),
        ((40,), {"kind": "weight"}, None),
        ((), {}, None),
        ((1, 40), {}, None),
        ((40, 1), {}, None),
    ],
)
def test_channels_are_looked_for_where_a_runtime_has_them(
    shape: tuple[int, ...], known: Fields, axis: int | None
) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    found = in_memory(x, QuantParams.of(1.0), **known)
    axes = [each.params.axis for each in found.alternatives if each.name == "per_channel"]
    assert axes == ([] if axis is None else [axis])


def test_the_recorded_codes_stand_beside_the_recorded_quantizer() -> None:
    x = np.random.default_rng(1).normal(size=5000)
    params = QuantParams.of(0.05)
    shifted = np.clip(np.rint(x / 0.05) + 3, -128, 127).astype(np.int8)
    found = in_memory(x, params, shifted)
    assert found.total.rmse_scale == pytest.approx(3, abs=0.05)
    assert found.recorded.metrics.rmse_scale == pytest.approx(0.289, abs=0.01)
    assert found.recorded.change_db == 0
    for each in found.alternatives:
        change = each.metrics.sqnr_db - found.recorded.metrics.sqnr_db
        assert each.change_db == pytest.approx(change, abs=1e-12)


# --- how the data comes changes nothing ---


@pytest.mark.slow
def test_files_orders_and_block_sizes_change_nothing(
    write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "WHOLE_ELEMENTS", 1000)
    x = np.random.default_rng(2).normal(size=(64, 3, 7, 12)).astype(np.float32)
    q = np.clip(np.rint(x / np.float32(0.02)), -128, 127).astype(np.int8)
    known = {"scale": np.float32(0.02), "zero_point": 1}
    whole = write_pairs({"a": {"float": x, "quantized": q, **known}}, "whole.npz")
    fortran = {"float": np.asfortranarray(x), "quantized": np.asfortranarray(q), **known}
    turned = write_pairs({"a": fortran}, "turned.npz")
    halves = [
        write_pairs({"a": {"float": x[part], "quantized": q[part], **known}}, f"{i}.npz")
        for i, part in enumerate((slice(0, 20), slice(20, 64)))
    ]
    (expected,) = what_ifs(whole).values()
    assert {each.name for each in expected.alternatives} >= {"per_channel", "mse"}
    for size in (1 << 18, 1000):
        monkeypatch.setattr(slabs, "BLOCK_ELEMENTS", size)
        for paths in ([whole], [turned], halves, halves[::-1]):
            (found,) = what_ifs(*paths).values()
            for ours, theirs in zip(found.alternatives, expected.alternatives, strict=True):
                assert ours.params.scale == pytest.approx(theirs.params.scale, rel=1e-12)
                assert ours.metrics.rmse == pytest.approx(theirs.metrics.rmse, rel=1e-9)


def test_pieces_of_different_shapes_have_no_channels(write_pairs: Write) -> None:
    def piece(shape: tuple[int, ...]) -> dict[str, Fields]:
        x = np.random.default_rng(0).normal(size=shape)
        return {"a": {"float": x, "quantized": np.rint(x / 0.1).astype(np.int8), "scale": 0.1}}

    for i, other in enumerate([(8, 5), (40,), (2, 3, 4, 5)]):
        paths = write_pairs(piece((8, 4)), f"{i}a.npz"), write_pairs(piece(other), f"{i}b.npz")
        (found,) = what_ifs(*paths).values()
        assert "per_channel" not in [each.name for each in found.alternatives]
        assert found.recorded.metrics.num_elements == 32 + int(np.prod(other))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"float": np.zeros(1000)},
        {"float": np.full(1000, 7.0)},
        {"float": np.full(1000, np.nan)},
        {"float": np.array([np.nan, np.inf, -np.inf, 1.0] * 250)},
        {"float": np.full(1000, 1e300)},
        {"float": np.linspace(-1e-310, 1e-310, 1000)},
        {"float": np.zeros((0, 3)), "quantized": np.zeros((0, 3), np.int8)},
        {"float": np.float32(3), "quantized": np.int8(4)},
        {"quantized": np.zeros(1000, np.int32), "scale": 1e-9},
        {"scale": np.linspace(0.01, 0.1, 1000), "axis": 0},
        {"quantized": np.zeros(1000, np.int8), "bits": 2},
    ],
)
@pytest.mark.parametrize("most", [0, summary.WHOLE_ELEMENTS])
def test_strange_layers_have_alternatives_too(
    change: Fields, most: int, healthy: Fields, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "WHOLE_ELEMENTS", most)
    (found,) = what_ifs(write_pairs({"layer": healthy | change})).values()
    assert found.alternatives
    for each in found.alternatives:
        assert np.isfinite(each.params.scale).all()
    assert recommend(found).text


# --- ranges from a histogram ---


@pytest.mark.slow
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["normal", "t", "relu", "constant", "tiny"]),
    symmetric=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_no_range_in_the_table_is_better_than_the_least_error_one(
    seed: int, kind: str, symmetric: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = {
        "normal": rng.normal(size=3000),
        "t": rng.standard_t(2, 3000),
        "relu": np.maximum(rng.normal(size=3000), 0),
        "constant": np.full(3000, rng.normal()),
        "tiny": rng.normal(size=3000) * 1e-12,
    }[kind]
    found = in_memory(x, QuantParams.of(abs(x).max() / 100, 0 if symmetric else 9))
    assert found.symmetric is symmetric
    (least,) = [each for each in found.alternatives if each.name == "mse"]
    for each in found.alternatives:
        if each.change == "range":
            assert least.metrics.mse <= each.metrics.mse
        assert each.change_db is None or np.isfinite(each.change_db)


@pytest.mark.slow
def test_many_channels_have_coarser_bins_and_then_none() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4096, 3))
    taken = Summarizer(np.full(4096, 0.1))
    for _ in range(8):  # too many to be kept whole
        taken.add(x)
    found = taken.summary()
    assert found.mantissa_bits == 2
    assert found.rows.size < 1 << 21
    with pytest.raises(ValueError, match="channels"):
        Summarizer(np.ones(summary.MOST_CHANNELS + 1))
    scales = np.full(summary.MOST_CHANNELS + 1, 0.1)
    x = np.random.default_rng(0).normal(size=(scales.size, 2))
    predicted = in_memory(x, QuantParams.of(scales, 0, axis=0))
    assert not {"mse", "percentile_99.9"} & {each.name for each in predicted.alternatives}


# --- bounds ---


BLOCK = 1 << 16


class Large:
    """A source of one layer of `count` equal blocks, 256 channels wide."""

    files = problems = notes = skipped = ()

    def __init__(self, count: int, axis: int | None) -> None:
        scale = 0.05 if axis is None else np.full(256, 0.05)
        params = QuantParams.of(scale, axis=axis)
        self.layers = [Layer("layer", params, (count * BLOCK // 256, 256), kind="activation")]
        self.floats = np.random.default_rng(0).standard_normal((BLOCK // 256, 256, 1), np.float32)
        self.codes = np.zeros(self.floats.shape, np.int8)
        self.count, self.passes = count, 0

    def parts(self, layers):
        return [LargePart(self, layer) for layer in layers]


class LargePart:
    whole, waits, num_elements = None, False, BLOCK

    def __init__(self, source: Large, layer: Layer) -> None:
        self.source, self.layers = source, [layer]

    def read(self, visitor: Visitor) -> None:
        self.source.passes += 1
        for _ in range(self.source.count):
            visitor.take(self.layers[0], Block(self.source.floats.copy(), self.source.codes))


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, 1])
def test_memory_does_not_grow_with_the_layer(axis: int | None) -> None:
    peaks = []
    for count in (4, 8):
        source = Large(count, axis)
        tracemalloc.start()
        found = explore(Session(source), ["layer"])[1]["layer"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.recorded.metrics.num_elements == count * BLOCK
        assert source.passes == 2
    assert peaks[1] - peaks[0] < 50_000  # a byte of each element more would be 262 kB
