"""Pairs in memory: what makes one, and that they are measured as they are."""

from typing import Any

import numpy as np
import pytest

from qdebug.errors import QdebugError
from qdebug.run.session import run
from qdebug.sources.pair_file.memory import MemoryPairs, Pair
from tests import oracle

X = np.linspace(-1, 1, 24).reshape(2, 3, 4)
Q = np.round(X / 0.01).astype(np.int8)


def refused(**change: Any) -> str:
    fields: dict[str, Any] = {"floats": X, "codes": Q, "scale": 0.01, **change}
    with pytest.raises(QdebugError) as caught:
        Pair(fields.pop("floats"), fields.pop("codes"), fields.pop("scale"), **fields)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"floats": X[:1]}, "field 'quantized': found shape (2, 3, 4), expected (1, 3, 4), as"),
        ({"floats": X.astype(complex)}, "field 'float': found complex128, expected float16"),
        ({"floats": ["a"]}, "field 'float': found <U1"),
        ({"floats": None}, "field 'float': found object"),
        ({"floats": [[1.0], [1.0, 2.0]]}, "field 'float': found a value of type list (setting"),
        ({"codes": X}, "field 'quantized': found float64, expected int8, uint8, int16"),
        ({"codes": Q.astype(np.int64)}, "field 'quantized': found int64"),
        ({"codes": Q, "bits": 4}, "field 'quantized': found codes from -100 to 100, expected -8"),
        ({"scale": 0}, "field 'scale': found 0.0, expected finite numbers above 0"),
        ({"scale": np.nan}, "field 'scale': found nan"),
        ({"scale": "0.1"}, "field 'scale': found <U3, expected numbers"),
        ({"scale": [[0.1]]}, "field 'scale': found shape (1, 1)"),
        ({"scale": [0.1, 0.2]}, "field 'axis': found nothing, expected the channel axis of 2"),
        ({"scale": [0.1, 0.2], "axis": 1}, "field 'scale': found 2 values, expected 1 or 3"),
        ({"scale": [0.1, 0.2], "axis": 3}, "field 'axis': found 3, expected an axis of a tensor"),
        ({"scale": [0.1, 0.2], "axis": 0.0}, "field 'axis': found 0.0, expected a whole number"),
        ({"axis": True}, "field 'axis': found True, expected a whole number"),
        ({"zero_point": 0.5}, "field 'zero_point': found float64, expected integers"),
        ({"zero_point": None}, "field 'zero_point': found object, expected integers"),
        ({"zero_point": 128}, "field 'zero_point': found 128, expected codes from -128 to 127"),
        ({"zero_point": [0, 0], "scale": [1.0] * 3, "axis": 1}, "found 2 values, expected 1 or 3"),
        ({"bits": 9}, "field 'bits': found 9, expected 2 to 8 for int8"),
        ({"bits": "4"}, "field 'bits': found '4', expected a whole number"),
        ({"model_float": X[0]}, "field 'model_float': found shape (3, 4), expected (2, 3, 4)"),
        ({"weights_float": X[0]}, "field 'weights_float': found shape (3, 4), expected (2, 3, 4)"),
        ({"kind": "wieght"}, "field 'kind': found 'wieght', expected activation or weight or bias"),
        ({"op": 3}, "field 'op': found 3, expected text"),
        ({"nodes": [3]}, "nodes: found a value of type list, expected text or a list of texts"),
        ({"inputs": 3}, "inputs: found a value of type int, expected text or a list of texts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_pair_names_field_found_and_expected(
    change: dict[str, Any], said: str
) -> None:
    assert said in refused(**change)


def test_a_pair_has_what_it_is_made_of() -> None:
    pair = Pair(X, Q, [0.01, 0.02, 0.03], 5, axis=-2, op="CONV_2D", kind="activation", nodes="a")
    assert pair.floats is X
    assert pair.codes is Q
    assert pair.scale.tolist() == [0.01, 0.02, 0.03]
    assert pair.zero_point.tolist() == [5, 5, 5]
    assert pair.axis == 1
    assert (pair.op, pair.kind, pair.nodes) == ("CONV_2D", "activation", ("a",))
    assert repr(pair) == "<Pair float64 (2, 3, 4) to int8, 3 scales along axis 1>"


def test_other_numbers_become_float64() -> None:
    for kind in (np.longdouble, np.int32, np.bool_):
        assert Pair(np.ones(2, kind), Q[0, 0, :2], 1).floats.dtype == np.float64
    assert Pair(np.ones(2, np.float16), Q[0, 0, :2], 1).floats.dtype == np.float16


@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        lambda a: a[::-1, :, ::2],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[0, 0, 0],
    ],
    ids=["fortran", "strided", "big-endian", "transposed", "scalar"],
)
def test_arrays_are_measured_however_they_lie_in_memory(arrange: Any) -> None:
    x, q = arrange(X.astype(np.float32)), arrange(Q.astype(np.int16))
    (layer,) = run(MemoryPairs({"a": Pair(x, q, 0.01, model_float=x + 0.02)})).layers
    expected = oracle.figures(x, q, 0.01, model_float=x + 0.02)
    assert oracle.disagreements(vars(layer.metrics), expected, 0.01) == []


def test_a_source_of_pairs_has_their_layers_and_no_files() -> None:
    source = MemoryPairs({"b": Pair(X, Q, 0.01), "a": Pair(X, Q, 0.01, kind="weight")})
    assert [layer.name for layer in source.layers] == ["b", "a"]
    assert not source.files
    report = run(source)
    assert report.sources == []
    assert [layer.kind for layer in report.layers] == [None, "weight"]


@pytest.mark.parametrize("pairs", [{"a": X}, {1: Pair(X, Q, 0.01)}, [Pair(X, Q, 0.01)], None])
def test_what_is_no_mapping_of_names_to_pairs_is_refused(pairs: Any) -> None:
    with pytest.raises(QdebugError, match="expected"):
        MemoryPairs(pairs)
