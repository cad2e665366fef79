"""A pair of ONNX models as a source: what is asked of it, in whatever form it is stored."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.report.json import dumps, loads
from qdebug.run import session
from tests.sources.onnx.models import (
    NODE,
    SAMPLES,
    TensorProto,
    made,
    message,
    numpy_helper,
    onnx,
    report_of,
)
from tests.visits import blocks_of


# What is asked for, and no more
def test_samples_are_merged_one_by_one(models, opened):
    assert opened(samples=2).samples.count == 2
    for name in ("qdq-int8", "qop-int8"):
        layer = report_of(opened(name, samples=3), "r1")["r1"]
        assert layer.metrics.num_elements == 3 * 8 * 8 * 8
        assert layer.shape == [1, 8, 8, 8]


def test_parts_hold_what_is_asked_for(opened):
    source = opened()
    by_name = {layer.name: layer for layer in source.layers}
    (part,) = source.parts([by_name["r1"], by_name["p"]])
    blocks = blocks_of(part)
    assert [layer.name for layer, _ in blocks] == ["r1", "p"] * SAMPLES
    assert all(block.floats.ndim == 3 for _, block in blocks)
    parts = source.parts([by_name["w1"], by_name["bf"]])
    assert [[layer.name for layer in part.layers] for part in parts] == [["w1"], ["bf"]]
    assert source.parts([]) == []


def test_one_layer_has_the_figures_that_it_has_among_all(opened):
    whole = report_of(opened("qop-per-channel"))
    for name in ("r1", "wf", "l"):
        alone = report_of(opened("qop-per-channel"), name)[name]
        assert (alone.metrics, alone.channels) == (whole[name].metrics, whole[name].channels)


@pytest.mark.slow
def test_without_inputs_there_are_weights_and_biases(opened):
    for name in ("qdq-int8", "qdq-float-weights", "qop-int8", "dynamic"):
        source = opened(name, inputs=None)
        assert "no inputs: weights and biases only" in source.notes
        assert source.samples is None
        whole = report_of(opened(name))
        found = report_of(source)
        assert found == {n: r for n, r in whole.items() if r.kind != "activation"}


def test_the_report_goes_to_json_and_back(opened):
    report = session.run(opened("qdq-int4-weights"))
    assert loads(dumps(report), "r.json") == report
    assert not report.complaints


# Forms of storage


@pytest.mark.slow
def test_data_in_other_files_is_found_from_any_folder(models, opened, tmp_path, monkeypatch):
    for name in ("float", "qdq-int8"):
        (tmp_path / name).mkdir()
        model = onnx.load(models / f"{name}.onnx")
        onnx.save(
            model, tmp_path / name / "model.onnx", save_as_external_data=True,
            location="weights.bin", size_threshold=0,
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = opened(Path("qdq-int8/model.onnx"), Path("float/model.onnx"))
    assert report_of(source) == report_of(opened())
    (tmp_path / "float" / "weights.bin").unlink()
    with pytest.raises(QdebugError, match=r"float/model\.onnx.*weights\.bin"):
        opened(Path("qdq-int8/model.onnx"), Path("float/model.onnx"))


@pytest.mark.slow
def test_inputs_may_be_codes_in_the_quantized_model(models, opened, tmp_path):
    for name in ("qdq-int8", "qop-uint8"):
        model = onnx.load(models / f"{name}.onnx")
        (quantizer,) = (n for n in model.graph.node if n.op_type == "QuantizeLinear" and
                        n.input[0] == "x")  # fmt: skip
        codes = quantizer.output[0]
        model.graph.node.remove(quantizer)
        model.graph.input[0].name = codes
        integer = TensorProto.INT8 if name == "qdq-int8" else TensorProto.UINT8
        model.graph.input[0].type.tensor_type.elem_type = integer
        onnx.save(model, tmp_path / "q.onnx")
        source = opened(tmp_path / "q.onnx")
        assert report_of(source) == report_of(opened(name))


@pytest.mark.slow
def test_constants_may_be_operators(models, opened, tmp_path):
    model = onnx.load(models / "qdq-per-channel.onnx")
    held = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in held:
        model.graph.node.insert(0, NODE("Constant", [], [tensor.name], value=tensor))
    onnx.save(model, tmp_path / "q.onnx")
    assert report_of(opened(tmp_path / "q.onnx")) == report_of(opened("qdq-per-channel"))


def test_weights_packed_for_one_operator_are_said_to_be(opened, tmp_path):
    rng = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(rng.integers(0, 256, (8, 2, 8), np.uint8), "packed"),
        numpy_helper.from_array(np.ones(16, np.float32), "scales"),
    ]
    shapes = {"x": [1, 32]}, {"y": [1, 8]}
    node = NODE(
        "MatMulNBits", ["x", "packed", "scales"], ["y"], domain="com.microsoft",
        K=32, N=8, bits=4, block_size=16,
    )  # fmt: skip
    onnx.save(made([node], *shapes, stored), tmp_path / "q.onnx")
    weight = numpy_helper.from_array(rng.normal(size=(32, 8)).astype(np.float32), "w")
    floating = made([NODE("MatMul", ["x", "w"], ["y"])], *shapes, [weight])
    onnx.save(floating, tmp_path / "f.onnx")
    said = message(opened, tmp_path / "q.onnx", tmp_path / "f.onnx", None)
    assert "'packed': weights packed for MatMulNBits are not read" in said


# The extra


@pytest.mark.slow
def test_the_source_is_imported_without_the_packages():
    code = (
        "import sys, qdebug.sources.onnx.source as s;"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": ""})


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line_that_says_what_to_install(opened, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert message(opened) == "ONNX models need an extra: pip install 'qdebug[onnx]'"
