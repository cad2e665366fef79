"""``qdebug suggest``: how many, of what, and what goes wrong."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES
from tests.reports import figures, layer, saved

Run = Callable[..., Result]

DIGITS = SAMPLES / "digits.npz"


@pytest.mark.slow
def test_top_and_budget_on_the_command_line(qdebug: Run) -> None:
    def names(*options: str) -> list[str]:
        result = qdebug("suggest", DIGITS, "--for", "names", *options)
        assert result.exit_code == 0
        return result.stdout.splitlines()

    everyone = names("--budget", "100%")
    assert len(everyone) == 6  # five convolutions and dense layers, and the softmax at the end
    assert names("--top", "2") == everyone[:2]
    assert names() == names("--budget", "0.8") == names("--budget", "80%")
    assert names("--budget", "0") == []
    assert names("--budget", "80%", "--top", "1") == everyone[:1]


@pytest.mark.slow
def test_the_table_says_who_why_and_how_much(qdebug: Run) -> None:
    result = qdebug("suggest", DIGITS, "--top", "1")
    assert "22.1 %" in result.stdout
    assert "digits_1/stem_relu6_1/Relu6" in result.stdout
    assert "(CONV_2D)" in result.stdout
    assert "weights: the quantizer itself leaves 0.198 steps" in result.stdout
    assert "traced back" in result.stdout


def test_a_tensorflow_csv_can_be_followed(qdebug: Run, tmp_path: Path) -> None:
    path = tmp_path / "stats.csv"
    path.write_text(
        "op_name,tensor_idx,num_elements,stddev,mean_error,max_abs_error,mean_squared_error,scale,"
        "zero_point,tensor_name\n"
        "CONV_2D,1,100,0.1,0,0.3,0.01,0.1,0,conv\nCONV_2D,2,100,0.1,0,0.3,0.04,0.1,0,worse\n"
    )
    result = qdebug("suggest", path, "--for", "tflite", "--budget", "1")
    assert ast.literal_eval(result.stdout) == ["worse", "conv"]


def test_nothing_to_suggest_is_said_and_no_failure(qdebug: Run, tmp_path: Path) -> None:
    path = saved(tmp_path, layer("a", op="ADD", **figures(0.3, 0.3, None)))
    result = qdebug("suggest", path, "--for", "names")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to suggest" in result.stderr


def test_layers_without_figures_are_named(qdebug: Run, tmp_path: Path) -> None:
    path = saved(tmp_path, layer("a", **figures(0.9, 0.3)), layer("b\x1b"))
    result = qdebug("suggest", path)
    assert result.exit_code == 0
    assert "1 layer cannot be ranked, because figures are missing: 'b\\x1b'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "2"), "--budget: found '2', expected a share from 0 to 1"),
        (("--budget", "most"), "--budget: found 'most', expected a share"),
        (("--budget", "-1%"), "--budget: found '-1%', expected a share"),
        (("--budget", "nan"), "--budget: found 'nan', expected a share"),
        (("--top", "0"), "'--top'"),
        (("--for", "torch"), "'--for'"),
        (("--for", "onnxruntime"), "found TFLite's operators (CONV_2D), expected ONNX's"),
        (("-o", "none/list"), "none/list: cannot be written"),
    ],
)
def test_wrong_options_are_explained(
    options: tuple[str, ...], message: str, qdebug: Run, tmp_path: Path
) -> None:
    result = qdebug("suggest", DIGITS, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("form", "source", "node", "message"),
    [
        ("tflite", "m.onnx", ["n"], "m.onnx: found a .onnx source, expected .tflite or .csv"),
        ("ai-edge-quantizer", "m.onnx", ["n"], "m.onnx: found a .onnx source"),
        ("onnxruntime", "m.TFLITE", ["n"], "m.TFLITE: found a .tflite source, expected .onnx"),
        ("onnxruntime", "m.npz", None, "layer 'a': its node's name is unknown"),
        ("onnxruntime", "m.npz", [""], "layer 'a': its node's name is unknown"),
    ],
)
def test_a_report_on_other_models_is_explained(
    form: str, source: str, node: list[str] | None, message: str, qdebug: Run, tmp_path: Path
) -> None:
    entry = layer("a", op="Conv", nodes=node, **figures(0.9, 0.3))
    result = qdebug("suggest", saved(tmp_path, entry, sources=(source,)), "--for", form)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_sources_that_cannot_be_used_are_explained(
    qdebug: Run, tmp_path: Path, write_pairs: Callable[..., Path], healthy: dict[str, Any]
) -> None:
    path = saved(tmp_path, layer("w", "bias", rmse_scale=0.3))
    for args, message in [
        ((path,), "found no operator among the layers"),
        ((tmp_path / "none.json",), "No such file"),
        ((DIGITS, path), "expected it alone"),
        ((DIGITS, "--inputs", DIGITS), "--inputs goes with"),
    ]:
        result = qdebug("suggest", *args)
        assert result.exit_code == 2
        assert message in result.stderr
    broken = write_pairs({"good": healthy, "bad": healthy | {"scale": -1.0}})
    result = qdebug("suggest", broken)
    assert result.exit_code == 2
    assert "layer 'bad'" in result.stderr


@pytest.mark.parametrize("nodes", [np.array([1, 2]), np.array([["a"]]), np.array(b"a")])
def test_nodes_of_a_pair_file_are_texts(
    nodes: Any, qdebug: Run, write_pairs: Callable[..., Path], healthy: dict[str, Any]
) -> None:
    result = qdebug("suggest", write_pairs({"a": healthy | {"nodes": nodes}, "b": healthy}))
    assert result.exit_code == 2
    assert "layer 'a': field 'nodes': found" in result.stderr
    assert "expected text: one, or a list" in result.stderr
