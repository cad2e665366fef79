"""The graph of a report: who feeds whom, and what part of the error each brings."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.graph import graph_of
from qdebug.report.report import LayerReport


def layer(
    name: str,
    *inputs: str,
    op: str = "CONV_2D",
    kind: str | None = "activation",
    scale: float | list[float] = 0.1,
    **given: Any,
) -> LayerReport:
    """A layer of these figures, fed by these."""
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    metrics = Metrics(**(figures | given))
    return LayerReport(name, op, kind, inputs=list(inputs), scale=scale, metrics=metrics)


def unknown(name: str, kind: str | None = None) -> LayerReport:
    return LayerReport(name, kind=kind)


def feeders(*layers: LayerReport) -> dict[str, dict[str, float]]:
    graph = graph_of(layers)
    assert sorted(graph.order) == list(range(len(layers)))
    for place, found in enumerate(graph.feeders):
        assert all(graph.order.index(feeder) < graph.order.index(place) for feeder in found)
    return {
        layer.name: {layers[feeder].name: part for feeder, part in found.items()}
        for layer, found in zip(layers, graph.feeders, strict=True)
    }


def test_layers_that_do_not_name_their_inputs_are_a_chain() -> None:
    weight = unknown("w", "weight")
    assert feeders(unknown("x"), weight, unknown("a"), unknown("b", "bias"), unknown("c")) == {
        "x": {},
        "w": {},
        "a": {"x": 1},
        "b": {},
        "c": {"a": 1},
    }


def test_named_inputs_count_whatever_the_reports_order() -> None:
    """A report sorted by a figure; weights feed nothing on."""
    found = feeders(
        layer("c", "a", "w"),
        layer("a", "x"),
        layer("w", kind="weight"),
        layer("b", "x"),
        layer("x"),
    )
    assert {name: list(fed) for name, fed in found.items()} == {
        "c": ["a"],
        "a": ["x"],
        "w": [],
        "b": ["x"],
        "x": [],
    }


def test_one_that_names_nothing_is_fed_by_nothing() -> None:
    assert feeders(layer("x"), layer("y"))["y"] == {}


def test_where_a_report_shows_some_layers_only_its_order_stands_in() -> None:
    """`b` is left out, and the weights with it: `c` is behind `a` as far as anybody can tell."""
    assert feeders(layer("a"), layer("c", "b", "w"))["c"] == {"a": 1}
    assert feeders(layer("a"), layer("w", kind="weight"), layer("c", "b", "w"))["c"] == {"a": 1}
    # Here the weights alone are left out, or one of two branches.
    assert feeders(layer("x"), layer("side"), layer("c", "x", "w"))["c"] == {"x": 1}


def test_a_circle_is_no_network() -> None:
    assert feeders(layer("a", "b"), layer("b", "a"), layer("c", "c")) == {
        "a": {},
        "b": {"a": 1},
        "c": {"b": 1},
    }


# Of 100 and 1 in power of signal, 1 and 0.1 in power of error: 20 and 10 dB.
STRONG = {"model_rmse_scale": 1.0, "scale": 1.0, "model_sqnr_db": 20.0}
WEAK = {"model_rmse_scale": 2.0, "scale": 0.1**0.5 / 2, "model_sqnr_db": 10.0}


@pytest.mark.parametrize(
    ("op", "strong"),
    [
        ("ADD", 1 / 1.1),
        ("Sub", 1 / 1.1),
        ("Concat", 3 / 3.1),
        ("CONCATENATION", 3 / 3.1),
        ("MUL", 0.01 / 0.11),
        ("MatMul", 0.01 / 0.11),
        ("anything", 0.01 / 0.11),
    ],
)
def test_errors_compare_in_the_unit_in_which_the_operator_hands_them_on(
    op: str, strong: float
) -> None:
    """By hand: an Add's inputs in their unit, a product's beside their signal, a join's by size."""
    layers = (
        layer("weak", num_elements=100, **WEAK),
        layer("strong", num_elements=300, **STRONG),
        layer("y", "weak", "strong", op=op),
    )
    found = feeders(*layers)["y"]
    assert found == pytest.approx({"strong": strong, "weak": 1 - strong})
    assert list(found) == sorted(found, key=lambda name: -found[name])


def test_one_that_is_exact_brings_nothing() -> None:
    exact = layer("exact", model_rmse_scale=0.0)  # its SQNR is no number
    for op in ("ADD", "MUL", "CONCATENATION"):
        found = feeders(exact, layer("x", **WEAK), layer("y", "exact", "x", op=op))["y"]
        assert found == {"x": 1.0, "exact": 0.0}


def test_one_without_figures_brings_what_feeds_it_brings() -> None:
    through = LayerReport("through", inputs=["x", "exact"])
    layers = (layer("x", **WEAK), layer("exact", model_rmse_scale=0.0), through)
    found = feeders(*layers, layer("z", **WEAK), layer("y", "through", "z"))
    assert found["y"] == {"through": 0.5, "z": 0.5}
    assert found["through"] == {"x": 1.0, "exact": 0.0}


def test_scales_by_channel_count_together() -> None:
    by_channel = layer("a", model_rmse_scale=1.0, scale=[1.0, 7.0], model_sqnr_db=10.0)
    one = layer("b", model_rmse_scale=5.0, scale=1.0, model_sqnr_db=10.0)
    found = feeders(by_channel, one, layer("y", "a", "b", op="ADD"))["y"]
    assert found == pytest.approx({"a": 0.5, "b": 0.5})


def test_where_no_figure_tells_all_count_alike() -> None:
    assert feeders(layer("a"), layer("b"), layer("y", "a", "b"))["y"] == {"a": 0.5, "b": 0.5}


def test_growth_is_what_is_inherited_over_what_is_brought() -> None:
    """By hand, in the reader's unit: 1.1 is brought; (2 * 1)^2 of (1 + 2^2) is inherited."""
    reader = {"scale": 1.0, "model_rmse_scale": 5**0.5, "model_sqnr_db": 3.0}
    layers = [layer("weak", **WEAK), layer("strong", **STRONG), LayerReport("lost", inputs=[])]
    readers = (
        layer("sum", "weak", "strong", op="ADD", inherited_rmse_scale=2.0, **reader),
        layer("part", "weak", "lost", op="ADD", inherited_rmse_scale=2.0, **reader),
        layer("own", "weak", op="ADD", inherited_rmse_scale=0.0, **reader),
    )
    graph = graph_of([*layers, *readers])
    assert graph.growth[:3] == [None] * 3
    assert graph.growth[3:] == [pytest.approx(10 * math.log10(4 / 1.1)), None, -math.inf]
    # The one whose figures are lost brings the rest.
    assert graph.feeders[4] == pytest.approx({2: 3.9 / 4, 0: 0.1 / 4})
    assert graph.noise[:3] == [pytest.approx(0.1), pytest.approx(0.01), None]


figure = st.none() | st.floats(allow_nan=False, allow_infinity=False)
reports = st.lists(
    st.builds(
        lambda name, inputs, op, kind, scale, steps, decibels, elements: LayerReport(
            name,
            op,
            kind,
            inputs=inputs,
            scale=scale,
            metrics=layer(
                name, model_rmse_scale=steps, model_sqnr_db=decibels, num_elements=elements
            ).metrics,
        ),
        st.sampled_from("abcdefg"),
        st.none() | st.lists(st.sampled_from("abcdefgh"), max_size=4),
        st.sampled_from([None, "ADD", "Concat", "MUL"]),
        st.sampled_from([None, "activation", "weight"]),
        figure,
        figure,
        figure,
        st.integers(0, 2**63 - 1),
    ),
    max_size=8,
)


@pytest.mark.slow
@given(reports)
def test_whatever_a_report_says_it_is_a_graph(layers: list[LayerReport]) -> None:
    graph = graph_of(layers)
    assert sorted(graph.order) == list(range(len(layers)))
    position = {place: at for at, place in enumerate(graph.order)}
    for place, found in enumerate(graph.feeders):
        assert all(position[feeder] < position[place] for feeder in found)
        assert all(0 <= part <= 1 for part in found.values())
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert not found or sum(found.values()) == pytest.approx(1)
