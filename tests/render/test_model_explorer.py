"""Node data for Model Explorer: a figure and a colour for each activation, by tensor name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.paths import SAMPLES

Run = Callable[..., Result]
FAULTY = SAMPLES / "digits_faulty.npz"
ADD = "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"


def data(qdebug: Run, tmp_path: Path, *args: object) -> dict:
    path = tmp_path / "nodes.json"
    form = ("--format", "model-explorer", "-o", path)
    assert qdebug("report", FAULTY, *form, *args).exit_code == 0
    return json.loads(path.read_text())


def test_each_activation_has_its_figure_and_the_colour_of_its_verdict(
    qdebug: Run, tmp_path: Path
) -> None:
    found = data(qdebug, tmp_path)
    assert found["name"] == "qdebug: times expected"
    assert len(found["results"]) == 10
    assert found["results"][ADD] == {"value": 82.7, "bgColor": "#d55e00", "textColor": "#ffffff"}
    assert found["results"]["digits_1/gap_1/Mean"]["bgColor"] == "#cfe6f5"


def test_another_figure(qdebug: Run, tmp_path: Path) -> None:
    found = data(qdebug, tmp_path, "--metric", "sqnr_db")
    assert found["name"] == "qdebug: SQNR [dB]"
    assert found["results"][ADD]["value"] == 15.6


def test_names_are_those_of_the_models_output_tensors(qdebug: Run, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from qdebug.sources.tflite.model import read_model

    graph = read_model(str(SAMPLES / "digits_int8.tflite")).graph
    outputs = {graph.tensors[i].name for operator in graph.operators for i in operator.outputs}
    inputs = {graph.tensors[i].name for i in graph.inputs}
    assert data(qdebug, tmp_path)["results"].keys() == outputs | inputs


def test_model_explorers_own_types_take_it(qdebug: Run, tmp_path: Path) -> None:
    builder = pytest.importorskip("model_explorer.node_data_builder")
    found = data(qdebug, tmp_path)
    results = {name: builder.NodeDataResult(**each) for name, each in found["results"].items()}
    graph = builder.GraphNodeData(name=found["name"], results=results)
    again = json.loads(graph.to_json_string())
    assert {name: again[name] for name in found} == found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--metric", "sqnr_db"), "--metric goes with model-explorer"),
        (("--format", "model-explorer", "--metric", "cause"), "expected a figure of the report"),
        (("--format", "model-explorer", "--metric", "nothing"), "found 'nothing'"),
        (("--format", "model-explorer", "--columns", "layer"), "cannot be used with"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    args: tuple[str, ...], message: str, qdebug: Run
) -> None:
    result = qdebug("report", FAULTY, *args)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
