"""``suggest`` on networks that are no chains: shares follow the layers that feed one another."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.advise.suggest import suggestions
from qdebug.report.report import LayerReport, Report
from tests.advise.networks import in_a_row, layer, shares

UNTOLD = dict.fromkeys(("rmse_scale", "quantizer_rmse_scale", "model_rmse_scale", "model_sqnr_db"))


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
