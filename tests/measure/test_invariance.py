"""What must not change a figure: how arrays are stored, the unit, the code of zero."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.arithmetic.affine import QuantParams, quantize
from qdebug.measure.layer import Layer
from qdebug.measure.metrics import FIGURES, layer_metrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import LayerReport, layer_report
from tests import layers, oracle
from tests.pairs import read
from tests.visits import statistics_of

pytestmark = pytest.mark.usefixtures("both_kernels")

Figures = dict[str, Any]
Write = Callable[..., Path]

# The power of x's unit that a figure is in; the others have none.
UNITS = {"mse": 2} | dict.fromkeys(
    (
        *("mean_error", "stddev", "max_abs_error", "rmse", "fit_scale", "model_min", "model_max"),
        *("float_min", "float_max", "float_mean", "float_std", "float_mean_abs"),
    ),
    1,
)
# Figures that are codes: they move with the zero point.
CODES = ("quantized_min", "quantized_max", "fit_zero_point")


def measured(x: Any, codes: Any, params: QuantParams) -> tuple[Figures, Diagnosis]:
    """Figures and diagnosis of a layer."""
    statistics = statistics_of(x, codes, params)
    metrics = layer_metrics(statistics, params)
    found = layer_report(Layer("layer", params, x.shape), statistics, metrics).diagnosis
    assert found is not None
    return asdict(metrics), found


def drawn(seed: int, dtype: str = "int8", per_channel: bool = False) -> tuple[Any, Any, Any, Any]:
    """Floats, codes, scale and zero point of a layer (channels, elements) with some fault."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    x = rng.normal(size=(4, 50)) * 10 ** rng.uniform(-2, 2) + rng.choice([0.0, 3.0])
    x[rng.random(x.shape) < rng.choice([0, 0.3])] = 0
    scale = np.abs(x).max() * rng.uniform(0.3, 3, 4 if per_channel else 1) / limits.max
    zero_point = rng.integers(limits.min // 2, limits.max // 2, scale.size)
    params = QuantParams.of(scale, zero_point, dtype, axis=0)
    codes = quantize(x, params).astype(np.int64) + rng.choice([0, 0, -1, 2])
    codes = np.clip(
        codes + rng.choice([0, 0, 1]) * rng.integers(-3, 4, x.shape), *params.code_range
    )
    return x, codes.astype(dtype), scale, zero_point


@given(seed=st.integers(0, 2**32), power=st.integers(-90, 90), per_channel=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_unit_changes_no_digit_of_a_figure_that_has_none(
    seed: int, power: int, per_channel: bool
) -> None:
    x, codes, scale, zero_point = drawn(seed, per_channel=per_channel)
    unit = 2.0**power
    once, diagnosis = measured(x, codes, QuantParams.of(scale, zero_point, axis=0))
    params = QuantParams.of(scale * unit, zero_point, axis=0)
    scaled, diagnosis_scaled = measured(x * unit, codes, params)
    for name in FIGURES:
        value = once[name]
        want = value and value * unit ** UNITS.get(name, 0)
        assert scaled[name] == want or name == "sqnr_db", name
    # A logarithm may round otherwise: its argument has the same digits only to the last.
    assert scaled["sqnr_db"] == pytest.approx(once["sqnr_db"], rel=1e-14)
    assert (diagnosis.verdict, diagnosis.cause) == (
        diagnosis_scaled.verdict,
        diagnosis_scaled.cause,
    )


def test_figures_with_a_unit_are_all_that_the_scale_may_change() -> None:
    assert set(UNITS) <= set(FIGURES)
    assert not [name for name in UNITS if name.endswith("_scale") and name != "fit_scale"]


@given(
    seed=st.integers(0, 2**32),
    types=st.sampled_from([("int8", "uint8"), ("int16", "uint16")]),
    per_channel=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_signed_and_unsigned_codes_of_the_same_floats_have_the_same_figures(
    seed: int, types: tuple[str, str], per_channel: bool
) -> None:
    signed, unsigned = types
    x, codes, scale, zero_point = drawn(seed, signed, per_channel)
    half = 1 << (8 * codes.itemsize - 1)
    once, diagnosis = measured(x, codes, QuantParams.of(scale, zero_point, signed, axis=0))
    moved = (codes.astype(np.int64) + half).astype(unsigned)
    params = QuantParams.of(scale, zero_point + half, unsigned, axis=0)
    other, diagnosis_moved = measured(x, moved, params)
    for name in FIGURES:
        want = once[name]
        if name.startswith("fit_"):  # sums of larger codes round otherwise
            want = want and pytest.approx(want + (half if name in CODES else 0), rel=1e-9)
        elif name in CODES:
            want = want + half
        assert other[name] == want, name
    assert (diagnosis.verdict, diagnosis.cause) == (diagnosis_moved.verdict, diagnosis_moved.cause)


@given(seed=st.integers(0, 2**32), by=st.integers(-16_000, 16_000))
@settings(max_examples=25, deadline=None)
def test_codes_and_zero_point_shifted_together_change_nothing_but_where_the_range_ends(
    seed: int, by: int
) -> None:
    x, _, scale, zero_point = drawn(seed)
    some = QuantParams.of(scale, zero_point, "int16")
    inside = quantize(x, some)  # far from both ends of int16
    once, _ = measured(x, inside, some)
    moved = (inside + by).astype(np.int16)
    other, _ = measured(x, moved, QuantParams.of(scale, zero_point + by, "int16"))
    for name in FIGURES:
        want = once[name]
        if name in CODES:
            want = pytest.approx(want + by, rel=1e-12)
        elif name in ("fit_scale", "fit_rmse_scale"):
            want = want and pytest.approx(want, rel=1e-9)
        elif name in ("range_waste_low", "range_waste_high"):
            want = pytest.approx(want + (by if name.endswith("low") else -by) / 65535)
        elif name == "range_waste":
            want = pytest.approx(want)
        assert other[name] == want, name


def stored(fields: Figures, order: Any, byte_order: Any) -> Figures:
    """The same layer with its arrays in another memory order and byte order."""
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    return fields | {
        name: np.asarray(array.astype(array.dtype.newbyteorder(byte_order)), order=order)
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_byte_order_changes_no_digit_and_memory_order_only_the_last(
    seed: int, write_pairs: Write
) -> None:
    rng = np.random.default_rng(seed)
    pairs = {f"layer{i}": layers.random_layer(rng, 8) for i in range(12)}

    def found(order: str, byte_order: str) -> list[LayerReport]:
        fields = {name: stored(each, order, byte_order) for name, each in pairs.items()}
        return list(read(write_pairs(fields)).layers)

    for order in ("C", "F"):
        assert found(order, ">") == found(order, "<")
    for ours, theirs in zip(found("F", "<"), found("C", "<"), strict=True):
        assert ours.metrics is not None
        assert theirs.metrics is not None
        step = float(np.max(pairs[ours.name]["scale"]))
        assert not oracle.disagreements(asdict(ours.metrics), asdict(theirs.metrics), step)
        assert (ours.diagnosis and ours.diagnosis.cause) == (
            theirs.diagnosis and theirs.diagnosis.cause
        )


def test_the_order_of_files_changes_no_figure(write_pairs: Write) -> None:
    rng = np.random.default_rng(5)
    files = []
    for number in range(3):
        pairs = {}
        for name, channels in (("a", 1), ("b", 4)):
            x = rng.normal(size=(channels, 300 + 40 * number)) * (number + 1)
            scale = np.full(channels, 0.03)
            codes = np.clip(np.rint(x / 0.03), -128, 127).astype(np.int8)
            pairs[name] = {"float": x, "quantized": codes, "scale": scale}
            if channels > 1:
                pairs[name]["axis"] = 0
        files.append(write_pairs(pairs, f"part{number}.npz"))
    once = read(*files)
    assert [layer.name for layer in once.layers] == ["a", "b"]
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        again = read(*(files[place] for place in order))
        for ours, theirs in zip(again.layers, once.layers, strict=True):
            assert ours.diagnosis == theirs.diagnosis
            assert ours.metrics is not None
            assert theirs.metrics is not None
            for name, want in asdict(theirs.metrics).items():
                found = getattr(ours.metrics, name)
                assert found == (want and pytest.approx(want, rel=1e-12, abs=1e-15)), name
