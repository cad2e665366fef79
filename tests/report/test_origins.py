"""Where the model's error was seen first: back through the layers that feed one another."""

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.measure.metrics import FIGURES, Metrics
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import LayerReport, with_origins

FINE = Diagnosis("ok", "ok", "rounding", "")


def layer(
    name: str,
    *inputs: str,
    model_db: float | None = None,
    inherited: float = 0.1,
    own: float = 0.3,
    op: str = "CONV_2D",
    **given: Any,
) -> LayerReport:
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"num_elements": 100, "non_finite": 0}
    if model_db is not None:
        figures |= {
            "rmse_scale": own,
            "inherited_rmse_scale": inherited,
            "model_rmse_scale": (own**2 + inherited**2) ** 0.5,
            "model_sqnr_db": model_db,
        }
    return LayerReport(
        name,
        op,
        "activation",
        inputs=list(inputs),
        scale=given.pop("scale", 0.1),
        metrics=Metrics(**(figures | given)),
        diagnosis=FINE,
    )


def first_seen(*layers: LayerReport) -> dict[str, str | None]:
    """Layer -> where its error was seen first."""
    found: dict[str, str | None] = {}
    for each in with_origins(layers):
        assert each.diagnosis is not None
        _, said, first = each.diagnosis.evidence.partition(", seen first at ")
        found[each.name] = first.strip("'") if said else None
    return found


GOOD, BAD = {"model_db": 45.0}, {"model_db": 20.0, "inherited": 3.0}


def test_a_side_branch_before_it_in_the_report_does_not_hide_the_culprit() -> None:
    """In the report's order `anchors` is before `joined`, and sound."""
    layers = (
        layer("x", **GOOD),
        layer("culprit", "x", model_db=21.0, own=4.0),
        layer("boxes", "culprit", **BAD),
        layer("anchors", **GOOD),
        layer("joined", "anchors", "boxes", op="CONCATENATION", **BAD),
    )
    assert first_seen(*layers)["joined"] == "culprit"
    in_a_row = first_seen(*(replace(each, inputs=None) for each in layers))
    assert in_a_row["joined"] is None


def test_a_bad_side_branch_is_not_blamed_for_what_it_does_not_feed() -> None:
    layers = (
        layer("x", model_db=21.0, own=4.0),
        layer("side", "x", model_db=18.0, own=5.0),
        layer("y", "x", **BAD),
    )
    assert first_seen(*layers)["y"] == "x"


def test_of_two_bad_branches_it_is_the_one_that_brings_the_error() -> None:
    """The mask's SQNR is worse, the error that it adds is a thousandth of the other's."""
    main = layer("main", model_db=21.0, own=4.0, scale=1.0)
    mask = layer("mask", model_db=5.0, own=0.4, scale=0.3)
    added = {"op": "ADD", **BAD}
    assert first_seen(mask, main, layer("y", "mask", "main", **added))["y"] == "main"
    assert first_seen(mask, main, layer("y", "main", "mask", **added))["y"] == "main"
    product = {"op": "MUL", "model_db": 5.0, "inherited": 3.0}
    assert first_seen(mask, main, layer("y", "main", "mask", **product))["y"] == "mask"


def test_where_the_branch_that_brings_most_was_better_it_began_here() -> None:
    """It is not the mask's, though its SQNR is worse than that of the sum."""
    layers = (
        layer("mask", model_db=5.0, own=0.4, scale=0.3),
        layer("main", model_db=25.0, own=4.0, scale=1.0),
        layer("y", "mask", "main", op="ADD", **BAD),
    )
    assert first_seen(*layers)["y"] is None


def test_layers_without_figures_are_passed_on_the_way_back() -> None:
    unreadable = LayerReport("torn", inputs=["culprit", "w"], diagnosis=FINE)
    layers = (
        layer("culprit", model_db=21.0, own=4.0),
        layer("side", **GOOD),
        LayerReport("w", kind="weight", inputs=[], diagnosis=FINE),
        unreadable,
        layer("y", "torn", **BAD),
    )
    assert first_seen(*layers)["y"] == "culprit"


def test_the_reports_order_does_not_matter_where_inputs_are_named() -> None:
    layers = [
        layer("x", **GOOD),
        layer("a", "x", model_db=21.0, own=4.0),
        layer("b", "x", model_db=30.0),
        layer("c", "a", "b", op="ADD", **BAD),
        layer("d", "c", **BAD),
    ]
    expected = first_seen(*layers)
    assert expected["d"] == expected["c"] == "a"
    for seed in range(10):
        random.Random(seed).shuffle(layers)
        assert first_seen(*layers) == expected


decibels = st.none() | st.floats(0, 60)
chains = st.lists(st.tuples(decibels, st.floats(0, 9), st.floats(0, 9)), max_size=8)


@pytest.mark.slow
@given(chains)
def test_a_chain_gives_what_its_order_gives(
    figures: list[tuple[float | None, float, float]],
) -> None:
    """Against the rule written the plain way: back to where it was 3 dB better."""
    layers = [
        layer(str(i), *([str(i - 1)] if i else []), model_db=db, inherited=inherited, own=own)
        for i, (db, inherited, own) in enumerate(figures)
    ]
    expected: dict[str, str | None] = {}
    for place, (db, inherited, own) in enumerate(figures):
        first = None
        if db is not None and inherited > own:
            for earlier in reversed(range(place)):
                before = figures[earlier][0]
                if before is not None and before > db + 3:
                    break
                first = first if before is None else str(earlier)
        expected[str(place)] = first
    assert first_seen(*layers) == expected
    assert first_seen(*(replace(each, inputs=None) for each in layers)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_ten_thousand_layers_without_figures_are_not_too_many(named: bool) -> None:
    names = [str(i) for i in range(10_000)]
    torn = [
        LayerReport(name, inputs=[before] if named else None) for before, name in pairwise(names)
    ]
    last = with_origins([layer("0", model_db=20.0), *torn, layer("y", names[-1], **BAD)])[-1]
    assert last.diagnosis is not None
    assert last.diagnosis.evidence.endswith("seen first at '0'")
