"""Changed layers of two LiteRT models: what can be changed, and what that gives at the outputs."""

import contextlib
import copy
import io
import warnings

import numpy as np
import pytest

from qdebug.advise import meter
from qdebug.advise.meter import Meter
from qdebug.advise.switchboard import Limits, search
from qdebug.arithmetic.affine import (
    QuantParams,
    QuantScheme,
    dequantize,
    params_from_range,
    quantize,
)
from qdebug.errors import QdebugError
from qdebug.measure.ranges import fitted
from qdebug.run.board import TunableBoard
from qdebug.sources.tflite.board.switchboard import board
from qdebug.sources.tflite.source import LitertModels
from tests.paths import DATA
from tests.sources.tflite.models import FLOAT, INPUTS, INT8, branch_inputs, interpreter

BRANCHES = ["int8", "int16", "uint8", "pertensor", "mixed", "partly"]


def digits(samples=None):
    return board([str(FLOAT), str(INT8)], str(INPUTS), samples=samples)


def branches(folder, kind="int8"):
    files = [str(DATA / f"branches_{name}.tflite") for name in ("float", kind)]
    return board(files, str(branch_inputs(folder)))


def edges(params):
    return tuple(float((q - params.zero_point[0]) * params.scale[0])
                 for q in (params.qmin, params.qmax))  # fmt: skip


def scaled(params, factor):
    """A range that is wider by this factor."""
    low, high = (factor * edge for edge in edges(params))
    scheme = QuantScheme(params.dtype, symmetric=params.dtype == "int16")
    return params_from_range(low, high, scheme)


def activations(models):
    return [layer for layer in models.layers if layer.kind == "activation"]


def gain(models, changes):
    meter = Meter(models)
    return meter.gain(meter.errors((), {}), meter.errors((), changes)).db


# --- which layers ---


def test_layers_are_those_of_the_report():
    models = digits(samples=1)
    assert isinstance(models, TunableBoard)
    reported = {
        layer.name: layer for layer in LitertModels([str(FLOAT), str(INT8)], str(INPUTS)).layers
    }
    for layer in models.layers:
        assert reported[layer.name].kind == layer.kind
        np.testing.assert_array_equal(reported[layer.name].params.scale, layer.params.scale)
    biases = {name for name, layer in reported.items() if layer.kind == "bias"}
    softmax = models.operators[-1].layer  # its kernel sets its scale
    pool = next(o.layer for o in models.operators if o.op == "AVERAGE_POOL_2D")  # its input's
    assert reported.keys() - {layer.name for layer in models.layers} == {*biases, softmax, pool}


def test_layers_know_the_operators_that_touch_them():
    models = digits(samples=1)
    ops = [operator.op for operator in models.operators]
    stem = next(layer for layer in models.layers if layer.name == models.operators[0].layer)
    assert stem.operators == {0, 1, ops.index("ADD")}
    add = next(layer for layer in models.layers if layer.name == models.operators[3].layer)
    assert add.operators == {3, 4, 5}  # the pool has its scale, and so its reader counts
    weights = {next(iter(w.operators)): w.axis for w in models.layers if w.kind == "weight"}
    assert weights == {0: 0, 1: 3, 2: 0, ops.index("MEAN") - 1: 0, ops.index("FULLY_CONNECTED"): 0}


def test_weights_of_operators_that_quantize_while_they_run_are_left_out():
    files = [str(DATA / f"dense_{kind}.tflite") for kind in ("float", "dynamic")]
    samples = np.random.default_rng(4).normal(size=(5, 16)).astype(np.float32)
    assert not board(files, samples).layers


@pytest.mark.parametrize("kind", BRANCHES)
def test_every_layer_can_be_changed(tmp_path, kind):
    models = branches(tmp_path, kind)
    assert models.layers
    unchanged = models.run(0, (), {})
    for layer in models.layers:
        ways = [None]
        if layer.kind == "activation":
            ways.append(scaled(layer.params, 50))
        elif layer.axis is not None:
            scheme = QuantScheme(layer.params.dtype, symmetric=True)
            ways.append(fitted(models.floats([layer.name], 0)[layer.name], scheme, layer.axis))
        for params in ways:
            for ours, before in zip(
                models.run(0, (), {layer.name: params}), unchanged, strict=True
            ):
                assert ours.shape == before.shape
                assert np.isfinite(ours).all()
        assert layer.operators
        assert max(layer.operators) < len(models.operators)


def test_layers_of_lengths_that_the_model_leaves_open():
    files = [str(DATA / f"anysize_{kind}.tflite") for kind in ("float", "int8")]
    models = board(files, np.random.default_rng(2).normal(size=(3, 9, 7, 1)).astype(np.float32))
    assert {layer.kind for layer in models.layers} == {"activation", "weight"}
    for layer in models.layers:
        same, exact = (models.run(2, (), {layer.name: way})[0] for way in (layer.params, None))
        np.testing.assert_array_equal(same, models.run(2, (), {})[0])
        assert np.isfinite(exact).all()
    exact = dict.fromkeys(layer.name for layer in models.layers)
    assert gain(models, exact) > 10


def test_where_no_graph_runs_nothing_can_be_changed(monkeypatch):
    def refuse(*_):
        raise QdebugError("no")

    models = digits(samples=4)
    monkeypatch.setattr(models, "_new_dials", refuse)
    assert models.layers == ()
    assert search(models, Limits(top=1)).changes == []


# --- what is computed ---


@pytest.mark.parametrize("kind", BRANCHES)
def test_parameters_that_are_recorded_already_change_nothing(tmp_path, kind):
    models = branches(tmp_path, kind)
    for sample in range(models.num_samples):
        unchanged = models.run(sample, (), {})
        for layer in models.layers:
            same = models.run(sample, (), {layer.name: copy.deepcopy(layer.params)})
            for ours, theirs in zip(same, unchanged, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        everything = {layer.name: layer.params for layer in models.layers}
        np.testing.assert_array_equal(models.run(sample, (), everything)[0], unchanged[0])


@pytest.mark.parametrize("kind", BRANCHES)
def test_the_arithmetic_of_changes_is_near_the_kernels(tmp_path, kind):
    meter = Meter(branches(tmp_path, kind))
    assert abs(meter.gain(meter.errors(), meter.errors((), {})).db) < 0.3


def test_operators_in_float_beside_changes():
    models = digits(samples=4)
    for left in ([0], [2, 3], [8], range(9)):
        for sample in range(4):
            switched, dialled = models.run(sample, left)[0], models.run(sample, left, {})[0]
            np.testing.assert_allclose(dialled, switched, atol=1 / 256 + 1e-6)
    for sample in range(4):
        found = models.run(
            sample, range(9), {models.layers[0].name: QuantParams.of(9.0, 0, "int8")}
        )
        np.testing.assert_allclose(found[0], models.float_outputs(sample)[0], atol=1e-6)


def test_floats_are_those_of_the_float_model():
    models = digits(samples=2)
    opened = interpreter(FLOAT)
    found = models.floats([layer.name for layer in models.layers], 1)
    assert found.keys() == {layer.name for layer in models.layers}
    image = np.load(INPUTS)["image"][1:2].astype(np.float32)
    np.testing.assert_array_equal(found[models.layers[0].name], image)
    opened.set_tensor(opened.get_input_details()[0]["index"], image)
    opened.invoke()
    logits = next(o["inputs"][0] for o in opened._get_ops_details() if o["op_name"] == "SOFTMAX")
    np.testing.assert_allclose(
        found[models.operators[-2].layer], opened.get_tensor(logits), atol=1e-4
    )
    for weight in (layer for layer in models.layers if layer.kind == "weight"):
        step = np.broadcast_to(np.max(weight.params.scale), ())
        rounded = dequantize(quantize(found[weight.name], weight.params), weight.params)
        assert np.abs(rounded - found[weight.name]).max() <= step


def test_layers_that_share_codes_change_together(tmp_path):
    """A pool has its input's scale: both are coarse, or neither is."""
    models = digits(samples=2)
    (pool,) = (at for at, o in enumerate(models.operators) if o.op == "AVERAGE_POOL_2D")
    leader, follower = models.operators[pool - 1].layer, models.operators[pool].layer
    coarse = scaled(next(la.params for la in models.layers if la.name == leader), 9)
    for sample in range(2):
        both = models.run(sample, (), {leader: coarse, follower: coarse})[0]
        np.testing.assert_array_equal(models.run(sample, (), {leader: coarse})[0], both)
    listed = {layer.name for layer in branches(tmp_path).layers}
    for operator in branches(tmp_path).operators:
        assert operator.op not in ("RESHAPE", "MAX_POOL_2D", "SOFTMAX") or (
            operator.layer not in listed
        )


def test_the_search_tries_changes(monkeypatch):
    """The stem's range, for one, ends above nearly all of its values: 3.99 of 6 suffices.

    On 40 samples that is hardly more than chance.
    """
    monkeypatch.setattr(meter, "CHANCE", 1.0)
    monkeypatch.setattr(meter, "_HELD_OUT_ERRORS", 0.0)
    found = search(digits(), Limits(top=1))
    assert found.changes
    assert found.changes[-1].total.db > 1


# --- against the converter ---


class Converter:
    """ai-edge-quantizer with the ranges that a quantized model records, and others."""

    def __init__(self, floats, samples):
        self._quantizer = pytest.importorskip("ai_edge_quantizer.quantizer").Quantizer
        self._recipe = pytest.importorskip("ai_edge_quantizer.recipe").static_wi8_ai8()
        self._floats = str(floats)
        signature = next(iter(interpreter(floats).get_signature_list()))
        with quiet():
            self.ranges = self._made().calibrate({signature: [samples]}, num_threads=1)

    def _made(self):
        made = self._quantizer(self._floats)
        made.load_quantization_recipe(self._recipe)
        return made

    def quantized(self, path, changes):
        """A model with other ranges of these tensors."""
        ranges = copy.deepcopy(self.ranges)
        for name, params in changes.items():
            for key, edge in zip(("min", "max"), edges(params), strict=True):
                ranges[name][key] = np.full_like(ranges[name][key], edge)
        with quiet():
            made = self._made().quantize(ranges, enable_progress_report=False)
        path.write_bytes(bytes(made.quantized_model))
        return path


@contextlib.contextmanager
def quiet():
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "branches"])
def test_a_change_gains_what_quantizing_again_with_it_gains(tmp_path, name):
    if name == "digits":
        floats, samples = FLOAT, {"image": np.load(INPUTS)["image"].astype(np.float32)}
    else:
        rng = np.random.default_rng(5)
        floats = DATA / "branches_float.tflite"
        shapes = {"image": (40, 6, 6, 3), "flags": (40, 4)}
        samples = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    np.savez(tmp_path / "inputs.npz", **samples)
    converter = Converter(floats, samples)

    def of(changes):
        path = converter.quantized(tmp_path / "changed.tflite", changes)
        return board([str(floats), str(path)], tmp_path / "inputs.npz")

    models = of({})
    meter = Meter(models)
    before = meter.errors()
    tried = 0
    for layer in activations(models):
        if layer.name not in converter.ranges:
            continue
        for factor in (0.6, 1.5):
            params = scaled(layer.params, factor)
            again = of({layer.name: params})
            after = np.array([meter.compared(again.quantized_outputs(s), s) for s in meter.samples])
            real = meter.gain(before, after).db
            assert gain(models, {layer.name: params}) == pytest.approx(real, abs=0.3, rel=0.05)
            tried += 1
    assert tried >= 8
