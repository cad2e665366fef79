"""TFLite's debug mode: models with NumericVerify operators."""

import pytest

from qdebug.run import session
from qdebug.sources.tflite.source import LitertModels
from tests.paths import DATA
from tests.sources.tflite.models import branch_inputs, branches


def test_debug_models_are_read_from_their_verify_pairs(tmp_path):
    inputs = branch_inputs(tmp_path)
    models = LitertModels([str(DATA / "branches_debug.tflite")], str(inputs))
    twin = branches(tmp_path, "branches_mixed")
    assert models.skipped == []
    ours, theirs = session.run(models).layers, session.run(twin).layers
    assert [(row.op, row.kind) for row in ours] == [(row.op, row.kind) for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our.metrics.rmse_scale == pytest.approx(their.metrics.rmse_scale, 1e-3, 1e-6)
        assert our.metrics.model_rmse_scale is None


def test_a_debug_model_beside_its_float_model_is_a_quantized_model(tmp_path):
    models = branches(tmp_path, "branches_debug")
    assert len(models.notes) == 1
    assert "NumericVerify operators are left out" in models.notes[0]
    ours, theirs = (
        session.run(models).layers,
        session.run(branches(tmp_path, "branches_mixed")).layers,
    )
    for our, their in zip(ours, theirs, strict=True):
        for figure in ("rmse_scale", "model_rmse_scale"):
            expected = getattr(their.metrics, figure)
            assert (getattr(our.metrics, figure) or 0) == pytest.approx(expected or 0, 1e-3, 1e-6)
