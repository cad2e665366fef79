"""The figures of LiteRT models against those of TensorFlow's own QuantizationDebugger.

TensorFlow's figures of one network are checked in; where TensorFlow is installed, it makes them
again. TensorFlow averages the figures of single samples. All samples have the same size, so its
`mean_error` and `mean_squared_error` are those of all elements; `stddev` and `max_abs_error` are
not.
"""

import importlib.util
import json
import platform
import subprocess
import sys
import zlib

import numpy as np
import pytest

from qdebug.run import session
from tests.paths import DATA
from tests.sources.tflite.models import LitertModels, arrays

GOLDEN = DATA / "quantization_debugger"
FORMS = [["float", "int8"], ["debug"], ["float", "debug"]]
# In steps. More than float32 leaves in the mean of a layer, and in one element.
MEAN_AGREES, ELEMENT_AGREES = 1e-6, 1e-5

with_tensorflow = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """What TensorFlow says now; in a process of its own, for it warns of itself on import."""
    folder = tmp_path_factory.mktemp("debugger")
    subprocess.run(
        [sys.executable, str(GOLDEN / "make.py"), str(folder)], capture_output=True, check=True
    )
    return folder


def opened(folder, models, inputs=None):
    paths = [str(folder / f"{name}.tflite") for name in models]
    return LitertModels(paths, str(inputs or folder / "inputs.npy"))


def compared(layers):
    """Those that NumericVerify compares."""
    return [layer for layer in layers if layer.kind == "activation" and layer.op != "QUANTIZE"]


def tensorflows(folder):
    known = json.loads((folder / "layers.json").read_text())
    assert len(known["layers"]) == 9
    return known["samples"], known["layers"]


def skip_where_kernels_compute_other_codes(folder):
    """Integer kernels may round a tie otherwise on another kind of processor."""
    source = opened(folder, ["debug"])
    codes = arrays(source)
    found = [zlib.crc32(codes[layer.name][1].tobytes()) for layer in compared(source.layers)]
    other = [layer["codes_crc32"] for layer in tensorflows(folder)[1]] != found
    if other and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("this processor's kernels compute other codes")
    assert not other


def assert_agrees(folder, models):
    samples, expected = tensorflows(folder)
    found = compared(session.run(opened(folder, models)).layers)
    assert [layer.scale for layer in found] == [layer["scale"] for layer in expected]
    for ours, theirs in zip(found, expected, strict=True):
        step, rmse = theirs["scale"], theirs["mean_squared_error"] ** 0.5
        print(f"{ours.op:20} {ours.metrics.rmse_scale:.6f} {rmse / step:.6f}")
        assert ours.metrics.num_elements == samples * theirs["num_elements"]
        assert abs(ours.metrics.rmse_scale - rmse / step) < MEAN_AGREES
        assert abs(ours.metrics.mean_error_scale - theirs["mean_error"] / step) < MEAN_AGREES


@pytest.mark.parametrize("models", FORMS, ids="+".join)
def test_figures_are_those_that_the_quantization_debugger_had(models):
    skip_where_kernels_compute_other_codes(GOLDEN)
    assert_agrees(GOLDEN, models)


@pytest.mark.slow
def test_figures_of_each_sample_average_to_those_of_the_quantization_debugger(tmp_path):
    skip_where_kernels_compute_other_codes(GOLDEN)
    samples, expected = tensorflows(GOLDEN)
    found = []
    for sample in np.load(GOLDEN / "inputs.npy"):
        np.save(tmp_path / "sample.npy", sample[None])
        report = session.run(opened(GOLDEN, ["float", "int8"], tmp_path / "sample.npy"))
        found.append([layer.metrics for layer in compared(report.layers)])
    assert len(found) == samples
    for ours, theirs in zip(zip(*found, strict=True), expected, strict=True):
        for name in ("stddev", "max_abs_error"):
            difference = np.mean([getattr(metrics, name) for metrics in ours]) - theirs[name]
            assert abs(difference) < ELEMENT_AGREES * theirs["scale"], name


@pytest.mark.parametrize(
    "models", [pytest.param(form, marks=with_tensorflow) for form in FORMS], ids="+".join
)
def test_every_layer_has_the_figures_of_the_quantization_debugger(live, models):
    assert_agrees(live, models)
