"""Which tensor of the float model belongs to which of the quantized one."""

import numpy as np
import pytest

from qdebug.run import session
from tests.paths import DATA
from tests.sources.tflite.models import (
    FLOAT,
    INPUTS,
    INT8,
    arrays,
    branch_inputs,
    digits,
    edited,
    refused,
    schema,
    source,
)


def rename(change):
    def apply(model):
        for index, tensor in enumerate(model.subgraphs[0].tensors):
            tensor.name = change(index, tensor.name)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda index, name: b"t%d" % index,
        lambda index, name: b"",
        lambda index, name: b"all the same",
        lambda index, name: name + b"_int8",
        lambda index, name: name + b"7",
        lambda index, name: b"arith.constant%d" % (100 - index),
        lambda index, name: b"\xff\xfe" + name,
    ],
    ids=["numbers", "empty", "one name", "suffix", "digit", "made up", "no utf-8"],
)
@pytest.mark.parametrize("pair", ["digits", "branches"])
def test_names_are_not_needed_to_find_partners(tmp_path, pair, change):
    floats, int8, inputs = FLOAT, INT8, INPUTS
    if pair == "branches":
        floats, int8 = DATA / "branches_float.tflite", DATA / "branches_int8.tflite"
        inputs = branch_inputs(tmp_path)
    renamed = edited(int8, tmp_path / "renamed.tflite", rename(change))
    models = source(floats, renamed, inputs, samples=2)
    expected = source(floats, int8, inputs, samples=2)
    assert models.skipped == []
    assert len({layer.name for layer in models.layers}) == len(expected.layers)
    pairs = zip(arrays(models).values(), arrays(expected).values(), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_names_that_lie_about_constants_do_not_matter(tmp_path):
    """Weights of one shape whose names are swapped are found by their operators."""
    left, right = b"net_1/left_1/convolution", b"net_1/right_1/convolution"
    swap = {left: right, right: left}
    path = edited(
        DATA / "branches_int8.tflite",
        tmp_path / "q.tflite",
        rename(lambda index, name: swap.get(name, name)),
    )
    models = source(DATA / "branches_float.tflite", path)
    expected = arrays(source(DATA / "branches_float.tflite", DATA / "branches_int8.tflite"))
    np.testing.assert_array_equal(arrays(models)[left.decode()][0], expected[right.decode()][0])


def test_what_has_no_partner_is_listed_with_the_reason(tmp_path):
    def another_shape(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.name == b"digits_1/logits_1/BiasAdd":
                tensor.shape = [5, 2]

    path = edited(FLOAT, tmp_path / "f.tflite", another_shape)
    models = source(path, INT8)
    assert [name for name, _ in models.skipped] == ["digits_1/logits_1/BiasAdd"]
    assert models.skipped[0][1] == "its shape is [10], and [5, 2] in the float model"


def test_the_two_in_the_wrong_order_are_put_right_with_a_note():
    models = source(INT8, FLOAT, INPUTS, samples=2)
    assert len(models.notes) == 1
    assert "their order was swapped" in models.notes[0]
    assert session.run(models).layers == session.run(digits(samples=2)).layers


def test_quantized_weights_of_the_float_model_are_no_reference(tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.ones((2, 16)))
    dynamic = DATA / "dense_dynamic.tflite"

    def coarser(model):
        for tensor in model.subgraphs[0].tensors:
            if tensor.type == schema.TensorType.INT8:
                tensor.quantization.scale = np.asarray(tensor.quantization.scale) * 1.0001

    other = edited(dynamic, tmp_path / "other.tflite", coarser)
    message = refused(other, dynamic, inputs=inputs)
    assert "in the float model it is quantized too: there is no float reference" in message
