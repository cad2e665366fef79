"""The diagnosis of a layer does not depend on which layers are shown."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug import Pair, save_pairs
from qdebug.advise.whatif import explore
from qdebug.measure.layer import Layer, Part
from qdebug.report.graph import surroundings
from qdebug.report.report import LayerReport, Report, with_origins
from qdebug.run.session import Session
from qdebug.sources.pair_file.memory import MemoryPairs
from qdebug.sources.pair_file.read import PairFiles
from tests.report.test_upstream import layer_norm, pair  # noqa: F401


def shown(report: Report) -> dict[str, LayerReport]:
    return {layer.name: replace(layer, slices=None) for layer in report.layers}


class Reading(MemoryPairs):
    """Remembers what was read."""

    def parts(self, layers: "list[Layer]") -> "list[Part]":  # type: ignore[override]
        self.read = [*getattr(self, "read", []), *(layer.name for layer in layers)]
        return list(super().parts(layers))


@pytest.mark.parametrize("named", [True, False])
def test_a_layer_shown_alone_has_the_diagnosis_of_the_whole_report(
    layer_norm: dict[str, Pair],  # noqa: F811
    named: bool,
) -> None:
    pairs = layer_norm if named else {n: replaced(p, inputs=None) for n, p in layer_norm.items()}
    whole = shown(Session(MemoryPairs(pairs)).report())
    assert whole["inverse"].diagnosis.cause == "inherited"  # type: ignore[union-attr]
    for name in pairs:
        assert shown(Session(MemoryPairs(pairs)).report([name])) == {name: whole[name]}
        explained, _ = explore(Session(MemoryPairs(pairs)), [name])
        assert shown(explained) == {name: whole[name]}


def replaced(old: Pair, **changes: object) -> Pair:
    fields = {"model_float": old.model_float, "op": old.op, "inputs": old.inputs} | changes
    return Pair(old.floats, old.codes, old.scale, old.zero_point, **fields)  # type: ignore[arg-type]


def test_only_what_matters_is_read(layer_norm: dict[str, Pair]) -> None:  # noqa: F811
    after = layer_norm["scaled"]
    pairs = layer_norm | {"after": replaced(after, inputs=("scaled",), op="Conv")}
    source = Reading(pairs)
    Session(source).report(["x"])
    assert sorted(source.read) == ["inverse", "scaled", "variance", "x"]  # no layer is read twice


def test_of_plain_pairs_only_the_layers_shown_are_read(layer_norm: dict[str, Pair]) -> None:  # noqa: F811
    plain = {
        name: replaced(p, inputs=None, op=None, model_float=None) for name, p in layer_norm.items()
    }
    source = Reading(plain)
    assert shown(Session(source).report(["inverse"])).keys() == {"inverse"}
    assert source.read == ["inverse"]


def test_trouble_with_layers_that_are_not_shown_is_not_told(
    tmp_path: Path,
    layer_norm: dict[str, Pair],  # noqa: F811
) -> None:
    path = tmp_path / "pairs.npz"
    save_pairs(path, layer_norm)
    content = dict(np.load(path))
    content["variance/quantized"] = content["variance/quantized"][:-1]
    np.savez(path, **content)
    session = Session(PairFiles([str(path)]))
    assert len(session.report().complaints) == 1
    assert session.report(["inverse"]).complaints == []


OPERATORS = ("Conv", "Add", "Concat", "Reshape", "Mul")


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_in_any_network_any_selection_gives_the_same(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    pairs: dict[str, Pair] = {}
    for place in range(count):
        before = [f"l{each}" for each in range(place) if rng.random() < 0.5]
        model = rng.normal(size=200) * 10.0 ** rng.integers(-3, 1, 200)
        arrived = model + rng.choice([0, 0.01, 1.0]) * rng.normal(size=200)
        arrived[0] = rng.choice([0, np.inf])
        reach = rng.choice([0.1, 1.0, 1000.0])
        made = pair(arrived, model, str(rng.choice(OPERATORS)), *before, low=-reach, high=reach)
        unknown: Mapping[str, object] = {"inputs": None} if rng.random() < 0.2 else {}
        pairs[f"l{place}"] = replaced(made, **unknown)
    whole = shown(Session(MemoryPairs(pairs)).report())
    some = random.Random(seed).sample(sorted(pairs), max(1, count // 3))
    found = shown(Session(MemoryPairs(pairs)).report(some))
    assert found == {name: whole[name] for name in whole if name in some}


def test_surroundings_are_what_feeds_the_layers_and_what_reads_them() -> None:
    layers = [
        LayerReport("w", kind="weight", inputs=[]),
        LayerReport("x", inputs=[]),
        LayerReport("y", inputs=["x", "w"]),
        LayerReport("side", inputs=[]),
        LayerReport("before", inputs=[]),
        LayerReport("other", inputs=["before"]),
        LayerReport("sum", inputs=["y", "other"]),
        LayerReport("after", inputs=["sum"]),
    ]
    assert surroundings(layers, {"y"}) == {"w", "x", "sum", "other"}
    assert surroundings(layers, {"side"}) == set()
    assert with_origins(layers) == layers
