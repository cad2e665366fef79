"""The switchboard of ONNX models: both models, and all between, as the converter makes them."""

import numpy as np
import onnxruntime as ort
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.run.board import TunableBoard
from qdebug.sources.onnx.switchboard import board as open_board
from tests.sources.onnx.models import (
    NODE,
    QDQ,
    STATIC,
    Calibration,
    QuantFormat,
    QuantType,
    made,
    message,
    numpy_helper,
    onnx,
    quantize_static,
    session,
)


@pytest.fixture(scope="module")
def board_of(models):
    def opened(quantized="qdq-int8", floating="float", inputs="x.npy", **options):
        names = [str(models / f"{name}.onnx") for name in (floating, quantized)]
        return open_board(names, str(models / inputs), **options)

    return opened


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A network of the operators that the quantizer treats each in its own way, in both forms."""
    folder = tmp_path_factory.mktemp("wide")
    onnx.save(wide_network(), folder / "float.onnx")
    quantize(folder, "int8.onnx")
    x = np.random.default_rng(3).normal(size=(6, 4, 8)).astype(np.float32)
    np.save(folder / "x.npy", x)
    return folder


def quantize(folder, name, exclude=(), **options):
    quantize_static(
        folder / "float.onnx",
        folder / name,
        Calibration((1, 4, 8)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(exclude),
        **options,
    )


def wide_network():
    rng = np.random.default_rng(1)

    def constant(name, values, dtype=np.float32):
        return numpy_helper.from_array(np.asarray(values, dtype), name)

    nodes = [
        NODE("MatMul", ["x", "w1"], ["m1"], "matmul1"),
        NODE("Add", ["m1", "b1"], ["a1"], "add1"),
        NODE("LayerNormalization", ["a1", "gamma", "beta"], ["n1"], "norm"),
        NODE("Reshape", ["n1", "split_heads"], ["r1"], "reshape"),
        NODE("Transpose", ["r1"], ["t1"], "transpose", perm=[0, 2, 1, 3]),
        NODE("MatMul", ["t1", "w2"], ["m2"], "matmul2"),
        NODE("Sub", ["m2", "half"], ["s1"], "sub"),  # which the quantizer leaves alone
        NODE("Softmax", ["s1"], ["p1"], "softmax", axis=-1),
        NODE("Relu", ["m2"], ["q1"], "relu"),
        NODE("Mul", ["p1", "q1"], ["u1"], "mul"),
        NODE("Split", ["u1"], ["v1", "v2"], "split", axis=3, num_outputs=2),
        NODE("Concat", ["v2", "v1"], ["c1"], "concat", axis=3),
        NODE("Pad", ["c1", "pads"], ["d1"], "pad"),
        NODE("Slice", ["d1", "from", "to"], ["l1"], "slice"),
        NODE("Sigmoid", ["l1"], ["g1"], "sigmoid"),
        NODE("MatMul", ["g1", "w3"], ["y"], "matmul3"),
        NODE("Gather", ["x", "first"], ["h1"], "gather", axis=1),
        NODE("Where", ["cond", "h1", "h1"], ["z"], "where"),
        NODE("ArgMax", ["n1"], ["best"], "argmax", axis=-1),
        NODE("Shape", ["x"], ["size"], "shape"),
        NODE("Slice", ["size", "one", "two"], ["rows"], "row"),
        NODE("Mul", ["rows", "two"], ["more"], "more"),  # of whole numbers
    ]
    constants = [
        constant("w1", rng.normal(size=(8, 8))),
        constant("b1", rng.normal(size=8)),
        constant("gamma", rng.normal(1, 0.1, size=8)),
        constant("beta", rng.normal(size=8)),
        constant("w2", rng.normal(size=(4, 4))),
        constant("w3", rng.normal(size=(6, 3))),
        constant("half", 0.5),
        constant("split_heads", [0, 4, 2, 4], np.int64),
        constant("pads", [0, 0, 0, 1, 0, 0, 0, 1], np.int64),
        constant("from", [0, 0, 0, 0], np.int64),
        constant("to", [9, 9, 9, 9], np.int64),
        constant("first", [1, 2], np.int64),
        constant("cond", [True], np.bool_),
        constant("one", [1], np.int64),
        constant("two", [2], np.int64),
    ]
    outputs = {"y": ["N", 2, 4, 3], "z": ["N", 2, 8]}
    return made(nodes, {"x": ["N", 4, 8]}, outputs, constants)


def wide_board(folder, name="int8.onnx"):
    return open_board([str(folder / "float.onnx"), str(folder / name)], str(folder / "x.npy"))


def quantized_in(path):
    """The tensors that a model in QDQ form quantizes, by the float model's names."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            found.add(node.input[0].removesuffix("_QuantizeLinear_Input"))
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            found.add(node.input[0].removesuffix("_quantized"))
    return found


def nodes_of(board, left):
    return [node for place in left for node in board.operators[place].nodes]


# --- all on, all off ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", QDQ)
def test_all_on_is_the_quantized_model_and_all_off_the_float_one(board_of, form):
    board = board_of(form)
    everything = range(len(board.operators))
    for sample in range(board.num_samples):
        (on,), (quantized,) = board.run(sample), board.quantized_outputs(sample)
        (off,), (floating,) = board.run(sample, everything), board.float_outputs(sample)
        np.testing.assert_array_equal(on, quantized)
        np.testing.assert_allclose(off, floating, rtol=1e-5, atol=1e-7)
        assert np.abs(quantized - floating).max() > 1e-4


def test_both_ends_of_a_network_of_other_operators(wide):
    board = wide_board(wide)
    assert board.outputs == ["y", "z"]
    everything = range(len(board.operators))
    for sample in range(board.num_samples):
        for on, quantized in zip(board.run(sample), board.quantized_outputs(sample), strict=True):
            np.testing.assert_array_equal(on, quantized)
        ends = zip(board.run(sample, everything), board.float_outputs(sample), strict=True)
        for off, floating in ends:
            np.testing.assert_allclose(off, floating, rtol=1e-4, atol=1e-6)


def test_operators_are_named_as_in_the_report_and_as_the_converter_takes_them(board_of):
    board = board_of()
    named = [(operator.layer, operator.nodes, operator.op) for operator in board.operators]
    assert named == [
        ("r1", ("conv1", "relu1"), "Conv"),
        ("r6", ("depthwise", "relu6"), "Conv"),
        ("c2", ("conv2",), "Conv"),
        ("a", ("add",), "Add"),
        ("m", ("pool",), "MaxPool"),
        ("g", ("average",), "GlobalAveragePool"),
        ("f", ("flatten",), "Flatten"),
        ("l", ("dense",), "Gemm"),
        ("p", ("softmax",), "Softmax"),
    ]
    assert board.neighbours[:3] == [{0}, {0, 1, 3}, {1, 2}]  # x, r1, r6
    assert board.fixed == []


# --- the converter's rule -----------------------------------------------------------------------


def test_excluding_one_node_of_two_frees_nothing(wide):
    board = wide_board(wide)
    place = {operator.nodes[0]: i for i, operator in enumerate(board.operators)}
    assert "m1" in board.quantized([place["matmul1"]])
    assert "m1" in board.quantized([place["add1"]])
    assert "m1" not in board.quantized([place["matmul1"], place["add1"]])
    # The Gather of `x` comes later and quantizes only what is quantized already.
    assert board.quantized([place["matmul1"]]) == board.quantized() - {"w1", "x", "h1", "z"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_the_same_tensors_stay_quantized_as_when_quantizing_again(wide, seed):
    board = wide_board(wide)
    rng = np.random.default_rng(seed)
    count = len(board.operators)
    left = rng.choice(count, rng.integers(1, count), replace=False).tolist()
    quantize(wide, "again.onnx", nodes_of(board, left))
    assert board.quantized(left) == quantized_in(wide / "again.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qdq-uint8", "qdq-keeps-relu", "qdq-per-channel"])
@pytest.mark.parametrize("left", [[0], [1, 2], [7], [0, 1, 2], [7, 8], [3, 4, 5]])
def test_outputs_are_those_of_quantizing_again(board_of, models, tmp_path, form, left):
    board = board_of(form)
    if form == "qdq-keeps-relu":  # its ReLUs are operators of their own
        left = [place for place, o in enumerate(board.operators) if o.nodes[0].startswith("conv")]
    options = {"quant_format": QuantFormat.QDQ, **STATIC[form]}
    quantize_static(
        models / "float.onnx",
        tmp_path / "again.onnx",
        Calibration(),
        nodes_to_exclude=nodes_of(board, left),
        **options,
    )
    again = session(onnx.load(tmp_path / "again.onnx"))
    # Weights that onnxruntime quantizes when it loads the model get scales of their own.
    at_load = board.quantized(left) - quantized_in(tmp_path / "again.onnx")
    steps = 3 / 255 if at_load else 1e-6
    if at_load:
        again = ort.InferenceSession(str(tmp_path / "again.onnx"))
    for sample, x in enumerate(np.load(models / "x.npy")):
        (expected,) = again.run(None, {"x": x[None]})
        np.testing.assert_allclose(board.run(sample, left)[0], expected, rtol=0, atol=steps)


def test_only_the_kinds_that_were_quantized_hold_tensors(wide):
    """With op_types_to_quantize, an Add between two tensors of MatMuls holds none of them."""
    quantize(wide, "matmuls.onnx", op_types_to_quantize=["MatMul"])
    board = wide_board(wide, "matmuls.onnx")
    assert {operator.op for operator in board.operators} == {"MatMul"}
    for left in ([0], [1], [0, 1], [2]):
        quantize(wide, "again.onnx", nodes_of(board, left), op_types_to_quantize=["MatMul"])
        assert board.quantized(left) == quantized_in(wide / "again.onnx")


# --- changes ------------------------------------------------------------------------------------


def test_a_layer_in_more_bits_is_exact(board_of):
    board = board_of()
    everything = {layer.name: None for layer in board.layers}
    (off,), (exact,) = board.float_outputs(0), board.run(0, changes=everything)
    np.testing.assert_allclose(exact, off, atol=1e-4)  # but for biases
    (one,) = board.run(0, changes={"c2": None})
    assert np.abs(one - board.run(0)[0]).max() > 1e-5


def test_an_activation_gets_another_scale(board_of, models, tmp_path):
    """As in the model itself with another constant."""
    board = board_of("qdq-uint8")
    layer = next(layer for layer in board.layers if layer.name == "c2")
    params = QuantParams.of(2 * layer.params.scale, layer.params.zero_point, layer.params.dtype)
    model = onnx.load(models / "qdq-uint8.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "c2_scale":
            tensor.CopyFrom(numpy_helper.from_array(params.scale[0].astype(np.float32), "c2_scale"))
    (expected,) = session(model).run(None, {"x": np.load(models / "x.npy")[:1]})
    (changed,) = board.run(0, changes={"c2": params})
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(board.run(0)[0], board.quantized_outputs(0)[0])


def test_tensors_that_share_a_scale_change_together(board_of):
    board = board_of("qdq-uint8")
    by_name = {layer.name: layer for layer in board.layers}
    scale = 3 * by_name["g"].params.scale
    params = QuantParams.of(scale, by_name["g"].params.zero_point, "uint8")
    np.testing.assert_array_equal(
        board.run(0, changes={"g": params})[0], board.run(0, changes={"f": params})[0]
    )


def test_weights_get_any_parameters(board_of):
    board = board_of()
    weight = next(layer for layer in board.layers if layer.name == "w2")
    assert (weight.kind, weight.operators) == ("weight", {2})
    same = board.run(0, changes={"w2": weight.params})[0]
    np.testing.assert_allclose(same, board.run(0)[0], atol=1e-6)
    coarse = QuantParams.of(weight.params.scale * 20, 0, "int8")
    assert np.abs(board.run(0, changes={"w2": coarse})[0] - same).max() > 1e-4


def test_changes_that_cannot_be_are_told(board_of):
    board = board_of()
    assert isinstance(board, TunableBoard)
    said = message(board.run, 0, (), {"c2": QuantParams.of(0.1, 0, "int16")})
    assert said == "layer 'c2': found 16-bit int16, expected 8-bit int8"
    assert "no layer 'nope'" in message(board.run, 0, (), {"nope": None})


def test_floats_are_the_float_models_own(board_of):
    board = board_of()
    values = board.floats(["c2", "w1", "p"], 1)
    assert {name: array.shape for name, array in values.items()} == {
        "c2": (1, 8, 8, 8),
        "w1": (8, 3, 3, 3),
        "p": (1, 10),
    }
    np.testing.assert_array_equal(values["p"], board.float_outputs(1)[0])


# --- what cannot be switched --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["qop-int8", "dynamic"])
def test_a_model_without_switches_is_one_line(board_of, form):
    said = message(board_of, form)
    assert f"{form}.onnx: nothing can be switched to float: '" in said
    assert said.endswith("expected a model in QDQ form")


def test_what_has_no_partner_stays_quantized_and_is_listed(board_of, models, tmp_path):
    """A weight that the float model has in another shape."""
    model = onnx.load(models / "float.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "wf":
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.T), "wf"))
    for node in model.graph.node:
        if node.name == "dense":
            node.ClearField("attribute")
            node.op_type, node.input[0] = "Gemm", "f"
    onnx.save(model, tmp_path / "float.onnx")
    names = [str(tmp_path / "float.onnx"), str(models / "qdq-int8.onnx")]
    board = open_board(names, str(models / "x.npy"))
    off = board.run(0, range(len(board.operators)))
    np.testing.assert_allclose(off[0], board.float_outputs(0)[0], atol=1e-6)


def test_outputs_without_floats_are_refused(models, tmp_path):
    for form in ("float", "qdq-int8"):
        model = onnx.load(models / f"{form}.onnx")
        model.graph.node.append(NODE("ArgMax", ["p"], ["best"], "best"))
        model.graph.output[0].CopyFrom(
            onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, ["N", 1])
        )
        onnx.save(model, tmp_path / f"{form}.onnx")
    names = [str(tmp_path / f"{form}.onnx") for form in ("float", "qdq-int8")]
    said = message(open_board, names, str(models / "x.npy"))
    assert said.endswith("found no float among 1 outputs, expected at least one")


def test_samples_are_limited(board_of):
    assert board_of().num_samples == 5
    assert board_of(samples=2).num_samples == 2


def test_operators_in_control_flow_run_as_they_are(wide, tmp_path):
    """A branch that reads a tensor of the main graph still finds it."""
    branch = onnx.helper.make_graph(
        [NODE("Sigmoid", ["s1"], ["b"], "inner")],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None)],
    )
    model = wide_network()
    softmax = next(node for node in model.graph.node if node.name == "softmax")
    chosen = NODE("If", ["cond"], ["p1"], "choice", then_branch=branch, else_branch=branch)
    softmax.CopyFrom(chosen)
    onnx.save(model, tmp_path / "float.onnx")
    quantize(tmp_path, "int8.onnx")
    names = [str(tmp_path / name) for name in ("float.onnx", "int8.onnx")]
    board = open_board(names, str(wide / "x.npy"))
    everything = range(len(board.operators))
    np.testing.assert_array_equal(board.run(0)[0], board.quantized_outputs(0)[0])
    np.testing.assert_allclose(board.run(0, everything)[0], board.float_outputs(0)[0], atol=1e-5)
    quantize(tmp_path, "again.onnx", nodes_of(board, [1, 4]))
    assert board.quantized([1, 4]) == quantized_in(tmp_path / "again.onnx")
