"""ONNX weights with a scale for each block: figures against onnx's own reference evaluator."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests import grid_oracle
from tests.sources.onnx.blocks import CODES, pair, quantized
from tests.sources.onnx.models import TensorProto, helper, onnx, report_of


def decoded_by_onnx(folder):
    """What onnx's reference evaluator makes of the weight."""
    model = onnx.load(folder / "q.onnx")
    del model.graph.node[1], model.graph.output[0]
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, None))
    (found,) = ReferenceEvaluator(model).run(None, {"x": np.zeros((1, 1), np.float32)})
    return found.astype(np.float64)


def values_of_blocks(shape, axis, block, scale, zero, low, high):
    """For each element, all values that its block can represent."""
    tables = np.empty(shape, object)
    for place in np.ndindex(shape):
        of = tuple(n // block if i == axis else n for i, n in enumerate(place))
        tables[place] = [float(scale[of]) * (q - zero[of]) for q in range(low, high + 1)]
    return tables


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("block", [4, 5])  # 5: the last block is shorter
def test_figures_are_those_of_the_reference_evaluator(
    opened, tmp_path, name, axis, symmetric, block
):
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(8, 12)).astype(np.float32)
    kind, low, high = CODES[name]
    codes, scale, zero = quantized(weight, axis, block, low, high, symmetric)
    given = None if symmetric and low else zero
    pair(tmp_path, weight, codes, scale, given, kind, axis, block)
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert (layer.name, layer.shape, layer.kind, layer.op) == ("w", [8, 12], "weight", "MatMul")
    assert layer.grid == f"{name}, blocks of {block} along axis {axis}"
    assert (layer.dtype, layer.bits, layer.scale, layer.zero_point) == (None,) * 4
    assert layer.diagnosis.verdict == "ok"

    if block == 4:  # the evaluator of onnx 1.23 does not know shorter blocks
        d = decoded_by_onnx(tmp_path)
    else:
        d = (codes - each(zero, weight.shape, axis, block)) * each(scale, weight.shape, axis, block)
    tables = values_of_blocks(weight.shape, axis, block, scale, zero, low, high)
    whole = grid_oracle.figures(weight.ravel(), d.ravel(), tables.ravel())
    grid_oracle.assert_same(layer.metrics, whole, 1e-5, 1e-5)
    assert layer.axis == 1 - axis
    assert len(layer.channels) == weight.shape[1 - axis]
    for index, channel in enumerate(layer.channels):
        of = [np.take(values, index, 1 - axis) for values in (weight, d, tables)]
        grid_oracle.assert_same(channel.metrics, grid_oracle.figures(*of), 1e-5, 1e-5)


def each(values, shape, axis, block):
    """One value for each element."""
    found = np.empty(shape)
    for place in np.ndindex(shape):
        found[place] = values[tuple(n // block if i == axis else n for i, n in enumerate(place))]
    return found


@pytest.mark.parametrize(
    ("factor", "steps", "cause"),
    [(1.2, 0, "wrong-scale"), (0.8, 0, "wrong-scale"), (1, 1, "bias"), (1, 0, "ok")],
)
def test_faults_of_blocks_are_named(opened, tmp_path, factor, steps, cause):
    weight = np.random.default_rng(0).normal(size=(256, 16)).astype(np.float32)
    codes, scale, zero = quantized(weight, 0, 32, 0, 15, symmetric=False)
    pair(tmp_path, weight, codes, scale * np.float32(factor), np.clip(zero + steps, 0, 15),
         TensorProto.UINT4, 0, 32)  # fmt: skip
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert layer.diagnosis.cause == cause, layer.diagnosis.evidence


def test_a_scale_that_is_not_finite_is_told_and_the_rest_is_measured(opened, tmp_path):
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    codes, scale, _ = quantized(weight, 0, 32, -8, 7, symmetric=True)
    scale[0, 0] = np.nan
    pair(tmp_path, weight, codes, scale, None, TensorProto.INT4, 0, 32)
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert layer.metrics.non_finite == 32
    assert layer.metrics.num_elements == 256 - 32
    assert layer.metrics.times_expected == pytest.approx(1, abs=0.2)
    assert (layer.diagnosis.verdict, layer.diagnosis.cause) == ("bad", "non-finite")


@pytest.mark.parametrize(("block", "blocks"), [(32, 3), (0, 2), (-1, 2)])
def test_blocks_that_do_not_fit_are_one_line(opened, tmp_path, block, blocks):
    weight = np.ones((64, 4), np.float32)
    scale = np.ones((blocks, 4), np.float32)
    pair(tmp_path, weight, np.ones((64, 4), int), scale, None, TensorProto.INT4, 0, block)
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert layer.diagnosis.verdict == "unreadable"
    assert "field '" in layer.diagnosis.evidence


@pytest.mark.parametrize("shape", [(0, 4), (64, 0)])
def test_weights_without_elements_have_no_figures(opened, tmp_path, shape):
    weight = np.ones(shape, np.float32)
    scale = np.ones((shape[0] // 32, shape[1]), np.float32)
    pair(tmp_path, weight, weight.astype(int), scale, None, TensorProto.INT4, 0, 32)
    (layer,) = report_of(opened(tmp_path / "q.onnx", tmp_path / "f.onnx", None)).values()
    assert (layer.metrics.num_elements, layer.metrics.times_expected) == (0, None)
    assert layer.diagnosis.evidence == "no elements"
