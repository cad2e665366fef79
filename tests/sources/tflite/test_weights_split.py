"""The carried error of an operator, split: what its weights bring, and what its kernel does."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import qdebug
from qdebug.sources.tflite.run import Kernels
from tests import oracle
from tests.paths import DATA
from tests.sources.tflite.models import FLOAT, INPUTS, INT8, branch_inputs, read_directly

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from qdebug.sources.tflite.model import read_model  # noqa: E402

PAIR = (FLOAT, INT8)


@pytest.fixture(scope="module")
def live() -> qdebug.Report:
    return qdebug.analyze(*PAIR, inputs=INPUTS, samples=8)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captured") / "pairs.npz"
    assert not qdebug.capture(*PAIR, path=path, inputs=INPUTS, samples=8)
    return path


def test_a_dense_layer_agrees_with_plain_arithmetic(live: qdebug.Report) -> None:
    quantized, floats = (read_model(str(path)).graph for path in (INT8, FLOAT))
    dense = next(o for o in quantized.operators if o.op == "FULLY_CONNECTED")
    theirs = next(o for o in floats.operators if o.op == "FULLY_CONNECTED")
    with np.load(INPUTS) as file:
        images = file[file.files[0]][:8]
    detail = quantized.tensors[quantized.inputs[0]].quantization
    assert detail is not None
    given = np.clip(np.round(images / detail.scale[0]) + detail.zero_point[0], -128, 127)
    values = read_directly(INT8, given.astype(np.int8))

    def real(index: int, codes: np.ndarray) -> np.ndarray:
        q = quantized.tensors[index].quantization
        assert q is not None
        scale = q.scale[:, None] if codes.ndim > 1 and q.scale.size > 1 else q.scale
        return (codes.astype(float) - int(q.zero_point[0])) * scale

    x = real(dense.inputs[0], values[dense.inputs[0]])
    ours = [real(i, quantized.tensors[i].constant()) for i in dense.inputs[1:]]
    own = [floats.tensors[i].constant().astype(float) for i in theirs.inputs[1:]]
    output = quantized.tensors[dense.outputs[0]]
    assert output.quantization is not None
    expected = oracle.figures(
        x @ own[0].T + own[1],
        values[output.index].astype(np.int8),
        output.quantization.scale,
        output.quantization.zero_point,
        weights_float=x @ ours[0].T + ours[1],
    )
    found = live[output.name].metrics
    assert found is not None
    for name in ("weights_rmse_scale", "arithmetic_rmse_scale", "carried_rmse_scale"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-4, abs=1e-4)
    assert found.weights_rmse_scale is not None
    assert found.weights_rmse_scale > 0.1


def test_an_operator_without_weights_has_only_arithmetic(live: qdebug.Report) -> None:
    for layer in live:
        m = layer.metrics
        assert m is not None
        if layer.op in ("ADD", "AVERAGE_POOL_2D", "MEAN", "SOFTMAX"):
            assert m.weights_rmse_scale == 0
            assert m.arithmetic_rmse_scale == m.carried_rmse_scale
        elif layer.kind != "activation" or layer.op is None:
            assert (m.weights_rmse_scale, m.arithmetic_rmse_scale) == (None, None)


def test_the_weights_at_fault_are_named(live: qdebug.Report) -> None:
    tail = next(layer for layer in live if "tail_relu" in layer.name and layer.kind == "activation")
    diagnosis = tail.diagnosis
    assert diagnosis is not None
    assert diagnosis.cause == "weights"
    assert "the operator's quantized weights move its output by 0.501 steps" in diagnosis.evidence
    assert "'digits_1/tail_conv_1/convolution' has " in diagnosis.evidence
    assert "'digits_1/tail_conv_1/convolution'" in diagnosis.advice


def test_a_captured_file_says_the_same(live: qdebug.Report, captured: Path) -> None:
    stored = qdebug.analyze(captured)
    for layer in live:
        ours, theirs = stored[layer.name].metrics, layer.metrics
        assert ours is not None
        assert theirs is not None
        for name in ("weights_rmse_scale", "arithmetic_rmse_scale"):
            expected = getattr(theirs, name)
            assert getattr(ours, name) == (
                None if expected is None else pytest.approx(expected, rel=1e-9)
            )
    with np.load(captured) as pairs:
        pool, dense = (
            next(n for n in pairs.files if key in n and n.endswith("/weights_float"))
            for key in ("AvgPool", "logits_1/MatMul;")
        )
        assert pairs[pool].shape == (0,)  # the same as the floats
        assert pairs[dense].shape == (8, 10)
        assert not any(n.startswith("serving_default") and "weights" in n for n in pairs.files)


def test_a_faulty_kernel_is_told_from_weights(captured: Path, tmp_path: Path) -> None:
    """Codes that are off by up to three steps at random are not what the weights bring."""
    with np.load(captured) as pairs:
        arrays = dict(pairs)
    name = next(
        n
        for n in arrays
        if n.startswith("digits_1/block_pw_bn_1/")
        and n.endswith("/quantized")
        and arrays[n.replace("/quantized", "/kind")] == "activation"
    )
    noise = np.random.default_rng(0).integers(-3, 4, size=arrays[name].shape)
    arrays[name] = np.clip(arrays[name] + noise, -128, 127).astype(np.int8)
    path = tmp_path / "faulty.npz"
    np.savez(path, **arrays)
    layer = qdebug.analyze(path)[name.removesuffix("/quantized")]
    assert layer.diagnosis is not None
    assert layer.diagnosis.cause == "arithmetic"
    assert "qdebug replay" in layer.diagnosis.advice
    assert layer.metrics is not None
    assert layer.metrics.arithmetic_rmse_scale == pytest.approx(2, abs=0.3)  # sqrt((9+4+1)*2/7)


def test_pairs_that_do_not_tell_stay_carried(captured: Path, tmp_path: Path) -> None:
    with np.load(captured) as pairs:
        arrays = {n: pairs[n] for n in pairs.files if not n.endswith("/weights_float")}
    path = tmp_path / "plain.npz"
    np.savez(path, **arrays)
    causes = {layer.diagnosis.cause for layer in qdebug.analyze(path) if layer.diagnosis}
    assert "carried" in causes
    assert not causes & {"weights", "arithmetic"}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", get_args(Kernels))
@pytest.mark.parametrize("name", ["int8", "pertensor", "uint8", "partly", "mixed"])
def test_sound_kernels_raise_no_alarm(name: str, kernels: Kernels, tmp_path: Path) -> None:
    """Whatever they read: floats that are quantized for them, codes, or both."""
    pair = DATA / "branches_float.tflite", DATA / f"branches_{name}.tflite"
    report = qdebug.analyze(*pair, inputs=branch_inputs(tmp_path), kernels=kernels)
    split = {
        layer.name: layer.metrics.arithmetic_rmse_scale
        for layer in report
        if layer.metrics and layer.metrics.arithmetic_rmse_scale is not None
    }
    assert len(split) >= 5
    assert max(split.values()) < 0.1
    causes = {layer.diagnosis.cause for layer in report if layer.diagnosis}
    assert "weights" in causes
    assert not causes & {"arithmetic", "carried"}
