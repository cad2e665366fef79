"""LiteRT weights with a scale for each block."""

import numpy as np
import pytest

from qdebug.run import session
from tests import grid_oracle
from tests.sources.tflite.models import FLOAT, edited, refused, schema, source

NAME = "digits_1/logits_1/MatMul"
TYPES = {
    "INT4": (-8, 7, np.int8),
    "UINT4": (0, 15, np.uint8),
    "INT8": (-128, 127, np.int8),
}


def weight(model):
    """The tensor and its values, (10, 32)."""
    (found,) = (t for t in model.subgraphs[0].tensors if t.name == NAME.encode())
    return found, model.buffers[found.buffer].data.view("<f4").reshape(10, 32)


def packed(codes):
    """Two codes to a byte, the first in the lower half."""
    flat = codes.reshape(-1).astype(np.uint8) & 15
    return flat[::2] | flat[1::2] << 4


def constant(model, values, kind):
    """A new tensor of these values; returns its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = b"held", kind, np.array(values.shape, np.int32)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def in_blocks(kind, block, zero_points, change=lambda details: None, half=True):
    """A change of the float model: its last weight in blocks; and all that an oracle needs."""
    low, high, dtype = TYPES[kind]
    known = {}

    def apply(model):
        tensor, x = weight(model)
        blocks = -(-32 // block)
        scale, zero = np.zeros((10, blocks), np.float32), np.zeros((10, blocks), np.int64)
        codes = np.zeros((10, 32), np.int64)
        tables = np.empty((10, 32), object)
        for row in range(10):
            for number in range(blocks):
                here = slice(number * block, (number + 1) * block)
                least, most = min(x[row, here].min(), 0), max(x[row, here].max(), 0)
                step = (most - least) / (high - low) if zero_points else max(most, -least) / high
                step = np.float32(np.float16(step)) if half else np.float32(step)
                z = round(low - least / step) if zero_points else 0
                scale[row, number], zero[row, number] = step, z
                codes[row, here] = np.clip(np.rint(x[row, here] / step) + z, low, high)
                lowest = low if zero_points or low == 0 or codes.min() == low else low + 1
                values = [float(step) * (q - z) for q in range(lowest, high + 1)]
                for column in range(32)[here]:
                    tables[row, column] = values
        each = [np.repeat(a, block, axis=1)[:, :32] for a in (scale.astype(float), zero)]
        known.update(x=x.astype(float), d=each[0] * (codes - each[1]), tables=tables)
        details = schema.BlockwiseQuantizationT()
        stored = scale.astype("<f2") if half else scale
        float_type = schema.TensorType.FLOAT16 if half else schema.TensorType.FLOAT32
        details.scales = constant(model, stored, float_type)
        details.zeroPoints = -1
        if zero_points:
            details.zeroPoints = constant(model, zero.astype("<i4"), schema.TensorType.INT32)
        details.blockSize = block
        change(details)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
        tensor.quantization.details = details
        tensor.type = getattr(schema.TensorType, kind)
        data = codes.astype(dtype) if kind == "INT8" else packed(codes)
        model.buffers[tensor.buffer].data = np.frombuffer(data.tobytes(), np.uint8)

    return apply, known


@pytest.mark.parametrize(
    ("kind", "block", "zero_points", "half"),
    [
        ("INT4", 8, False, True),
        ("INT4", 32, False, True),
        ("INT4", 10, False, False),  # the last block is shorter
        ("INT4", 16, True, False),
        ("UINT4", 16, True, True),
        ("INT8", 16, False, False),
    ],
)
def test_figures_are_those_of_the_oracle(tmp_path, kind, block, zero_points, half):
    change, known = in_blocks(kind, block, zero_points, half=half)
    path = edited(FLOAT, tmp_path / "q.tflite", change)
    (layer,) = session.run(source(FLOAT, path)).layers
    assert (layer.name, layer.op, layer.kind) == (NAME, "FULLY_CONNECTED", "weight")
    assert layer.grid == f"{kind.lower()}, blocks of {block} along axis 1"
    assert (layer.shape, layer.axis, len(layer.channels)) == ([10, 32], 0, 10)
    assert layer.diagnosis.verdict == "ok"
    whole = [known[name].ravel() for name in ("x", "d", "tables")]
    grid_oracle.assert_same(layer.metrics, grid_oracle.figures(*whole), 1e-6, 1e-9)
    for row, channel in enumerate(layer.channels):
        of_row = [known[name][row] for name in ("x", "d", "tables")]
        grid_oracle.assert_same(channel.metrics, grid_oracle.figures(*of_row), 1e-6, 1e-9)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("blockSize", 0, "field 'block_size': found 0, expected 1 or more"),
        ("blockSize", -8, "field 'block_size': found -8, expected 1 or more"),
        ("blockSize", 2**31 - 1, "field 'scale': found shape (10, 4), expected (10, 1)"),
        ("blockSize", 7, "field 'scale': found shape (10, 4), expected (10, 5)"),
        ("scales", -1, "field 'scale': found nothing, expected a constant of floats"),
        ("scales", 2**31 - 1, "field 'scale': found nothing, expected a constant of floats"),
        ("scales", 0, "field 'scale': found nothing, expected a constant of floats"),
    ],
)
def test_blocks_that_do_not_fit_are_one_line(tmp_path, field, value, message):
    change, _ = in_blocks("INT4", 8, False, lambda details: setattr(details, field, value))
    path = edited(FLOAT, tmp_path / "q.tflite", change)
    (layer,) = session.run(source(FLOAT, path)).layers
    assert layer.diagnosis.verdict == "unreadable"
    assert message in layer.diagnosis.evidence


@pytest.mark.parametrize("which", ["scales", "zeroPoints"])
def test_scales_that_are_cut_off_are_one_line(tmp_path, which):
    change, _ = in_blocks("INT4", 8, zero_points=True)

    def cut(model):
        change(model)
        (tensor,) = (t for t in model.subgraphs[0].tensors if t.name == NAME.encode())
        details = tensor.quantization.details
        held = model.subgraphs[0].tensors[getattr(details, which)]
        model.buffers[held.buffer].data = model.buffers[held.buffer].data[:-4]

    (layer,) = session.run(source(FLOAT, edited(FLOAT, tmp_path / "q.tflite", cut))).layers
    assert layer.diagnosis.verdict == "unreadable"
    assert "elements, expected 40, as its shape [10, 4] says" in layer.diagnosis.evidence


@pytest.mark.parametrize("value", [0, 3, 2**31 - 1, -7])
def test_zero_points_that_are_none_are_zero(tmp_path, value):
    """The schema's default is 0, the model's first tensor."""
    layers = []
    for changed in (value, -1):
        change, _ = in_blocks("INT4", 8, False, lambda d, z=changed: setattr(d, "zeroPoints", z))
        path = edited(FLOAT, tmp_path / "q.tflite", change)
        layers += session.run(source(FLOAT, path)).layers
    assert layers[0] == layers[1]


def test_blocks_along_several_axes_are_not_read(tmp_path):
    change, _ = in_blocks("INT4", 8, False, lambda d: setattr(d, "blockShape", np.array([2, 8])))
    path = edited(FLOAT, tmp_path / "q.tflite", change)
    assert "found no quantized weights" in refused(FLOAT, path)


@pytest.mark.slow
def test_a_model_of_ai_edge_quantizer(tmp_path):
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer", reason="qdebug[quantizer]")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe", reason="qdebug[quantizer]")
    made = quantizer.Quantizer(str(FLOAT))
    made.load_quantization_recipe(recipe.dynamic_wi4b32_afp32())
    path = tmp_path / "q.tflite"
    path.write_bytes(bytes(made.quantize().quantized_model))
    (layer,) = session.run(source(FLOAT, path)).layers
    assert layer.grid == "int4, blocks of 32 along axis 1"
    assert layer.metrics.times_expected == pytest.approx(0.954, abs=0.001)
    assert layer.metrics.max_abs_error_scale < 0.501
