"""``qdebug explain``: one layer on a screen of 80 columns, or as JSON, whatever the source."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.measure.metrics import FIGURES
from qdebug.render.explain import explained
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.json import loads
from qdebug.sources.pair_file.read import PairFiles
from tests.paths import SAMPLES

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]
FAULTY = SAMPLES / "digits_faulty.npz"
ADD = "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_one_layer_with_what_is_normal_and_what_would_help(qdebug: Run) -> None:
    result = qdebug("explain", "block_add", "-m", FAULTY)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == ADD
    assert "ADD, activation, int8, shape 40x8x8x8, scale 0.00900, zero point -128" in lines[1]
    rows = {line.split("  ")[0].strip(): line for line in lines}
    assert rows["clipped [%]"].split() == ["clipped", "[%]", "3.97", "0"]
    assert "40.4 % zeros" in rows["rmse/scale"]
    assert rows["floats"].endswith("0 to 2.30 can be represented")
    assert [line for line in lines if " *" in line] == [rows["min/max affine *"]]
    assert "+30.2" in rows["min/max affine *"]
    assert (
        "The smallest change that helps: min/max affine, 0 to 5.89 (scale 0.0231" in result.output
    )
    for label in ("as recorded", "with its codes", "percentile 99.9", "per channel", "int16"):
        assert label in rows


@pytest.mark.slow
def test_every_layer_of_the_samples_fits_80_columns(qdebug: Run) -> None:
    for name in ("digits.npz", "digits_faulty.npz"):
        result = qdebug("explain", "*", "-m", SAMPLES / name)
        assert result.exit_code == 0
        assert widest(result.output) <= 80
        pages = result.output.split("=" * 80)
        assert len(pages) == 20
        for page in pages:
            assert page.count("\n") < 60
            assert "\n\n\n" not in page.strip()


def test_the_worst_channels_are_named(qdebug: Run, write_pairs: Write) -> None:
    x = np.random.default_rng(0).normal(size=(100, 8))
    scale = np.full(8, 0.03)
    scale[[2, 6]] = 0.01, 0.005
    codes = np.clip(np.rint(x / scale), -128, 127).astype(np.int8)
    fields = {"float": x, "quantized": codes, "scale": scale, "axis": 1}
    result = qdebug("explain", "w", "-m", write_pairs({"w": fields}))
    lines = result.output.splitlines()
    first = lines.index("The worst of 8 channels:") + 4
    assert [line.split()[0] for line in lines[first : first + 2]] == ["6", "2"]
    assert len(lines[first : lines.index("", first)]) == 5


@pytest.mark.slow
def test_json_holds_the_report_and_the_alternatives(qdebug: Run, tmp_path: Path) -> None:
    out = tmp_path / "explained.json"
    assert qdebug("explain", ADD, "AvgPool", "-m", FAULTY, "-o", out).exit_code == 0
    data = json.loads(out.read_text())
    assert data == json.loads(
        qdebug("explain", ADD, "AvgPool", "-m", FAULTY, "--format", "json").output
    )
    assert data["schema"] == "qdebug.explain/1"
    assert [layer["name"] for layer in data["layers"]] == [ADD, "digits_1/pool_1/AvgPool"]
    layer = data["layers"][0]
    assert set(layer["metrics"]) == set(FIGURES)
    found = {each["name"]: each for each in layer["what_if"]["alternatives"]}
    assert list(found) == [
        *("as_recorded", "affine", "symmetric", "percentile_99.9", "percentile_99.99", "mse"),
        *("per_channel", "int16", "int4"),
    ]
    assert set(found["affine"]) == {
        *("name", "change", "dtype", "bits", "narrow_range", "axis", "scale", "zero_point"),
        *("rmse", "rmse_scale", "sqnr_db", "change_db", "clipped", "needs_clamp"),
    }
    assert found["as_recorded"]["scale"] == layer["scale"]
    assert found["as_recorded"]["change_db"] == 0
    assert found["int4"]["bits"] == 4
    assert len(found["per_channel"]["scale"]) == 8
    advice = layer["what_if"]["recommendation"]
    assert advice["alternative"] == "affine"
    assert advice["gain_db"] == pytest.approx(30.2, abs=0.05)
    assert advice["sqnr_db"] == pytest.approx(layer["metrics"]["sqnr_db"] + advice["gain_db"])
    assert "min/max affine" in advice["text"]


@pytest.mark.slow
def test_a_saved_report_has_all_but_the_alternatives(qdebug: Run, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    qdebug("report", FAULTY, "-o", saved)
    fresh = qdebug("explain", "*", "-m", FAULTY).output.split("=" * 80)
    pages = qdebug("explain", "*", "-m", saved).output.split("=" * 80)
    for page, whole in zip(pages, fresh, strict=True):
        known, _, rest = page.partition("Other ways to quantize these floats: needs the tensors")
        assert rest
        assert whole.startswith(known)
    data = json.loads(qdebug("explain", "block_add", "-m", saved, "--format", "json").output)
    assert data["layers"][0]["what_if"] is None
    csv = tmp_path / "tflite.csv"
    qdebug("report", FAULTY, "--format", "tflite-csv", "-o", csv)
    result = qdebug("explain", "block_add", "-m", csv)
    assert result.exit_code == 0
    assert "rmse/scale" in result.output
    assert "clipped" not in result.output
    assert "needs the tensors" in result.output


@pytest.mark.slow
def test_a_diagnosis_is_shown_and_wraps(qdebug: Run, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    qdebug("report", FAULTY, "-o", saved)
    layer = loads(saved.read_text(), "r").layers[3]
    evidence = "3.1 % of the floats lie above 5.98 \x1b[2J, the largest representable value " * 3
    said = Diagnosis("bad", "clipping", evidence, "widen the range")
    object.__setattr__(layer, "diagnosis", said)
    text = explained(layer, None, 60)
    assert widest(text) <= 60
    assert (
        "\ncause     clipping (bad)\nevidence  3.1 % of the floats lie above 5.98 \\x1b[2J," in text
    )
    assert "\nadvice    widen the range\n" in text
    object.__setattr__(layer, "diagnosis", None)
    assert "cause" not in explained(layer, None)


@pytest.mark.parametrize(
    "name",
    [
        "\x1b[31mred\x1b[0m",
        "a\nb\r\tc",
        "../../etc/passwd",
        "=HYPERLINK(1)",
        "x" * 5000,
        "with   spaces and - hyphens " * 20,
        "\u202ereversed",
        "",
        "[ab]*",
    ],
)
def test_names_do_no_harm(name: str, qdebug: Run, healthy: Fields, write_pairs: Write) -> None:
    result = qdebug("explain", name, "-m", write_pairs({name: healthy}))
    assert result.exit_code == 0
    assert widest(result.output) <= 80
    assert not set(result.output) & set("\x1b\r\t\u202e")
    values = qdebug("explain", name, "-m", write_pairs({name: healthy}), "--format", "json")
    assert json.loads(values.output)["layers"][0]["name"] == name


def test_wrong_layers_are_explained(
    qdebug: Run, healthy: Fields, write_pairs: Write, tmp_path: Path
) -> None:
    broken = {k: v for k, v in healthy.items() if k != "scale"}
    path = write_pairs({"good": healthy, "goods": healthy, "broken": broken})
    for args, message in [
        (("god",), "no layer 'god'; did you mean 'good'"),
        (("goo",), "is a part of 2 layers' names"),
        (("broken",), "layer 'broken': field 'scale': found nothing"),
        ((), "Missing argument 'LAYER...'"),
        (("good", "--format", "xml"), "'xml' is not one of"),
        (("good", "-o", tmp_path / "no" / "x.txt"), "cannot be written"),
        (("good", "--inputs", "x.npz"), "--inputs goes with"),
        (("good", "-m", tmp_path / "no.npz", "-m", tmp_path / "r.json"), "expected it alone"),
    ]:
        result = qdebug("explain", *args, "-m", path)
        assert result.exit_code == 2, args
        assert message in result.stderr
        assert not result.stdout
    result = qdebug("explain", "*", "-m", path)
    assert result.exit_code == 2
    assert result.stdout.startswith("good\n")
    assert "field 'scale': found nothing" in result.stderr
    values = json.loads(qdebug("explain", "broken", "-m", path, "--format", "json").stdout)
    assert values["layers"][0]["what_if"] is None
    assert values["layers"][0]["diagnosis"]["cause"] == "unreadable"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"float": np.zeros(1000)},
        {"float": np.full(1000, np.nan)},
        {"float": np.append(np.inf, np.ones(999))},
        {"float": np.full(1000, -1e300)},
        {"float": np.full(1000, 1e-300)},
        {"float": np.zeros(0), "quantized": np.zeros(0, np.int8)},
        {"float": np.float32(3), "quantized": np.int8(4)},
        {"scale": 1e-30},
        {"scale": 1e30},
        {"scale": np.logspace(-100, 100, 1000), "zero_point": np.arange(-500, 500) // 4, "axis": 0},
        {"quantized": np.zeros(1000, np.int32), "scale": 1e-9},
        {"quantized": np.zeros(1000, np.int8), "bits": 2},
        {"kind": "bias"},
        {"op": "\x1b[2J" * 100},
    ],
)
def test_strange_layers_are_explained(
    change: Fields, qdebug: Run, healthy: Fields, write_pairs: Write
) -> None:
    path = write_pairs({"layer": healthy | change})
    result = qdebug("explain", "layer", "-m", path)
    assert result.exit_code == 0
    assert widest(result.output) <= 80
    assert "nan" not in result.output
    assert "\x1b" not in result.output
    assert qdebug("explain", "layer", "-m", path, "--format", "json").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32\x1b"},
        {"dtype": "int8", "bits": 10**9},
        {"bits": -3},
        {"zero_point": 10**18},
        {"scale": 0},
        {"scale": [1e300, -1e300], "zero_point": [10**18, 1]},
        {"shape": [10**18] * 100},
        {"narrow_range": None, "kind": "\x1b", "op": "=1"},
        {"metrics": {"num_elements": 0}},
        {"metrics": {"num_elements": -5, "rmse_scale": 1e308, "rmse_scale_expected": -1e308}},
        {"metrics": {"num_elements": 10**18, "rmse_scale_expected": 1e300, "clipped": 1e308}},
    ],
)
def test_a_report_made_by_hand_is_explained(change: Fields, qdebug: Run, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    qdebug("report", FAULTY, "-o", saved)
    data = json.loads(saved.read_text())
    data["layers"][3] |= change
    saved.write_text(json.dumps(data))
    result = qdebug("explain", data["layers"][3]["name"], "-m", saved)
    assert result.exit_code == 0
    assert widest(result.output) <= 80
    assert "\x1b" not in result.output
    data["layers"][3]["zero_point"] = 10**400
    saved.write_text(json.dumps(data))
    result = qdebug("explain", data["layers"][3]["name"], "-m", saved)
    assert result.exit_code == 2
    assert "field 'zero_point': found 1000" in result.stderr


def test_a_layer_that_breaks_on_the_way_is_an_error(
    qdebug: Run, healthy: Fields, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs({"layer": healthy})
    parts = PairFiles.parts
    calls = []

    def vanishing(self: PairFiles, layers: Any) -> Any:
        calls.append(layers)
        if len(calls) == 2:
            path.unlink()
        return parts(self, layers)

    monkeypatch.setattr(PairFiles, "parts", vanishing)
    result = qdebug("explain", "layer", "-m", path)
    assert result.exit_code == 2
    assert "No such file" in result.stderr
