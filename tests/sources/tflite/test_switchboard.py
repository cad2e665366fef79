"""The switchboard of two LiteRT models: it reproduces both, and what lies between."""

import numpy as np
import pytest

from qdebug.sources.tflite.switchboard import board
from tests.paths import DATA
from tests.sources.tflite.models import FLOAT, INPUTS, INT8, branch_inputs


def digits(**options):
    return board([str(FLOAT), str(INT8)], str(INPUTS), **options)


def branches(folder, quantized):
    files = [str(DATA / f"{name}.tflite") for name in ("branches_float", quantized)]
    return board(files, str(branch_inputs(folder)))


def everything(models):
    return range(len(models.operators))


def sqnr(reference, found):
    """In dB, over all samples of one output, or of several."""
    x, y = (
        np.concatenate([np.ravel(a) for a in values]).astype(float) for values in (reference, found)
    )
    return 10 * np.log10(np.sum(x**2) / max(np.sum((x - y) ** 2), 1e-30))


def compared(models, first, second):
    """SQNR of each output."""
    runs = [(first(sample), second(sample)) for sample in range(models.num_samples)]
    return [
        sqnr([a[place] for a, _ in runs], [b[place] for _, b in runs])
        for place in range(len(models.outputs))
    ]


def test_all_off_is_the_float_model():
    models = digits()
    left = everything(models)
    assert compared(models, models.float_outputs, lambda n: models.run(n, left))[0] > 100


def test_all_on_is_the_quantized_model():
    models = digits()
    assert compared(models, models.quantized_outputs, models.run)[0] > 100


@pytest.mark.parametrize("quantized", ["int8", "int16", "uint8", "pertensor", "mixed", "partly"])
def test_branches_and_all_types_of_codes(tmp_path, quantized):
    models = branches(tmp_path, f"branches_{quantized}")
    assert models.outputs == ("output_1", "output_0")
    left = everything(models)
    assert min(compared(models, models.float_outputs, lambda n: models.run(n, left))) > 100
    assert min(compared(models, models.quantized_outputs, models.run)) > 70
