"""An ONNX network in float and quantized in every form, on disk."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths: of the float model, of each quantized one, of the inputs."""
    # Here, so that the packages may be missing.
    from onnxruntime.quantization import quantize_dynamic

    from tests.sources.onnx.models import (
        SAMPLES,
        STATIC,
        Calibration,
        QuantFormat,
        QuantType,
        network,
        onnx,
        quantize_static,
    )

    folder = tmp_path_factory.mktemp("onnx")
    onnx.save(network(), folder / "float.onnx")
    for name, options in STATIC.items():
        options = {"quant_format": QuantFormat.QDQ, **options}
        quantize_static(folder / "float.onnx", folder / f"{name}.onnx", Calibration(), **options)
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", weight_type=QuantType.QUInt8)
    rng = np.random.default_rng(11)
    np.save(folder / "x.npy", rng.normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32))
    return folder


@pytest.fixture
def opened(models):
    from qdebug.sources.onnx.source import OnnxModels

    def open_pair(quantized="qdq-int8", floating="float", inputs="x.npy", **options):
        paths = [
            str(p) if isinstance(p, Path) else str(models / f"{p}.onnx")
            for p in (floating, quantized)
        ]
        return OnnxModels(paths, inputs and str(models / inputs), **options)

    return open_pair
