"""What if, where the codes do the work of a ReLU: held against the changed model itself."""

from pathlib import Path

import numpy as np
import pytest

from qdebug.advise.remedy import recommend
from qdebug.advise.whatif import explore
from qdebug.render.explain import explained
from qdebug.run.session import Session, run
from qdebug.sources.onnx.source import OnnxModels
from tests.sources.onnx.models import numpy_helper, onnx

RELU = "r1"


def what_if(source, name=RELU):
    return explore(Session(source), [name])[1][name]


def with_params(path: Path, params, target: Path) -> Path:
    """The model with another scale and zero point for the output of the ReLU that it dropped."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        for ending, value in (("scale", params.scale[0]), ("zero_point", params.zero_point[0])):
            if tensor.name == f"{RELU}_{ending}":
                dtype = numpy_helper.to_array(tensor).dtype
                tensor.CopyFrom(numpy_helper.from_array(np.array(value, dtype), tensor.name))
    onnx.save(model, target)
    return target


@pytest.mark.slow
def test_a_range_that_reaches_below_zero_needs_the_relu(
    models: Path, opened, tmp_path: Path
) -> None:
    found = what_if(opened("qdq-int8"))
    rmse = {}
    for each in found.alternatives:
        if each.change in ("range", "symmetry"):
            changed = with_params(models / "qdq-int8.onnx", each.params, tmp_path / "changed.onnx")
            source = OnnxModels([str(models / "float.onnx"), str(changed)], str(models / "x.npy"))
            (layer,) = run(source, [RELU]).layers
            rmse[each.name] = layer.metrics.rmse / each.metrics.rmse, each.needs_clamp
    assert {name for name, (_, marked) in rmse.items() if marked} == {"symmetric"}
    for name, (ratio, marked) in rmse.items():
        if marked:
            assert ratio > 10, name  # what the ReLU stopped gets through
        else:
            assert ratio == pytest.approx(1, rel=1e-5), name  # as predicted
    assert not any(each.needs_clamp for each in what_if(opened("qdq-keeps-relu")).alternatives)


@pytest.mark.slow
def test_the_screen_marks_it_and_it_is_not_recommended(opened) -> None:
    session = Session(opened("qdq-int8"))
    report, found = explore(session, [RELU])
    screen = explained(report.layers[0], found[RELU], 100)
    assert "min/max symmetric †" in screen
    assert "† only if the ReLU (or Clip) is an operator of its own" in screen
    assert recommend(found[RELU]).alternative not in ("symmetric", "int16")
    screen = explained(*_of(session, "c2"), 100)
    assert "†" not in screen


def _of(session, name):
    report, found = explore(session, [name])
    return report.layers[0], found[name]
