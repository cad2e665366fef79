"""Which operators are suggested to be left in float, and in what order."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.advise.suggest import Suggestion, chosen, suggestions
from qdebug.errors import QdebugError
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.json import dumps, loads
from qdebug.report.report import LayerReport
from tests.reports import figures, layer, report


def by_name(found: Any) -> dict[str, Suggestion]:
    return {suggestion.layer: suggestion for suggestion in found.candidates}


# --- what is suggested, and its shares ----------------------------------------------------------


def test_the_error_at_the_output_is_traced_back_to_where_it_was_made() -> None:
    """By hand: 9 / (9 + 16) of the last layer's error is its own; half of the rest the conv's."""
    found = suggestions(
        report(
            layer("input", op=None, **figures(0.3, 0.3, 0.0)),
            layer("conv", **figures(0.5, 0.3, 0.5)),
            layer("dense", op="FULLY_CONNECTED", **figures(3.0, 1.0, 4.0)),
        )
    )
    assert found.basis == "model"
    dense, conv = by_name(found)["dense"], by_name(found)["conv"]
    assert dense.share == pytest.approx(0.36)
    assert dense.removes == pytest.approx(0.36)  # the output is not rounded any more
    assert conv.share == pytest.approx(0.64 * 0.5)
    assert conv.removes == pytest.approx(0.64 * 0.5 * (0.25 - 0.09) / 0.25)
    assert [s.layer for s in found.candidates] == ["dense", "conv"]


def test_shares_and_the_inputs_own_make_up_the_whole_error() -> None:
    layers = [layer("in", op=None, **figures(0.2, 0.2, 0.0))]
    layers += [layer(f"l{i}", **figures(0.5 + i / 7, 0.3, 0.1 + i / 3)) for i in range(9)]
    shares = [s.share for s in suggestions(report(*layers)).candidates]
    left = math.prod(
        (0.1 + i / 3) ** 2 / ((0.1 + i / 3) ** 2 + (0.5 + i / 7) ** 2) for i in range(9)
    )
    assert math.fsum(shares) + left == pytest.approx(1)


def test_without_a_run_of_the_float_model_local_noise_to_signal_ratios_compare() -> None:
    """By hand: ratios 0.01 and 0.001, whatever the layers' own steps and units are."""
    found = suggestions(
        report(
            layer("worse", **figures(0.4, 0.2, None, 20.0)),
            layer("better", **figures(9.0, 3.0, None, 30.0)),
        )
    )
    assert found.basis == "local"
    worse, better = found.candidates
    assert worse.layer == "worse"
    assert worse.share == pytest.approx(10 / 11)
    assert worse.removes == pytest.approx(10 / 11 * 0.75)
    assert better.removes == pytest.approx(1 / 11 * (81 - 9) / 81)


def test_weights_count_where_the_reference_was_computed_with_them_quantized() -> None:
    """QDQ: the activation's own error is rounding only; its weights' 20 dB are 1 % of power."""
    qdq = report(
        layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=20.0),
        layer("y", nodes=["n"], **figures(0.3, 0.3, None, 40.0)),
        layer("last", **figures(0.3, 0.1, None, 40.0)),
    )
    found = by_name(suggestions(qdq))["y"]
    assert found.share == pytest.approx((1e-4 + 1e-2) / (2e-4 + 1e-2))
    assert found.removes == pytest.approx(1e-2 / (2e-4 + 1e-2))
    assert "weights' SQNR 20.0 dB" in found.reason


def test_inherited_error_is_shared_between_unseen_weights_and_the_layer_before() -> None:
    """By hand: 0.01 of power arrives, the weights add 0.03: three quarters are theirs."""
    before = layer("x", op=None, **figures(0.1, 0.1, 0.0, 20.0))
    weight = layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=10 * math.log10(1 / 0.03))
    made = layer("y", nodes=["n"], **figures(0.3, 0.3, 0.4, 40.0))
    last = layer("z", **figures(0.5, 0.3, 0.5, 40.0))
    found = by_name(suggestions(report(before, weight, made, last)))["y"]
    assert found.share == pytest.approx(0.5 * (0.09 + 0.12) / 0.25)
    assert found.removes == pytest.approx(0.5 * 0.12 / 0.25)


def test_weights_are_not_counted_twice() -> None:
    """LiteRT: the reference has float weights, so their error is in the activation's own."""
    weight = layer("w", "weight", nodes=["n"], rmse_scale=0.3, sqnr_db=20.0)
    made = layer("y", nodes=["n"], **figures(0.6, 0.3, 0.6))
    assert by_name(suggestions(report(weight, made)))["y"].share == pytest.approx(0.5)


def test_weights_alone_name_their_operators() -> None:
    found = suggestions(
        report(
            layer("w1", "weight", nodes=["n1"], rmse_scale=0.3, sqnr_db=30.0),
            layer("w2", "weight", nodes=["n2"], rmse_scale=0.3, sqnr_db=20.0),
            layer("b2", "bias", nodes=["n2"], rmse_scale=0.3, sqnr_db=20.0),
            layer("lost", rmse_scale=None, quantizer_rmse_scale=None, sqnr_db=None),
        )
    )
    assert [s.nodes for s in found.candidates] == [("n2",), ("n1",)]
    assert found.basis == "local"
    assert found.candidates[0].removes == pytest.approx(10 / 11)


@pytest.mark.parametrize("activations", [1, 3])
def test_one_operator_of_weights_only_does_not_turn_the_float_models_run_down(
    activations: int,
) -> None:
    """243 operators to 242 (basic-pitch): it is left untold, and everything else is traced."""
    traced = [layer(f"l{i}", **figures(0.5, 0.3, 0.1 * i)) for i in range(activations)]
    alone = [
        layer(f"w{i}", "weight", nodes=[f"n{i}"], rmse_scale=0.3, sqnr_db=20.0) for i in range(9)
    ]
    found = suggestions(report(*traced, *alone))
    assert found.basis == "model"
    assert found.untold == [f"w{i}" for i in range(9)]


@pytest.mark.parametrize(("lonely", "basis"), [(1, "model"), (3, "model"), (4, "local")])
def test_a_few_layers_without_a_run_of_the_float_model_do_not_turn_it_down(
    lonely: int, basis: str
) -> None:
    traced = [layer(f"l{i}", **figures(0.5, 0.3, 0.1)) for i in range(3)]
    others = [layer(f"o{i}", **figures(0.5, 0.3, None)) for i in range(lonely)]
    assert suggestions(report(*traced, *others)).basis == basis


def test_inputs_conversions_and_operators_that_only_round_are_no_candidates() -> None:
    found = suggestions(
        report(
            layer("input", op=None, **figures(5, 0.3, 0.0)),
            layer("again", op="QUANTIZE", **figures(5, 0.3, 0.1)),
            layer("pool", op="MAX_POOL_2D", **figures(0.3, 0.3, 0.1)),
            layer("conv", **figures(0.4, 0.3, 0.1)),
        )
    )
    assert [s.layer for s in found.candidates] == ["conv"]


def test_layers_of_a_plain_pair_file_are_candidates() -> None:
    found = suggestions(report(layer("a", None, op=None, **figures(0.6, 0.3))))
    assert [s.layer for s in found.candidates] == ["a"]


def test_several_outputs_of_one_operator_are_one_suggestion() -> None:
    found = suggestions(
        report(
            layer("a", nodes=["a", "b"], **figures(0.4, 0.3, None, 30.0)),
            layer("b", nodes=["a", "b"], **figures(0.9, 0.3, None, 20.0)),
            layer("c", nodes=["c"], **figures(0.9, 0.3, None, 20.0)),
        )
    )
    assert [s.layer for s in found.candidates] == ["b", "c"]
    assert found.candidates[0].share == pytest.approx(11 / 21)


def test_tflites_csv_still_tells_an_order() -> None:
    nothing = {"quantizer_rmse_scale": None, "inherited_rmse_scale": None, "sqnr_db": None}
    found = suggestions(
        report(
            layer("a", None, rmse_scale=0.5, **nothing),
            layer("b", None, rmse_scale=0.8, **nothing),
            layer("round", None, rmse_scale=0.28, **nothing),
            layer("unknown", None, rmse_scale=None, **nothing),
        )
    )
    assert found.basis == "steps"
    assert [s.layer for s in found.candidates] == ["b", "a"]
    total = 0.5**2 + 0.8**2 + 0.28**2
    assert found.candidates[0].removes == pytest.approx((0.64 - 1 / 12) / total)
    assert found.untold == ["unknown"]


def test_the_diagnosis_is_the_reason_where_there_is_one() -> None:
    carried = Diagnosis("bad", "carried", "it arrived so", "look before it")
    fine = Diagnosis("ok", "ok", "rounding alone", "nothing")
    one, two = suggestions(
        report(
            layer("a", diagnosis=carried, **figures(0.9, 0.3, None, 10.0)),
            layer("b", diagnosis=fine, **figures(0.9, 0.3, None, 20.0)),
        )
    ).candidates
    assert one.reason == "carried: it arrived so"
    assert "rmse/scale 0.900, 0.300 by rounding" in two.reason


def test_no_operator_is_an_error_and_no_error_at_all_is_none() -> None:
    with pytest.raises(QdebugError, match="found no operator among the layers"):
        suggestions(report(layer("b", "bias", rmse_scale=0.3)))
    assert suggestions(report(layer("a", **figures(0.0, 0.0, 0.0, None)))).candidates == []


figure = st.none() | st.floats(allow_nan=False, allow_infinity=False)
layers = st.builds(
    lambda kind, op, nodes, values: layer(
        "x", kind, op=op, nodes=nodes, **dict(zip(figures(0, 0), values, strict=True))
    ),
    st.sampled_from([None, "activation", "weight", "bias"]),
    st.sampled_from([None, "CONV_2D", "QUANTIZE"]),
    st.none() | st.lists(st.sampled_from(["", "n", "m"]), max_size=2),
    st.tuples(figure, figure, figure, figure),
)


@pytest.mark.slow
@given(st.lists(layers, max_size=6))
def test_whatever_a_saved_report_says_shares_are_shares(entries: list[LayerReport]) -> None:
    entries = [replace(entry, name=str(i)) for i, entry in enumerate(entries)]
    try:
        found = suggestions(loads(dumps(report(*entries)), "report.json"))
    except QdebugError:
        return
    for suggestion in found.candidates:
        assert 0 < suggestion.removes <= suggestion.share * (1 + 1e-9)
    assert math.fsum(s.share for s in found.candidates) <= 1 + 1e-9
    removes = [s.removes for s in found.candidates]
    assert removes == sorted(removes, reverse=True)


# --- how many -----------------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-9, 1), min_size=1, max_size=9),
    st.floats(0, 1),
    st.none() | st.integers(1, 9),
)
def test_a_budget_takes_the_fewest_that_reach_it(
    removes: list[float], budget: float, top: int | None
) -> None:
    candidates = [Suggestion("x", (), None, r, r, "") for r in sorted(removes, reverse=True)]
    kept = chosen(candidates, top=top, budget=budget)
    assert kept == candidates[: len(kept)]
    total = math.fsum(removes)
    reached = math.fsum(s.removes for s in kept)
    assert reached >= budget * total * (1 - 1e-9) or len(kept) == top
    # The largest one fewer, the best that so few can do, do not reach it.
    if kept:
        assert math.fsum(s.removes for s in kept[:-1]) < budget * total
    assert len(kept) <= (top or 9)
