"""Other ranges, bits and granularity, tried at the outputs of a small model."""

import numpy as np
import pytest

from qdebug.advise.meter import Meter
from qdebug.advise.switchboard import Limits, search
from qdebug.advise.tuning import _bulk_ranges, collected, tuned
from qdebug.arithmetic.affine import QuantParams, QuantScheme, dequantize, quantize
from qdebug.measure.ranges import fitted
from qdebug.run.board import BoardLayer, BoardOperator, TunableBoard

UINT8, INT8 = QuantScheme("uint8"), QuantScheme("int8", symmetric=True)
MASK = np.float32(-3.4e38)


class Attention:
    """softmax(x @ w + mask): the mask is -3.4e38 in a third of the scores."""

    operators = (
        BoardOperator("sums", ("matmul",), "MatMul"),
        BoardOperator("add", ("add",), "Add"),
    )
    neighbours = (frozenset([0, 1]), frozenset([1]))
    outputs = ("y",)
    fixed = ()
    num_samples = 8

    def __init__(self, w, masked=True):
        rng = np.random.default_rng(2)
        self.x = rng.normal(size=(self.num_samples, 20, len(w)))
        self.w = np.asarray(w, float)
        hidden = rng.random((self.num_samples, 20, self.w.shape[1])) < 1 / 3
        self.mask = np.where(hidden & masked, float(MASK), 0.0)
        everything = np.concatenate([self.floats(["add"], s)["add"] for s in range(8)])
        self.layers = [
            BoardLayer("w", "weight", fitted(self.w, INT8), frozenset([0]), axis=1),
            BoardLayer("add", "activation", fitted(everything, UINT8), frozenset([1])),
        ]

    def floats(self, names, sample):
        found = {"w": self.w, "add": self.x[sample] @ self.w + self.mask[sample]}
        return {name: found[name] for name in names}

    def float_outputs(self, sample):
        return [softmax(self.floats(["add"], sample)["add"])]

    def quantized_outputs(self, sample):
        return self.run(sample)

    def run(self, sample, left=(), changes=None):
        weight, add = (
            {layer.name: layer.params for layer in self.layers} | (changes or {})
        ).values()
        w = self.w if 0 in left or weight is None else rounded(self.w, weight)
        scores = self.x[sample] @ w + self.mask[sample]
        if 1 not in left and add is not None:
            scores = rounded(scores, add)
        return [softmax(scores)]


def rounded(x, params):
    return dequantize(quantize(x, params), params)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def changes_of(board):
    meter = Meter(board)
    samples = meter.samples
    return list(tuned(meter, range(2), samples[:4], samples[::2], samples[1::2]))


def test_a_masked_layer_gets_the_range_of_its_scores():
    board = Attention(np.random.default_rng(4).normal(size=(16, 12)))
    assert isinstance(board, TunableBoard)
    first = changes_of(board)[0]
    assert first.layer == "add"
    assert first.what.startswith("range [-")
    params = first.params
    low, high = ((q - params.zero_point[0]) * params.scale[0] for q in (0, 255))
    assert -80 < low < -10
    assert 8 < high < 25
    assert first.gain.db > 20
    assert first.in_16_bits is None  # they would lose all scores, too


def test_a_weight_whose_channels_differ_gets_a_scale_for_each():
    w = np.random.default_rng(4).normal(size=(16, 12)) * np.geomspace(0.01, 1, 12)
    changes = {change.layer: change for change in changes_of(Attention(w, masked=False))}
    assert changes["w"].what == "a scale per channel"
    assert changes["w"].params.channels == 12
    assert changes["w"].in_16_bits is None


def test_changes_add_up_to_the_total_of_the_model_with_all_of_them():
    w = np.random.default_rng(4).normal(size=(16, 12)) * np.geomspace(0.01, 1, 12)
    board = Attention(w)
    changes = changes_of(board)
    assert len(changes) == 2
    assert sum(change.gain.db for change in changes) == pytest.approx(changes[-1].total.db)
    meter = Meter(board)
    made = {change.layer: change.params for change in changes}
    total = meter.gain(meter.errors(), meter.errors((), made))
    assert total.db == pytest.approx(changes[-1].total.db)


def test_16_bits_are_suggested_only_where_no_range_comes_near():
    class Joined(Attention):
        """One tensor of two magnitudes: whatever range loses one of them."""

        def floats(self, names, sample):
            found = super().floats(names, sample)
            if "add" in found:
                found["add"] = found["add"] * np.where(np.arange(12) < 6, 1.0, 1e-3)
            return found

        def float_outputs(self, sample):
            return [self.floats(["add"], sample)["add"] * np.where(np.arange(12) < 6, 1, 1e3)]

        def run(self, sample, left=(), changes=None):
            params = {"add": self.layers[1].params, **(changes or {})}["add"]
            scores = self.floats(["add"], sample)["add"]
            if 1 not in left and params is not None:
                scores = rounded(scores, params)
            return [scores * np.where(np.arange(12) < 6, 1, 1e3)]

    board = Joined(np.random.default_rng(4).normal(size=(16, 12)), masked=False)
    (change,) = changes_of(board)
    assert (change.what, change.params) == ("16 bits", None)


def test_the_search_returns_changes_beside_its_operators():
    board = Attention(np.random.default_rng(4).normal(size=(16, 12)))
    found = search(board, Limits(top=1))
    assert [operator.layer for operator in found.operators] == ["add"]
    assert found.changes[0].layer == "add"


def test_the_time_limit_keeps_the_changes_found():
    meter = Meter(Attention(np.random.default_rng(4).normal(size=(16, 12))))
    meter.limit(-1)
    samples = meter.samples
    assert collected(tuned(meter, [1], samples, samples, samples)) == ([], True)


def test_a_range_without_a_mask():
    floats = np.array([-3.0, 0.0, 1.0, 5.0, float(MASK)])
    ranges = list(_bulk_ranges(floats))
    assert ranges == [(-3, 5), (-7, 5), (-11, 5), (-19, 5)]
    assert list(_bulk_ranges(np.array([-3.0, 0.0, 1.0, 5.0]))) == []
    assert list(_bulk_ranges(np.zeros(4))) == []
    small = np.array([1e-9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    assert list(_bulk_ranges(small)) == []  # nearly zero is no outlier


def test_params_can_be_made_of_what_is_suggested():
    params = changes_of(Attention(np.random.default_rng(4).normal(size=(16, 12))))[0].params
    again = QuantParams.of(params.scale, params.zero_point, params.dtype)
    assert again.scale == params.scale
