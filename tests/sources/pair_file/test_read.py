"""Pair files: what can be read, what cannot and what is said of it."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from tests import oracle
from tests.pairs import read

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"float": None}, "field 'float': found nothing"),
        ({"quantized": None}, "field 'quantized': found nothing"),
        ({"scale": None}, "field 'scale': found nothing"),
        ({"float": np.zeros(1000, int)}, "field 'float': found int64, expected float16"),
        ({"float": np.zeros(1000, complex)}, "field 'float': found complex128"),
        ({"float": np.array([{}] * 1000)}, "field 'float': found pickled objects"),
        ({"quantized": np.zeros(999, np.int8)}, "shape (999,), expected (1000,)"),
        ({"quantized": np.zeros((1000, 1), np.int8)}, "shape (1000, 1), expected (1000,)"),
        ({"quantized": np.zeros(1000)}, "field 'quantized': found float64, expected int8"),
        ({"quantized": np.zeros(1000, np.int64)}, "field 'quantized': found int64"),
        ({"model_float": np.zeros(3)}, "field 'model_float': found shape (3,)"),
        ({"model_float": np.zeros(1000, int)}, "field 'model_float': found int64"),
        ({"weights_float": np.zeros(3)}, "field 'weights_float': found shape (3,)"),
        ({"weights_float": np.zeros(0, int)}, "field 'weights_float': found int64"),
        ({"model_float": np.zeros(0)}, "field 'model_float': found shape (0,)"),
        ({"scale": 0.0}, "field 'scale': found 0.0, expected finite numbers above 0"),
        ({"scale": -0.5}, "field 'scale': found -0.5"),
        ({"scale": np.nan}, "field 'scale': found nan"),
        ({"scale": np.inf}, "field 'scale': found inf"),
        ({"scale": 1}, "field 'scale': found int64, expected floats"),
        ({"scale": "0.1"}, "field 'scale': found <U3, expected floats"),
        ({"scale": np.ones(3)}, "field 'scale': found shape (3,)"),
        ({"scale": np.ones(1000)}, "field 'axis': found nothing"),
        ({"scale": np.ones((1, 1))}, "field 'scale': found shape (1, 1)"),
        ({"zero_point": 128}, "field 'zero_point': found 128, expected codes from -128 to 127"),
        ({"zero_point": 0.0}, "field 'zero_point': found float64, expected integers"),
        ({"zero_point": 9, "bits": 4}, "found 9, expected codes from -8 to 7"),
        ({"scale": np.ones(1000), "axis": 1}, "field 'axis': found 1, expected an axis of"),
        ({"axis": 0.5}, "field 'axis': found float64"),
        ({"bits": 9}, "field 'bits': found 9, expected 2 to 8"),
        ({"bits": [4, 4]}, "field 'bits': found int64 of shape (2,)"),
        ({"bits": 4}, "field 'quantized': found codes from"),
        ({"kind": "thing"}, "field 'kind': found 'thing'"),
        ({"op": 3}, "field 'op': found int64"),
        # NumPy hands out code points that are none; Python dies of them later.
        ({"op": np.array([0x110000, 0x41], "<u4").view("<U2")[0:1]}, "field 'op': found no text"),
        ({"nodes": np.array([2**32 - 1], ">u4").view(">U1")}, "field 'nodes': found no text"),
        (
            {"op": np.zeros(1, "<U5000000")},
            "field 'op': found 20 MB of text, expected 16 MB at most",
        ),
    ],
)
def test_a_layer_that_is_no_pair_is_named_with_its_field_and_the_others_are_reported(
    change: Fields, message: str, healthy: Fields, write_pairs: Write, qdebug: Run
) -> None:
    wrong = {name: value for name, value in (healthy | change).items() if value is not None}
    path = write_pairs({"good": healthy, "wrong": wrong, "also good": healthy})
    result = qdebug("report", path)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {path}: layer 'wrong': ")
    assert message in line
    report = read(path)
    assert [layer.unreadable is None for layer in report.layers] == [True, False, True]
    verdict = report.layers[1].diagnosis
    assert verdict is not None
    assert (verdict.verdict, verdict.cause) == ("unreadable", "unreadable")


def test_a_scale_vector_must_be_as_long_as_its_axis(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].reshape(10, 100)
    codes = healthy["quantized"].reshape(10, 100)
    wrong = {"float": x, "quantized": codes, "scale": np.ones(100), "axis": 0}
    (layer,) = read(write_pairs({"wrong": wrong})).layers
    assert layer.unreadable is not None
    assert "found 100 values, expected 1 or 10, the length of axis 0" in layer.unreadable


def test_nan_and_inf_are_counted_and_left_out(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].copy()
    x[:3] = np.nan, np.inf, -np.inf
    kept = {name: v[3:] if np.ndim(v) else v for name, v in healthy.items()}
    with_gaps, without = read(write_pairs({"a": healthy | {"float": x}, "b": kept})).layers
    assert with_gaps.metrics is not None
    assert without.metrics is not None
    assert with_gaps.metrics.non_finite == 3
    assert with_gaps.metrics.rmse == pytest.approx(without.metrics.rmse, rel=1e-12)


def test_an_empty_tensor_is_a_row_without_figures(write_pairs: Write, qdebug: Run) -> None:
    empty = {"float": np.zeros((0, 4)), "quantized": np.zeros((0, 4), np.int8), "scale": 0.1}
    result = qdebug("report", write_pairs({"empty": empty}))
    assert result.exit_code == 0
    assert "1 layer, 0 elements" in result.output


@pytest.mark.parametrize("packed", [False, True])
def test_fields_that_nobody_knows_are_left_alone(
    packed: bool, healthy: Fields, write_pairs: Write
) -> None:
    objects = np.array([{}, print], object)
    path = write_pairs({"a/b/c": healthy | {"comment": objects, "date": 3}}, packed=packed)
    (layer,) = read(path).layers
    assert layer.name == "a/b/c"


def test_layers_keep_the_order_of_their_first_appearance(
    healthy: Fields, write_pairs: Write
) -> None:
    first = write_pairs(dict.fromkeys(("z", "a", "m"), healthy), "1.npz")
    second = write_pairs(dict.fromkeys(("b", "a"), healthy), "2.npz")
    assert [layer.name for layer in read(first, second).layers] == ["z", "a", "m", "b"]


def test_arrays_named_otherwise_are_found_by_templates(tmp_path: Path, qdebug: Run) -> None:
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    codes = np.rint(x / 0.01).astype(np.int8)
    path = tmp_path / "other.npz"
    np.savez(path, conv_fp32=x, conv_int8=codes, conv_scale=0.01, conv_fp32_fp32=x)
    keys = ["--keys", "float={}_fp32", "--keys", "quantized={}_int8", "--keys", "scale={}_scale"]
    result = qdebug("report", path, *keys, "--layer", "conv", "--format", "csv")
    assert result.exit_code == 0
    assert result.output.splitlines()[1].startswith("conv,")
    refused = qdebug("report", path)
    assert refused.exit_code == 2
    assert "no layer: found 'conv_fp32' and 3 more" in refused.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("float", "expected FIELD=TEMPLATE"),
        ("float=x", "with one {}"),
        ("float={}{}", "with one {}"),
        ("flaot={}", "no field 'flaot'; did you mean 'float'"),
    ],
)
def test_a_wrong_template_is_explained(option: str, message: str, qdebug: Run) -> None:
    result = qdebug("report", "x.npz", "--keys", option)
    assert result.exit_code == 2
    assert message in result.stderr


def test_same_named_layers_of_several_files_are_one(
    healthy: Fields, write_pairs: Write, qdebug: Run
) -> None:
    whole = write_pairs({"layer": healthy}, "whole.npz")
    for i in range(4):
        part = slice(i * 250, i * 250 + 250)
        fields = {n: v[part] if np.ndim(v) else v for n, v in healthy.items()}
        write_pairs({"layer": fields}, f"shard{i}.npz")
    (one,), (merged,) = (
        read(*paths).layers for paths in ([whole], sorted(whole.parent.glob("shard*.npz")))
    )
    assert one.metrics is not None
    assert merged.metrics is not None
    expected = oracle.figures(healthy["float"], healthy["quantized"], healthy["scale"])
    assert not oracle.disagreements(vars(merged.metrics), expected, float(healthy["scale"]))
    result = qdebug("report", whole.parent / "shard*.npz", whole.parent / "shard0.npz")
    assert "4 files" in result.output
    assert "1 layer, 1,000 elements" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": np.float32(0.5)}, "field 'scale': found 0.5, expected 0.0313"),
        ({"zero_point": 1}, "field 'zero_point': found 1, expected 0, as in"),
        ({"bits": 8, "narrow_range": True}, "field 'narrow_range': found True, expected False"),
        ({"op": "ADD"}, "field 'op': found ADD, expected nothing"),
        ({"quantized": np.zeros(1000, np.int16)}, "field 'quantized': found int16, expected int8"),
    ],
)
def test_files_that_disagree_on_a_layer_say_which_and_where(
    change: Fields, message: str, healthy: Fields, write_pairs: Write
) -> None:
    good = write_pairs({"layer": healthy, "other": healthy}, "good.npz")
    odd = write_pairs({"layer": healthy | change}, "odd.npz")
    layer, other = read(good, odd).layers
    assert layer.unreadable is not None
    assert layer.unreadable.startswith(f"{odd}: layer 'layer': ")
    assert message in layer.unreadable
    assert layer.unreadable.endswith(f"as in {good}")
    assert other.unreadable is None


def twice(path: Path, healthy: Fields) -> None:
    """A zip in which the layer's float stands twice."""
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for field, value in [*healthy.items(), ("float", healthy["float"])]:
            with archive.open(f"layer/{field}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(value))


def test_two_layers_of_one_name_in_a_file_are_refused(tmp_path: Path, healthy: Fields) -> None:
    path = tmp_path / "twice.npz"
    twice(path, healthy)
    (layer,) = read(path).layers
    assert layer.unreadable is not None
    assert "field 'float': found 2 arrays of this name" in layer.unreadable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an .npz file"),
        (b"layer,scale\nconv,0.1\n", "File is not a zip file; expected an .npz file"),
        (b"\x93NUMPY\x01\x00", "found a single array (.npy)"),
        (b"PK\x05\x06" + bytes(18), "no layer: found nothing"),
        (b"PK\x03\x04" + bytes(100), "expected an .npz file"),
    ],
)
def test_files_of_another_kind_are_told_apart(
    content: bytes, message: str, tmp_path: Path, qdebug: Run
) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    result = qdebug("report", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {path}: ")
    assert message in result.stderr


def test_missing_files_directories_and_globs_without_match(tmp_path: Path, qdebug: Run) -> None:
    for source, message in [
        (tmp_path / "none.npz", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "*.npz", "no file matches"),
    ]:
        result = qdebug("report", source)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_broken_file_among_good_ones_is_named_and_the_rest_reported(
    healthy: Fields, write_pairs: Write, qdebug: Run
) -> None:
    good = write_pairs({"layer": healthy}, "good.npz")
    broken = good.with_name("broken.npz")
    broken.write_bytes(b"not a zip")
    result = qdebug("report", broken, good)
    assert result.exit_code == 2
    assert "1 layer, 1,000 elements" in result.output
    assert f"{broken}: " in result.stderr
