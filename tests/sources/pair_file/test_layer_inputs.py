"""Pair files and reports keep the names of the layers that feed a layer."""

import json
from pathlib import Path

import numpy as np
import pytest

from qdebug.report.json import dumps, loads
from qdebug.run.session import run
from qdebug.sources.pair_file.read import PairFiles

TESTS = Path(__file__).parent.parent.parent
DATA, SAMPLES = TESTS / "data", TESTS.parent / "sample_models"
DIGITS = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]


def fed_by(source):
    return {layer.name: layer.inputs for layer in source.layers}


def short(name):
    """The name without what the converter writes around it: net_1/left_1/Relu6;... -> left."""
    return name.split("/")[1].removesuffix("_1") if name.startswith("net_1/") else name


@pytest.mark.slow
def test_a_pair_file_and_a_saved_report_keep_them(qdebug, tmp_path):
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs qdebug[litert]")
    pairs, saved = tmp_path / "pairs.npz", tmp_path / "report.json"
    live = (*DIGITS, "--inputs", SAMPLES / "digits_inputs.npz")
    assert qdebug("capture", *live, "-o", pairs).exit_code == 0
    assert qdebug("report", *live, "-o", saved).exit_code == 0
    report = loads(saved.read_text(), "report.json")
    assert all(layer.inputs is not None for layer in report.layers)
    captured = run(PairFiles([str(pairs)]))
    assert [layer.inputs for layer in captured.layers] == [layer.inputs for layer in report.layers]
    assert loads(dumps(report), "again").layers == report.layers
    with np.load(pairs) as arrays:
        (nothing,) = {arrays[key].size for key in arrays if key == "serving_default_image:0/inputs"}
    assert nothing == 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (np.array(["a", "b/c"]), ("a", "b/c")),
        (np.array("a"), ("a",)),
        (np.array([], dtype=np.str_), ()),
        (np.array([""]), ("",)),
    ],
)
def test_a_pair_files_inputs_are_a_name_or_a_list(written, read, write_pairs, healthy):
    path = write_pairs({"a": healthy, "z": healthy | {"inputs": written}})
    assert fed_by(PairFiles([str(path)])) == {"a": None, "z": read}


@pytest.mark.parametrize("inputs", [np.array([1, 2]), np.array([["a"]]), np.array(b"a")])
def test_a_pair_files_inputs_are_texts(inputs, qdebug, write_pairs, healthy):
    result = qdebug("report", write_pairs({"a": healthy | {"inputs": inputs}, "b": healthy}))
    assert result.exit_code == 2
    assert "layer 'a': field 'inputs': found" in result.stderr
    assert "expected text: one, or a list" in result.stderr


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"inputs": np.array(["c"])}, "found ['c']"),
        ({"inputs": np.array(["c", "b"])}, "found ['c', 'b']"),
        ({"inputs": np.array([], dtype=np.str_)}, "found []"),
        ({}, "found nothing"),
    ],
)
def test_shards_must_agree_on_them(other, found, qdebug, write_pairs, healthy):
    one = write_pairs({"a": healthy | {"inputs": np.array(["b", "c"])}, "b": healthy}, "1.npz")
    two = write_pairs({"a": healthy | other, "b": healthy}, "2.npz")
    result = qdebug("report", one, two)
    assert result.exit_code == 2
    expected = f"layer 'a': field 'inputs': {found}, expected ['b', 'c'], as in {one}"
    assert expected in result.stderr


def test_shards_that_agree_are_one_layer(write_pairs, healthy):
    shards = [write_pairs({"a": healthy | {"inputs": np.array(["b"])}}, n) for n in ("1.npz", "2")]
    assert fed_by(PairFiles([str(path) for path in shards])) == {"a": ("b",)}


def test_a_report_without_them_still_loads(write_pairs, healthy):
    report = run(PairFiles([str(write_pairs({"a": healthy | {"inputs": "b"}}))]))
    values = json.loads(dumps(report))
    assert values["layers"][0].pop("inputs") == ["b"]
    (layer,) = loads(json.dumps(values), "old.json").layers
    assert layer.inputs is None
    assert layer.metrics == report.layers[0].metrics
