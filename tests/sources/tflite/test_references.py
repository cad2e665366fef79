"""What a layer's references are, computed here in plain NumPy, operator by operator.

Codes and the float model's values are read from the interpreter directly.
"""

import numpy as np

from qdebug.arithmetic.affine import dequantize, quantize
from tests.sources.tflite.models import (
    FLOAT,
    INPUTS,
    INT8,
    arrays,
    branch_inputs,
    branches,
    digits,
    interpreter,
    layer,
    names,
    read_directly,
    source,
)


def conv(x, w, b, depthwise=False):
    """A 3x3 or 1x1 convolution of (row, column, channel), zeros around, stride 1, in float64."""
    if depthwise:
        w = np.moveaxis(w, 3, 0)[..., None]  # (1, r, c, channel) -> (channel, 1, r, c, 1)
        return np.concatenate(
            [conv(x[..., i : i + 1], w[i], b[i : i + 1]) for i in range(x.shape[2])], axis=2
        )
    rows, columns, size = *x.shape[:2], w.shape[1]
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    out = np.empty((rows, columns, w.shape[0]))
    for r in range(rows):
        for c in range(columns):
            window = padded[r : r + size, c : c + size]
            out[r, c] = np.tensordot(w, window, axes=([1, 2, 3], [0, 1, 2])) + b
    return out


def relu6(x):
    return np.clip(x, 0, 6)


def pooled(x):
    return x.reshape(4, 2, 4, 2, 8).mean(axis=(1, 3))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def test_the_references_of_every_activation_are_what_an_independent_computation_gives():
    models = digits()
    images = np.load(INPUTS)["image"]
    found = arrays(models)
    details = interpreter(INT8).get_tensor_details()
    index = {detail["name"]: detail["index"] for detail in details}
    params = {layer.name: layer.params for layer in models.layers if layer.kind == "activation"}
    codes = read_directly(INT8, quantize(images, params["serving_default_image:0"]))
    model = read_directly(FLOAT, images)
    constant = interpreter(FLOAT).get_tensor

    image, stem, dw, pw, add, pool, tail, gap, logits, out = names(models, "activation")
    shapes = {image: (8, 8, 1), stem: (8, 8, 8), dw: (8, 8, 8), pw: (8, 8, 8), add: (8, 8, 8)}
    shapes |= {pool: (4, 4, 8), tail: (4, 4, 32), gap: (32,), logits: (10,), out: (10,)}

    def fed(name, sample):
        """The floats that the quantized run's codes of one sample stand for."""
        values = dequantize(codes[index[name]][sample], params[name])
        return values.reshape(shapes[name])

    def local(sample):
        weight = lambda index: constant(index).astype(np.float64)  # noqa: E731
        yield image, images[sample]
        yield stem, relu6(conv(fed(image, sample), weight(10), weight(11)))
        yield dw, relu6(conv(fed(stem, sample), weight(5), weight(2), depthwise=True))
        yield pw, conv(fed(dw, sample), weight(7), weight(4))
        yield add, np.maximum(fed(stem, sample) + fed(pw, sample), 0)
        yield pool, pooled(fed(add, sample))
        yield tail, np.maximum(conv(fed(pool, sample), weight(6), weight(1)), 0)
        yield gap, fed(tail, sample).mean(axis=(0, 1))
        yield logits, weight(8) @ fed(gap, sample) + weight(3)
        yield out, softmax(fed(logits, sample))

    expected = {}
    for sample in range(len(images)):
        for name, values in local(sample):
            expected.setdefault(name, []).append(values.ravel())
    for name, rows in expected.items():
        got_floats, got_codes, got_model = found[name]
        np.testing.assert_array_equal(got_codes, codes[index[name]].ravel())
        step = params[name].scale[0]
        np.testing.assert_allclose(got_floats, np.concatenate(rows), atol=1e-4 * step)
        np.testing.assert_allclose(got_model, model[FLOAT_INDEX[name]].ravel(), atol=1e-4 * step)


# The float model's tensor of each activation, from a look at the model.
FLOAT_INDEX = dict(
    zip(
        names(source(FLOAT, INT8, INPUTS, samples=1), "activation"),
        [0, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        strict=True,
    )
)


def test_weights_and_biases_are_what_both_files_hold():
    models = digits(samples=1)
    found = arrays(models)
    opened = {name: interpreter(path) for name, path in (("float", FLOAT), ("int8", INT8))}
    details = opened["int8"].get_tensor_details()
    pairs = {3: 8, 2: 3, 9: 5, 8: 2}  # dense and depthwise: int8 tensor -> float tensor
    for ours, theirs in pairs.items():
        detail = details[ours]
        made = layer(models, detail["name"])
        floats, codes, model = found[detail["name"]]
        quantization = detail["quantization_parameters"]
        np.testing.assert_array_equal(codes, opened["int8"].get_tensor(ours).ravel())
        np.testing.assert_array_equal(floats, opened["float"].get_tensor(theirs).ravel())
        assert model is None
        assert made.params.axis == quantization["quantized_dimension"]
        np.testing.assert_array_equal(made.params.scale, quantization["scales"])
        assert made.params.narrow_range == (made.kind == "weight")


def test_float_inputs_are_fed_to_the_local_reference_as_numericverify_does(tmp_path):
    """With float inputs the first float operators read the samples themselves."""
    inputs = np.load(branch_inputs(tmp_path))
    found = arrays(branches(tmp_path, "branches_mixed"))
    weights = arrays(branches(tmp_path, "branches_int8"))["net_1/gate_1/MatMul"][0].reshape(32, 4)
    expected = inputs["flags"].astype(np.float32) @ weights.T
    np.testing.assert_allclose(found["net_1/gate_1/MatMul1"][0], expected.ravel(), atol=1e-5)

    models = branches(tmp_path, "branches_int8")
    params = layer(models, "serving_default_flags:0").params
    read = dequantize(quantize(inputs["flags"].astype(np.float32), params), params)
    local = arrays(models)["net_1/gate_1/MatMul1"][0]
    np.testing.assert_allclose(local, (read @ weights.T).ravel(), atol=1e-5)
