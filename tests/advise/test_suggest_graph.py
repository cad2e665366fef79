"""``suggest`` on networks that are no chains: shares follow the layers that feed one another."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qdebug.advise.suggest import suggestions
from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.report import LayerReport, Report

Array = NDArray[np.float64]


def layer(
    name: str,
    *inputs: str,
    own: float = 1.0,
    inherited: float | None = 0.0,
    noise: float = 0.01,
    op: str = "CONV_2D",
    scale: float = 0.1,
    **given: Any,
) -> LayerReport:
    """A layer of 30 dB that errs by `own` steps, one tenth of it rounding.

    `noise` is its noise-to-signal ratio in the whole run.
    """
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    figures |= {
        "rmse_scale": own,
        "quantizer_rmse_scale": own / 10,
        "inherited_rmse_scale": inherited,
        "sqnr_db": 30.0,
        "model_rmse_scale": math.hypot(own, inherited or 0.0),
        "model_sqnr_db": -10 * math.log10(noise),
    }
    metrics = Metrics(**(figures | given))
    return LayerReport(name, op, "activation", inputs=list(inputs), scale=scale, metrics=metrics)


def shares(*layers: LayerReport) -> dict[str, float]:
    """The share of each layer; all are operators that can be left in float."""
    found = suggestions(Report([], list(layers)))
    assert found.basis == "model"
    return {suggestion.layer: suggestion.share for suggestion in found.candidates}


UNTOLD = dict.fromkeys(("rmse_scale", "quantizer_rmse_scale", "model_rmse_scale", "model_sqnr_db"))


def in_a_row(layers: Sequence[LayerReport]) -> list[LayerReport]:
    return [replace(each, inputs=None) for each in layers]


# --- by hand --------------------------------------------------------------------------------------


def test_a_side_branch_does_not_get_the_main_branchs_error() -> None:
    """Anchors before a Concat: they inherit nothing, and bring a thousandth of the error."""
    layers = (
        layer("x", own=1.0),
        layer("main", "x", own=3.0, inherited=4.0, noise=0.01),
        layer("anchors", own=1.0, noise=0.01, num_elements=1, model_rmse_scale=0.5),
        layer("y", "anchors", "main", op="CONCATENATION", own=1.0, inherited=3.0),
    )
    found = shares(*layers)
    brought = {"anchors": 0.25 * 1, "main": 25 * 100}
    part = brought["main"] / (brought["main"] + brought["anchors"])
    assert found["y"] == pytest.approx(0.1)
    assert found["main"] == pytest.approx(0.9 * part * 9 / 25)
    assert found["x"] == pytest.approx(0.9 * part * 16 / 25)
    assert found["anchors"] == pytest.approx(0.9 * (1 - part))
    assert found["anchors"] < 1e-3
    # In a row they would have to make 3600 times their own error: 1000 times is allowed.
    assert shares(*in_a_row(layers))["anchors"] == pytest.approx(0.9 * 1000 / 3600)


def test_a_branch_that_is_exact_gets_nothing() -> None:
    """A mask that quantization does not change, before a Mul."""
    layers = (
        layer("x"),
        layer("mask", own=0.0, model_rmse_scale=0.0, model_sqnr_db=None, sqnr_db=None),
        layer("y", "x", "mask", op="MUL", own=1.0, inherited=3.0),
    )
    assert shares(*layers) == pytest.approx({"y": 0.1, "x": 0.9})


def test_what_two_layers_read_gets_something_from_each() -> None:
    """A residual block: of y's error half is its own; x gets it by the Add and by the branch."""
    layers = (
        layer("x", own=1.0, model_rmse_scale=1.0),
        layer("branch", "x", own=1.0, inherited=1.0, model_rmse_scale=3.0),
        layer("y", "x", "branch", op="ADD", own=2.0, inherited=2.0),
    )
    expected = {"y": 0.5, "branch": 0.5 * 0.9 * 0.5, "x": 0.5 * 0.9 * 0.5 + 0.5 * 0.1}
    assert shares(*layers) == pytest.approx(expected)


def test_a_mask_that_brings_nothing_is_not_charged_for_what_a_softmax_makes_of_it() -> None:
    """Scores and -3e38 in one tensor: an SQNR of 764 dB, and 8 dB behind the softmax.

    By its figures the mask makes all of the sum's error. Nothing tells who made the softmax's.
    """
    dust = {"own": 1e-9, "noise": 1e-17}
    layers = (
        layer("scores", own=1.0, scale=0.1, noise=0.01),
        layer("mask", op="Cast", **dust),
        layer("wide", "mask", op="Mul", inherited=1e-9, scale=1e36, **dust),
        layer("sum", "scores", "wide", op="Add", inherited=2e-9, scale=1e36, **dust),
        layer("softmax", "sum", op="Softmax", own=1.0, inherited=3.0, noise=0.16),
    )
    found = suggestions(Report([], layers))
    assert {s.layer: s.share for s in found.candidates if s.share > 1e-9} == {
        "softmax": pytest.approx(0.1)
    }
    assert found.untraced == pytest.approx(0.9)


def test_a_branch_whose_error_is_unknown_gets_what_the_others_do_not_bring() -> None:
    """The anchors bring 1 of the 9 that arrive; the main branch lost its figures."""
    layers = (
        LayerReport("main"),
        layer("anchors", own=1.0),
        layer("y", "main", "anchors", op="ADD", own=3.0, inherited=3.0),
    )
    assert shares(*layers) == pytest.approx({"y": 0.5, "anchors": 0.5 / 9})


def test_an_output_without_error_gets_nothing() -> None:
    """Beside an exact output, and one of a tenth of the error."""
    layers = (
        layer("x", noise=0.02),
        layer("bad", "x", inherited=1.0, noise=0.1),
        layer("good", "x", inherited=1.0, noise=0.01),
        layer("exact", own=0.0, model_rmse_scale=0.0, model_sqnr_db=None, sqnr_db=None),
    )
    expected = {"bad": 10 / 11 / 2, "good": 1 / 11 / 2, "x": 0.5}
    assert shares(*layers) == pytest.approx(expected)


def test_outputs_with_as_much_error_share_alike() -> None:
    layers = (
        layer("x"),
        layer("a", "x", own=1.0, inherited=3.0),
        layer("b", "x", own=3.0, inherited=4.0),
    )
    expected = {"a": 0.5 * 0.1, "b": 0.5 * 9 / 25, "x": 0.5 * 0.9 + 0.5 * 16 / 25}
    assert shares(*layers) == pytest.approx(expected)


def test_no_output_is_quantized_again() -> None:
    found = suggestions(
        Report([], [layer("x"), layer("a", "x", inherited=1.0), layer("b", "x", inherited=1.0)])
    )
    removed = {s.layer: s.removes / s.share for s in found.candidates}
    assert removed == pytest.approx({"a": 1, "b": 1, "x": 0.99})


def test_layers_without_figures_hand_on_what_they_get() -> None:
    """Unreadable, or without a run of the float model; also where they come last."""
    torn = LayerReport("torn", inputs=["a", "b"])
    untold = layer("untold", "torn", **UNTOLD)
    layers = (
        layer("a", noise=0.03),
        layer("b", noise=0.01),
        layer("side"),
        torn,
        untold,
        layer("y", "untold", own=1.0, inherited=1.0),
        LayerReport("end", inputs=["y"]),
        layer("after", "end", **UNTOLD),
    )
    without_side = [each for each in layers if each.name != "side"]
    assert shares(*without_side) == pytest.approx({"y": 0.5, "a": 0.375, "b": 0.125})
    found = suggestions(Report([], without_side))
    assert found.untold == ["untold", "after"]
    (last,) = (s for s in found.candidates if s.layer == "y")
    assert last.removes == pytest.approx(last.share)
    assert shares(*layers)["side"] == pytest.approx(0.5)  # an output of its own


def test_unseen_weights_are_weighed_with_what_feeds_their_operator() -> None:
    """QDQ by hand: 0.01 of power arrives by `x`, the weights add 0.03; `side` has no say."""
    weight = layer("w", own=0.3, sqnr_db=10 * math.log10(1 / 0.03))
    weight = replace(weight, kind="weight", nodes=["n"])
    made = layer("y", "x", "w", own=0.3, inherited=0.4, quantizer_rmse_scale=0.3, sqnr_db=40.0)
    layers = (
        layer("x", own=0.1, sqnr_db=20.0),
        layer("side", own=0.1, sqnr_db=0.0),
        weight,
        replace(made, nodes=["n"]),
        layer("z", "y", "side", op="CONCATENATION", own=0.5, inherited=0.5),
    )
    with_side = shares(*layers)
    brought = {"y": 0.3**2 + 0.4**2, "side": 0.1**2}
    part = 0.5 * brought["y"] / (brought["y"] + brought["side"])
    assert with_side["y"] == pytest.approx(part * (0.09 + 0.12) / 0.25)
    assert with_side["x"] == pytest.approx(part * 0.04 / 0.25)


# --- what a converter frees ---


def onnx_network() -> list[LayerReport]:
    """Conv, Sqrt, Gemm in a row; the input and the Sqrt are quantized for their readers only."""
    return [
        layer("x", op=None, own=1.0, noise=0.01),
        layer("conv", "x", op="Conv", own=1.0, inherited=1.0),
        layer("sqrt", "conv", op="Sqrt", own=1.0, inherited=1.0),
        layer("y", "sqrt", op="Gemm", own=1.0, inherited=1.0),
    ]


def test_onnx_runtime_frees_what_only_this_operator_has_quantized() -> None:
    """Of the error, y makes 1/2, sqrt 1/4, conv 1/8, x 1/8."""
    found = {s.layer: s for s in suggestions(Report([], onnx_network())).candidates}
    assert list(found) == ["y", "conv"]  # to leave the Sqrt in float changes nothing
    assert (found["y"].share, found["y"].removes) == pytest.approx((0.75, 0.75))
    assert found["conv"].share == pytest.approx(0.25)
    assert found["conv"].removes == pytest.approx(0.125 * 0.99 + 0.125)


def test_a_tensor_that_another_node_touches_stays_quantized() -> None:
    layers = [*onnx_network(), layer("too", "x", "sqrt", op="Add", inherited=1.0, noise=1e-9)]
    found = {s.layer: s for s in suggestions(Report([], layers)).candidates}
    assert found["y"].removes == pytest.approx(0.5)
    assert found["conv"].removes == pytest.approx(0.125 * 0.99)


def test_litert_quantizes_a_models_input_by_itself() -> None:
    layers = [replace(each, op=each.op and each.op.upper()) for each in onnx_network()]
    found = {s.layer: s for s in suggestions(Report([], layers)).candidates}
    assert list(found) == ["y", "sqrt", "conv"]
    assert found["y"].share == pytest.approx(0.5)


def test_an_operator_with_quantized_weights_is_quantized_whatever_its_kind() -> None:
    """`op_types_to_quantize` may name more than ONNX Runtime quantizes by itself."""
    weight = replace(layer("w", op="Einsum"), kind="weight", nodes=["n"])
    made = replace(layer("y", op="Einsum"), nodes=["n"])
    assert [s.layer for s in suggestions(Report([], [weight, made])).candidates] == ["y"]
    assert not suggestions(Report([], [made])).candidates


# --- whatever the network -------------------------------------------------------------------------

steps = st.floats(0.01, 10)
# More than 30 dB between a layer and what feeds it would be out of proportion.
chains = st.lists(st.none() | st.tuples(steps, steps, st.floats(1e-3, 1)), min_size=1, max_size=9)


@pytest.mark.slow
@given(chains)
def test_a_chain_is_judged_as_its_order_is(
    figures: list[tuple[float, float, float] | None],
) -> None:
    """Against the rule written the plain way."""
    layers = []
    for place, known in enumerate(figures):
        about: dict[str, Any] = UNTOLD
        if known:
            about = dict(zip(("own", "inherited", "noise"), known, strict=True))
        layers.append(layer(str(place), *([str(place - 1)] if place else []), **about))
    named, ordered = (suggestions(Report([], each)) for each in (layers, in_a_row(layers)))
    assert named == ordered
    left, found = 1.0, {s.layer: s.share for s in named.candidates}
    for place, known in reversed(list(enumerate(figures))):
        if known:
            share = left * known[0] ** 2 / (known[0] ** 2 + known[1] ** 2)
            assert found.get(str(place), 0.0) == pytest.approx(share, abs=1e-12)
            left -= share
        else:
            assert str(place) in named.untold


@st.composite
def networks(draw: Callable[..., Any]) -> list[LayerReport]:
    """Up to nine layers, each fed by some of those before it; the first ones inherit nothing."""
    layers: list[LayerReport] = []
    for number in range(draw(st.integers(1, 9))):
        inputs = draw(st.lists(st.integers(0, number - 1), max_size=3)) if number else []
        layers.append(
            layer(
                str(number),
                *map(str, inputs),
                op=draw(st.sampled_from(["ADD", "MUL", "CONCATENATION"])),
                own=draw(steps),
                inherited=draw(steps) if inputs else 0.0,
                noise=draw(st.floats(1e-6, 1)),
            )
        )
    return layers


@pytest.mark.slow
@given(networks(), st.integers(0, 10))
def test_shares_are_positive_and_with_what_is_untraced_make_up_the_whole_error(
    layers: list[LayerReport], seed: int
) -> None:
    found = suggestions(Report([], layers))
    assert min(s.share for s in found.candidates) >= 0
    assert 0 <= found.untraced <= 1
    # An operator that gets nothing is no candidate.
    assert math.fsum(s.share for s in found.candidates) + found.untraced == pytest.approx(1)
    shuffled = list(layers)
    random.Random(seed).shuffle(shuffled)
    assert shares(*shuffled) == pytest.approx({s.layer: s.share for s in found.candidates})


@pytest.mark.slow
@given(networks(), st.data())
def test_where_figures_are_missing_shares_are_positive_and_at_most_one(
    layers: list[LayerReport], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(layers) - 1))
    for place in data.draw(st.sets(st.integers(0, len(layers) - 1))) - {kept}:
        layers[place] = data.draw(
            st.sampled_from(
                [
                    LayerReport(layers[place].name, inputs=layers[place].inputs),
                    LayerReport(layers[place].name),
                    layer(layers[place].name, *layers[place].inputs or (), **UNTOLD),
                    replace(layers[place], inputs=None),
                ]
            )
        )
    found = shares(*layers)
    assert min(found.values()) >= 0
    assert math.fsum(found.values()) <= 1 + 1e-9


# --- against quantizing one operator at a time ----------------------------------------------------


class Network:
    """Dense layers with branches in plain NumPy, each operator in float or quantized."""

    def __init__(self, join: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[tuple[str, str, list[str], Array | None]] = [("x", "", [], None)]
        self.widths = {"x": 24}
        last = self.dense("stem", "x", 24)
        for block in range(4):
            inner = self.dense(f"a{block}", last, 24)
            size = 10 ** self.rng.uniform(-1, 0.3)
            inner = self.dense(f"b{block}", inner, 24, size)
            if join == "MUL":
                self.ops.append((f"g{block}", "LOGISTIC", [inner], None))
                inner = f"g{block}"
            self.ops.append((f"j{block}", join, [last, inner], None))
            last = f"j{block}"
            self.widths[last] = 24
            if join == "CONCATENATION":
                self.widths[last] = 48
                last = self.dense(f"c{block}", last, 24)
        self.dense("y", last, 8)
        self.inputs = self.rng.normal(size=(300, 24)) * np.exp(self.rng.normal(size=24))

    def dense(self, name: str, of: str, width: int, size: float = 1.0) -> str:
        weights = self.rng.normal(size=(self.widths[of], width)) * size
        weights *= np.sqrt(2 / self.widths[of])
        self.ops.append((name, "FULLY_CONNECTED", [of], weights))
        self.widths[name] = width
        return name

    def run(self, quantized: Sequence[str]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each tensor, and what its operator in float makes of the tensors that it reads."""
        values: dict[str, Array] = {}
        local: dict[str, Array] = {}
        for name, op, inputs, weights in self.ops:
            read = [values[each] for each in inputs]
            local[name] = values[name] = self.made(op, read, weights)
            if name in quantized:
                bits = 4 + len(name + op) % 5  # some operators' weights are worse
                rounded = None if weights is None else self.rounded(weights, 2 ** (bits - 1))[0]
                values[name] = self.rounded(self.made(op, read, rounded), 127)[0]
        return values, local

    def made(self, op: str, read: Sequence[Array], weights: Array | None) -> Array:
        match op:
            case "FULLY_CONNECTED":
                assert weights is not None
                return np.maximum(read[0] @ weights, 0)
            case "ADD":
                return read[0] + read[1]
            case "MUL":
                return read[0] * read[1]
            case "CONCATENATION":
                return np.concatenate(read, axis=1)
            case "LOGISTIC":
                return 1 / (1 + np.exp(-read[0]))
        return self.inputs

    def rounded(self, x: Array, steps: int) -> tuple[Array, float]:
        scale = float(np.abs(x).max()) / steps
        return np.round(x / scale) * scale, scale

    def report(self) -> list[LayerReport]:
        floats, _ = self.run([])
        values, local = self.run([name for name, *_ in self.ops])
        layers = []
        for name, op, inputs, _ in self.ops:
            x, y, m = local[name], values[name], floats[name]
            own, scale = self.rounded(x, 127)

            def steps(error: Array, scale: float = scale) -> float:
                return float(np.sqrt(np.mean((error / scale) ** 2)))

            def decibels(signal: Array, error: Array) -> float:
                return float(10 * np.log10(np.sum(signal**2) / np.sum(error**2)))

            made = layer(
                name,
                *inputs,
                op=op,
                own=steps(y - x),
                inherited=steps(x - m),
                quantizer_rmse_scale=min(steps(own - x), steps(y - x) / 2),
                sqnr_db=decibels(x, y - x),
                model_rmse_scale=steps(y - m),
                model_sqnr_db=decibels(m, y - m),
                num_elements=x.size,
            )
            layers.append(replace(made, scale=scale))
        return layers

    def true_shares(self) -> dict[str, float]:
        """The error power at the output with one operator quantized and all others in float."""
        reference = self.run([])[0]["y"]
        powers = {
            name: float(np.mean((self.run([name])[0]["y"] - reference) ** 2))
            for name, *_ in self.ops
        }
        return {name: power / sum(powers.values()) for name, power in powers.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("join", "apart"), [("ADD", 0.1), ("CONCATENATION", 0.18), ("MUL", 0.12)])
def test_shares_are_those_of_quantizing_one_operator_at_a_time(join: str, apart: float) -> None:
    """`apart` is a share of the error that is put down to the wrong operator, a mean of eight."""
    graph, chain = [], []
    for seed in range(8):
        network = Network(join, seed)
        truth, layers = network.true_shares(), network.report()
        for found, into in ((shares(*layers), graph), (shares(*in_a_row(layers)), chain)):
            into.append(sum(abs(found.get(name, 0.0) - truth[name]) for name in truth) / 2)
    assert np.mean(graph) < apart
    assert np.mean(graph) < 0.6 * np.mean(chain)
