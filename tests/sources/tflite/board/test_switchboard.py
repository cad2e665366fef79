"""The switchboard of two LiteRT models: it reproduces both, and what lies between.

What leaving operators in float gives is checked against models without Q and DQ: NumPy on the
interpreter's own tensors, and models that ai-edge-quantizer makes (slow).
"""

import contextlib
import copy
import io
import re
import warnings

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams, dequantize, quantize
from qdebug.errors import QdebugError
from qdebug.sources.tflite.board.switchboard import board
from tests.paths import DATA
from tests.sources.tflite.models import FLOAT, INPUTS, INT8, branch_inputs, edited, interpreter


def digits(**options):
    return board([str(FLOAT), str(INT8)], str(INPUTS), **options)


def branches(folder, quantized="branches_int8"):
    files = [str(DATA / f"{name}.tflite") for name in ("branches_float", quantized)]
    return board(files, str(branch_inputs(folder)))


def place(models, op, number=0):
    """The place of the operator of this kind, or of a later one."""
    return [at for at, operator in enumerate(models.operators) if operator.op == op][number]


def everything(models):
    return range(len(models.operators))


def sqnr(reference, found):
    """In dB, over all samples of one output."""
    x, y = (np.concatenate([*map(np.ravel, each)]).astype(float) for each in (reference, found))
    return 10 * np.log10(np.sum(x**2) / max(np.sum((x - y) ** 2), 1e-30))


def compared(models, first, second):
    """SQNR of each output."""
    runs = [(first(sample), second(sample)) for sample in range(models.num_samples)]
    return [
        sqnr([a[output] for a, _ in runs], [b[output] for _, b in runs])
        for output in range(len(models.outputs))
    ]


def left_out(models, left=(), changes=None):
    """SQNR of each output with these operators in float."""
    return compared(models, models.float_outputs, lambda n: models.run(n, left, changes))


def refused(*files, inputs=INPUTS, **options):
    with pytest.raises(QdebugError) as caught:
        board([str(file) for file in files], inputs and str(inputs), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- both ends ---


def test_all_switches_open_are_the_float_model():
    assert left_out(models := digits(), everything(models))[0] > 100


def test_all_switches_closed_are_the_quantized_model():
    models = digits()
    assert compared(models, models.quantized_outputs, models.run)[0] > 100


@pytest.mark.parametrize("quantized", ["int8", "int16", "uint8", "pertensor", "mixed", "partly"])
def test_branches_and_all_types_of_codes(tmp_path, quantized):
    models = branches(tmp_path, f"branches_{quantized}")
    assert models.outputs == ("output_1", "output_0")
    for sample in range(models.num_samples):
        left = models.run(sample, everything(models))
        for ours, theirs in zip(left, models.float_outputs(sample), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(models.run(sample), models.quantized_outputs(sample), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_lengths_that_the_model_leaves_open():
    files = [str(DATA / f"anysize_{kind}.tflite") for kind in ("float", "int8")]
    models = board(files, np.random.default_rng(2).normal(size=(3, 9, 7, 1)).astype(np.float32))
    assert left_out(models, everything(models))[0] > 100
    assert compared(models, models.quantized_outputs, models.run)[0] > 100


def test_operators_that_are_quantized_while_they_run():
    files = [str(DATA / f"dense_{kind}.tflite") for kind in ("float", "dynamic")]
    samples = np.random.default_rng(4).normal(size=(5, 16)).astype(np.float32)
    models = board(files, samples)
    assert {operator.op for operator in models.operators} == {"FULLY_CONNECTED"}
    assert left_out(models, everything(models))[0] > 100
    assert left_out(models)[0] < 60
    assert compared(models, models.quantized_outputs, models.run)[0] > 100


def test_a_signature_is_chosen_by_name():
    files = [str(DATA / f"signatures_{kind}.tflite") for kind in ("float", "int8")]
    inputs = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    models = board(files, inputs, signature="widen")
    assert compared(models, models.quantized_outputs, models.run)[0] > 100
    looped = board(files, inputs, signature="repeat")
    assert any("WHILE runs other graphs" in reason for _, reason in looped.fixed)


def test_runs_do_not_depend_on_those_before():
    models = digits(samples=3)
    first = models.run(1, [2])
    models.run(0, everything(models))
    models.run(2, [], {models.operators[3].layer: None})
    np.testing.assert_array_equal(models.run(1, [2])[0], first[0])


# --- what lies between ---


def test_the_last_operator_in_float_leaves_its_output_in_float():
    models = digits(samples=4)
    opened = interpreter(INT8)
    details = {each["index"]: each for each in opened.get_tensor_details()}
    (given,) = opened.get_input_details()
    (softmax,) = (each for each in opened._get_ops_details() if each["op_name"] == "SOFTMAX")
    logits = details[softmax["inputs"][0]]
    images = np.load(INPUTS)["image"]
    for sample in range(4):
        codes = quantize(images[sample : sample + 1], QuantParams.of(*given["quantization"]))
        opened.set_tensor(given["index"], codes)
        opened.invoke()
        fed = dequantize(
            opened.get_tensor(logits["index"]), QuantParams.of(*logits["quantization"])
        )
        powers = np.exp(fed - fed.max())
        expected = powers / powers.sum()
        found = models.run(sample, [place(models, "SOFTMAX")])[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.abs(found - models.run(sample)[0]).max() > 0


def constants_of(number):
    """The names of an operator's quantized weight and bias."""
    opened = interpreter(INT8)
    names = {detail["index"]: detail["name"] for detail in opened.get_tensor_details()}
    operators = [each for each in opened._get_ops_details() if each["op_name"] != "DELEGATE"]
    return [names[index] for index in operators[number]["inputs"][1:]]


def test_a_value_between_two_operators_is_float_only_if_both_are():
    models = digits(samples=8)
    depthwise, pointwise, add = 1, 2, 3
    exact = dict.fromkeys(constants_of(depthwise) + constants_of(pointwise))
    exact[models.operators[depthwise].layer] = None
    for sample in range(8):
        quantized = models.run(sample)[0]
        both = models.run(sample, [depthwise, pointwise])[0]
        np.testing.assert_array_equal(models.run(sample, [add])[0], quantized)
        np.testing.assert_array_equal(both, models.run(sample, (), exact)[0])
    assert left_out(models, [depthwise, pointwise])[0] != left_out(models)[0]


def test_weights_and_bias_follow_their_operator():
    models = digits(samples=8)
    dense = place(models, "FULLY_CONNECTED")
    exact = dict.fromkeys(constants_of(dense))
    assert len(exact) == 2
    fine = {models.operators[at].layer: None for at in (dense, dense + 1)}  # to see small effects
    for sample in range(8):
        found = models.run(sample, [dense], fine)[0]
        closed = models.run(sample, (), fine | exact)[0]
        effect = np.abs(found - models.run(sample, (), fine)[0]).max()
        assert np.abs(found - closed).max() < effect / 10  # two float kernels


def test_neighbours_touch_one_value(tmp_path):
    models = digits(samples=1)
    last = len(models.operators) - 1
    assert frozenset({0}) in models.neighbours  # the input
    assert frozenset({last - 1, last}) in models.neighbours
    assert frozenset({last}) in models.neighbours  # the output
    assert frozenset({0, 1, place(models, "ADD")}) in models.neighbours  # a shortcut
    forked = branches(tmp_path)
    reshaped = place(forked, "RESHAPE")
    readers = {place(forked, "ADD"), place(forked, "MUL")}
    assert frozenset({reshaped} | readers) in forked.neighbours


def test_operators_are_named_as_in_the_report_and_for_the_converter():
    models = digits(samples=1)
    assert [operator.op for operator in models.operators] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "ADD",
        "AVERAGE_POOL_2D",
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
        "SOFTMAX",
    ]
    floats = {detail["name"] for detail in interpreter(FLOAT).get_tensor_details()}
    quantized = {detail["name"] for detail in interpreter(INT8).get_tensor_details()}
    for operator in models.operators:
        assert operator.layer in quantized
        assert floats.issuperset(operator.nodes)
        assert operator.nodes
    assert models.fixed == ()


# --- changes ---


def test_exact_layers_are_not_rounded():
    models = digits(samples=8)
    names = {operator.layer for operator in models.operators}
    logits = models.operators[-2].layer
    assert left_out(models, (), {logits: None})[0] > left_out(models)[0] + 0.5
    image = {detail["name"] for detail in interpreter(INT8).get_input_details()}
    activations = dict.fromkeys(names | image)
    opened = interpreter(INT8)
    weights = {d["name"] for d in opened.get_tensor_details() if d["name"] not in activations}
    constants = {}
    for name in weights:
        with contextlib.suppress(QdebugError):
            models.run(0, (), {name: None})
            constants[name] = None
    assert left_out(models, (), activations | constants)[0] > 100


def test_a_changed_range_is_that_of_numpy():
    """The output is the last layer: changing its parameters requantizes what was computed."""
    models = digits(samples=4)
    exact = {models.operators[-1].layer: None}
    coarse = QuantParams.of(1 / 16, -3, "int8")
    for sample in range(4):
        floats = models.run(sample, (), exact)[0]
        expected = dequantize(quantize(floats, coarse), coarse)
        found = models.run(sample, (), {models.operators[-1].layer: coarse})[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_changed_weight_is_that_of_numpy():
    models = digits(samples=2)
    coarse = QuantParams.of(100.0, 0, "int8")  # all weights become 0, and the bias decides
    name = next(d["name"] for d in interpreter(INT8).get_tensor_details() if "MatMul" in d["name"])
    found = [models.run(sample, (), {name: coarse})[0] for sample in range(2)]
    np.testing.assert_array_equal(found[0], found[1])


def test_impossible_changes_are_refused():
    models = digits(samples=1)
    layer = models.operators[0].layer
    with pytest.raises(QdebugError, match="no layer 'nothing'; there are"):
        models.run(0, (), {"nothing": None})
    with pytest.raises(QdebugError, match="found 4 bits of int8, expected int8, uint8 or int16"):
        models.run(0, (), {layer: QuantParams.of(1.0, 0, "int8", bits=4)})
    with pytest.raises(QdebugError, match="found 32 bits of int32"):
        models.run(0, (), {layer: QuantParams.of(1.0, 0, "int32")})


# --- bad input ---


def test_what_has_no_switches_is_refused(tmp_path):
    message = refused(DATA / "branches_debug.tflite")
    assert "found one model in TFLite's debug mode, expected a float and a quantized one" in message
    assert "found no inputs, expected samples" in refused(FLOAT, INT8, inputs=None)
    named = edited(FLOAT, tmp_path / "unnamed.tflite", without_names)
    assert "found no operator to switch to float, expected a quantized one" in refused(named, INT8)


def without_names(model):
    for tensor in model.subgraphs[0].tensors:
        tensor.name = ""


def test_operators_without_a_partner_stay_quantized(tmp_path):
    """The float model's pool is a maximum here: that operator is listed, the others switch."""

    def other_pool(model):
        codes = {code.builtinCode: code for code in model.operatorCodes}
        codes[1].builtinCode = codes[1].deprecatedBuiltinCode = 17  # AVERAGE_POOL_2D, MAX_POOL_2D

    floats = edited(FLOAT, tmp_path / "float.tflite", other_pool)
    models = board([str(floats), str(INT8)], str(INPUTS), samples=2)
    assert len(models.operators) == 8
    ((name, reason),) = models.fixed
    assert "AvgPool" in name
    assert reason == "the float model has no counterpart of its operator AVERAGE_POOL_2D"
    assert models.run(0)[0].shape == (1, 10)


# --- against the converter ---


class Converter:
    """A float model, quantized by ai-edge-quantizer again and again."""

    def __init__(self, folder, floats, samples, recipe="static_wi8_ai8"):
        self.quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
        self._base = getattr(pytest.importorskip("ai_edge_quantizer.recipe"), recipe)()
        self.floats = floats
        ((signature, _),) = interpreter(floats).get_signature_list().items()
        # One batch of all samples: over several, ai-edge-quantizer takes a moving average.
        self._calibration = {signature: [samples]}
        self._ranges = None
        self.quantized = folder / "quantized.tflite"
        self.quantized.write_bytes(self.without([]))

    def without(self, operators):
        """The model with these operators in float, and with it the values that only they touch."""
        recipe = list(self._base)
        for operator in operators:
            scope = re.escape("".join(f"{name};" for name in operator.nodes))
            entry = {"regex": rf"\A{scope}\Z", "operation": "*", "algorithm_key": "no_quantize"}
            recipe.append(entry)
        recipe += [
            {"regex": ".*", "operation": end, "algorithm_key": "no_quantize"}
            for end in ("INPUT", "OUTPUT")
            if operators
        ]
        made = self.quantizer.Quantizer(str(self.floats))
        made.load_quantization_recipe(recipe)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            if self._ranges is None and made.need_calibration:
                self._ranges = made.calibrate(self._calibration, num_threads=1)
            ranges = copy.deepcopy(self._ranges)
            return bytes(made.quantize(ranges, enable_progress_report=False).quantized_model)


def requantized(models, converter, left, folder):
    """SQNR of each output of the model that the converter makes."""
    path = folder / "left.tflite"
    path.write_bytes(converter.without([models.operators[at] for at in left]))
    again = board([str(converter.floats), str(path)], folder / "inputs.npz")
    return compared(models, models.float_outputs, again.quantized_outputs)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dynamic_wi8_afp32", "weight_only_wi8_afp32"])
def test_weights_alone_are_switched_too(tmp_path, recipe):
    samples = {"image": np.load(INPUTS)["image"].astype(np.float32)}
    np.savez(tmp_path / "inputs.npz", **samples)
    converter = Converter(tmp_path, FLOAT, samples, recipe)
    models = board([str(FLOAT), str(converter.quantized)], tmp_path / "inputs.npz")
    assert len(models.operators) == 5
    assert compared(models, models.quantized_outputs, models.run)[0] > 100
    for left in ([0], [4], [1, 3]):
        (theirs,) = requantized(models, converter, left, tmp_path)
        assert left_out(models, left)[0] == pytest.approx(theirs, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "branches"])
def test_leaving_operators_gives_what_quantizing_again_gives(tmp_path, name):
    if name == "digits":
        floats, samples = FLOAT, {"image": np.load(INPUTS)["image"].astype(np.float32)}
    else:
        rng = np.random.default_rng(5)
        floats = DATA / "branches_float.tflite"
        shapes = {"image": (40, 6, 6, 3), "flags": (40, 4)}
        samples = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    np.savez(tmp_path / "inputs.npz", **samples)
    converter = Converter(tmp_path, floats, samples)
    models = board([str(floats), str(converter.quantized)], tmp_path / "inputs.npz")
    count = len(models.operators)
    draw = np.random.default_rng(6)
    sets = [[0], [1], [count - 1], [count - 2, count - 1], [2, 3, 4], [3, 4, 5]]
    sets += [sorted(draw.choice(count, size, replace=False)) for size in (2, 3, 5)]
    sets += [[at] for at, o in enumerate(models.operators) if o.op in ("CONCATENATION", "TANH")]
    for left in sets:
        # Leaving the pool or TANH changes ranges, and the new ones are not in the quantized model.
        kinds = {models.operators[at].op for at in left}
        exact = name == "digits" and "AVERAGE_POOL_2D" not in kinds
        expected = requantized(models, converter, left, tmp_path)
        for ours, theirs in zip(left_out(models, left), expected, strict=True):
            near = {"abs": 0.01} if exact else {"abs": 0.3, "rel": 0.05}
            assert ours == pytest.approx(theirs, **near), left
