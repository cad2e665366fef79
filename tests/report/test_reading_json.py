"""Reading a saved report is nearly as fast as its JSON, and as strict for the last channel."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.errors import QdebugError
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block, Layer
from qdebug.measure.metrics import layer_metrics
from qdebug.report import json as report_json
from qdebug.report.json import dumps, loads
from qdebug.report.report import Report, layer_report


def report(channels: int) -> Report:
    """A layer with one scale per channel, and a layer with a single scale."""
    x = np.random.default_rng(0).normal(size=(1, channels, 20))
    layers = []
    for scale, axis in ((np.abs(x).max(axis=(0, 2)) / 127, 0), (0.05, None)):
        params = QuantParams.of(scale, 0, axis=axis)
        values = x if axis == 0 else x.reshape(1, 1, -1)
        codes = np.rint(values / params.scale[:, None]).clip(-128, 127).astype(np.int8)
        statistics = measure(Block(values, codes), params)
        layer = Layer(f"layer {axis}", params, x.shape[1:])
        layers.append(layer_report(layer, statistics, layer_metrics(statistics, params)))
    return Report(["pairs.npz"], layers)


@pytest.mark.parametrize("channels", [2, 200])
def test_a_field_is_checked_once_for_all_channels(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks by field, not by channel: thousands are read nearly as fast as their JSON."""
    checks = 0
    original = report_json._fit

    def counted(values: Any, kind: Any) -> bool:
        nonlocal checks
        checks += 1
        return original(values, kind)

    monkeypatch.setattr(report_json, "_fit", counted)
    written = report(channels=channels)
    assert loads(dumps(written), "r.json") == written
    assert 50 < checks < 170


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(dumps(report(channels=30)))
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("channels", 29, "rmse"), "x", "channels[29]: field 'rmse': found \"x\", expected a num"),
        (("channels", 29, "rmse"), True, "field 'rmse': found true, expected a number or null"),
        (("channels", 29, "rmse"), float("nan"), "found NaN, expected a number or null"),
        (("channels", 29, "rmse"), 10**400, "field 'rmse': found 1000"),
        (("channels", 28, "num_elements"), None, "'num_elements': found null, expected a whole"),
        (("channels", 28, "num_elements"), 1.0, "'num_elements': found 1.0, expected a whole"),
        (("channels", 28, "num_elements"), 2**63, "found 9223372036854775808, expected a whole"),
        (("channels", 28, "num_elements"), -(2**63), "found -9223372036854775808, expected a wh"),
        (("channels", 0, "scale"), None, "channels[0]: field 'scale': found null, expected a num"),
        (("channels", 0, "zero_point"), 0.5, "field 'zero_point': found 0.5, expected a whole"),
        (("channels", 7), 3, "layers[0]: field 'channels': found ["),
        (("scale",), [], "layers[0]: field 'scale': found an empty list, expected numbers"),
        (("scale", 29), "x", "layers[0]: field 'scale': found ["),
        (("zero_point", 29), False, "layers[0]: field 'zero_point': found [0, "),
        (("nodes",), [1], "field 'nodes': found [1], expected a list (text) or null"),
        (("narrow_range",), 1, "field 'narrow_range': found 1, expected true or false or null"),
        (("metrics",), [], "layers[0]: field 'metrics': found [], expected an object or null"),
        (("metrics", "mse"), {}, "layers[0].metrics: field 'mse': found {}, expected a number"),
        (("diagnosis", "advice"), None, "layers[0].diagnosis: field 'advice': found null, expe"),
    ],
)
def test_a_value_of_another_type_is_named_wherever_it_is(
    path: tuple[Any, ...], value: Any, message: str, saved: dict[str, Any]
) -> None:
    data = copy.deepcopy(saved)
    *parents, last = path
    place: Any = data["layers"][0]
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(QdebugError) as caught:
        loads(json.dumps(data), "r.json")
    assert str(caught.value).startswith("r.json: layers[0]")
    assert message in str(caught.value)


def test_a_whole_number_stands_for_a_float_and_a_missing_field_for_null(
    saved: dict[str, Any],
) -> None:
    data = copy.deepcopy(saved)
    layer = data["layers"][0]
    layer["channels"][3]["rmse"] = 2
    del layer["channels"][4]["rmse"], layer["kind"], data["layers"][1]["metrics"]["mse"]
    read = loads(json.dumps(data), "r.json").layers
    assert read[0].channels is not None
    assert [read[0].channels[i].metrics.rmse for i in (3, 4)] == [2, None]
    assert read[1].metrics is not None
    assert (read[0].kind, read[1].metrics.mse) == (None, None)
