"""``qdebug report``: the table, its formats, and what it makes of hostile names."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.measure.metrics import FIGURES
from qdebug.render import plots
from qdebug.render.columns import COLUMNS
from qdebug.report import json as report_json
from qdebug.run import session
from qdebug.sources.pair_file.read import PairFiles
from tests.pairs import read
from tests.paths import SAMPLES

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]

DIGITS = SAMPLES / "digits.npz"
FAULTY = SAMPLES / "digits_faulty.npz"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved report of the faulty network."""
    path = tmp_path_factory.mktemp("saved") / "faulty.json"
    path.write_text(report_json.dumps(read(FAULTY)))
    return path


def test_the_table_opens_with_what_was_read_and_closes_with_the_worst(qdebug: Run) -> None:
    result = qdebug("report", DIGITS)
    lines = result.output.splitlines()
    assert lines[0] == f"{DIGITS}: 20 layers, 115,058 elements"
    assert "5 of 20 layers above what rounding alone gives" in lines[-2]
    assert "the worst: digits_1/tail_relu_1/Relu;" in lines[-2]
    assert lines[-1].startswith("next: qdebug explain 'digits_1/tail_relu_1/Relu;")
    assert result.exit_code == 0
    assert "\x1b" not in result.output


def test_every_planted_fault_shows(qdebug: Run) -> None:
    """The five faults of sample_models/README.md, each by its figure."""
    layers = {
        layer["name"]: layer["metrics"]
        for layer in json.loads(qdebug("report", FAULTY, "--format", "json").output)["layers"]
    }

    def of(part: str) -> dict[str, Any]:
        (found,) = [metrics for name, metrics in layers.items() if part in name]
        return found

    assert of("block_add_1/Add")["clipped"] == pytest.approx(0.04, abs=0.001)
    assert of("stem_bn_1/batchnorm/sub1")["mean_error_scale"] == pytest.approx(-3, abs=0.1)
    assert of("block_pw_bn_1/batchnorm/sub1")["mean_error_scale"] == pytest.approx(-0.5, abs=0.01)
    assert of("tail_bn_1/batchnorm/sub1")["sqnr_db"] < 20
    assert of("block_dw_bn_1/batchnorm/sub1")["range_waste"] == pytest.approx(0.6, abs=0.03)


def test_json_holds_every_figure_and_loads_back_without_loss(qdebug: Run, tmp_path: Path) -> None:
    text = qdebug("report", DIGITS, "--format", "json").output
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["schema"] == "qdebug.report/1"
    for layer in data["layers"]:
        assert set(layer["metrics"]) == set(FIGURES)
        assert (layer["channels"] is None) == (layer["axis"] is None)
        for channel in layer["channels"] or []:
            assert set(channel) == {"scale", "zero_point", *FIGURES}
    fresh = session.run(PairFiles([str(DIGITS)]))
    assert report_json.loads(text, "report.json") == fresh
    saved = tmp_path / "report.json"
    saved.write_text(text)
    for form in ("table", "markdown", "csv", "json"):
        args = ("--format", form)
        ours, theirs = (qdebug("-q", "report", each, *args).output for each in (saved, DIGITS))
        assert ours == theirs


def test_csv_has_every_column_in_full_precision(qdebug: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(qdebug("report", DIGITS, "--format", "csv").output)))
    assert list(rows[0]) == [name for name in COLUMNS if name != "channel"]
    fresh = session.run(PairFiles([str(DIGITS)]))
    output, *rows = rows
    assert (output["layer"], output["kind"], output["cause"]) == ("output_0", "output", "")
    assert float(output["sqnr_db"]) == pytest.approx(fresh.outputs[0].sqnr_db, rel=1e-12)
    for row, layer in zip(rows, fresh.layers, strict=True):
        assert layer.metrics is not None
        for figure in FIGURES:
            value = getattr(layer.metrics, figure)
            assert row[figure] == ("" if value is None else repr(value))


def test_rows_can_be_channels(qdebug: Run) -> None:
    text = qdebug(
        *("report", DIGITS, "--layer", "*stem_conv_1/convolution", "--per-channel"),
        *("--format", "csv", "--columns", "layer,channel,scale,rmse_scale"),
    ).output
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["channel"] for row in rows] == [str(c) for c in range(8)]
    assert len({row["scale"] for row in rows}) == 8


@pytest.mark.parametrize("column", list(COLUMNS))
def test_every_column_can_be_sorted_by_and_shown(column: str, saved: Path, qdebug: Run) -> None:
    args = ("report", saved, "--sort", column, "--columns", f"layer,{column}", "--format", "csv")
    header, *rows = qdebug(*args).output.splitlines()
    assert header == f"layer,{column}"
    assert len(rows) == 20


def test_all_columns_can_be_shown_at_once(saved: Path, qdebug: Run) -> None:
    args = ("report", saved, "--columns", ",".join(COLUMNS))
    lines = qdebug(*args, "--format", "markdown").output.splitlines()
    assert [line.count("|") for line in lines] == [len(COLUMNS) + 1] * 22
    table = qdebug(*args, "--format", "table").output
    assert sum("batchnorm/sub1" in line for line in table.splitlines()) >= 4


def test_the_worst_comes_first(saved: Path, qdebug: Run) -> None:
    def sorted_by(column: str) -> list[float]:
        text = qdebug(
            *("report", saved, "--sort", column, "--columns", column, "--format", "csv")
        ).output
        return [float(cell) for cell in text.splitlines()[1:] if cell]

    for column, sign in [("rmse_scale", -1), ("sqnr_db", 1)]:
        assert sorted_by(column) == sorted(sorted_by(column), key=lambda v, s=sign: s * v)
    verdicts = qdebug(*("report", saved, "--sort", "verdict", "--columns", "verdict"), "--wide")
    order = ("unreadable", "bad", "warn", "ok")
    found = [order.index(line) for line in verdicts.output.split() if line in order]
    assert found == sorted(found)
    assert len(set(found)) == 3
    errors = [abs(value) for value in sorted_by("mean_error_scale")]
    assert errors == sorted(errors, reverse=True)
    top = qdebug("report", saved, "--sort", "rmse_scale", "--top", "1", "--format", "csv").output
    assert "block_add_1/Add" in top
    assert len(top.splitlines()) == 2


def test_layers_are_chosen_by_glob_and_an_unknown_one_gets_the_nearest(qdebug: Run) -> None:
    chosen = qdebug("report", DIGITS, "--layer", "*logits*", "--layer", "*/Mean", "--format", "csv")
    assert len(chosen.output.splitlines()) == 1 + 4
    unknown = qdebug("report", DIGITS, "--layer", "digits_1/gap_1/Maen")
    assert unknown.exit_code == 2
    assert "no layer 'digits_1/gap_1/Maen'; did you mean 'digits_1/gap_1/Mean'" in unknown.stderr


HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "a\nb\r\nc",
    "=cmd|'/C calc'!A0",
    "../../etc/passwd",
    "/absolute",
    "<script>alert(1)</script>",
    "a|b`c``d",
    "$x^2$ \\frac{1}{0}",
    "\u202egnp.exe",
    "x" * 5000,
    "",
    " ",
    "ação/卷积/свёртка",
    "-o",
    "%s{}{0}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_layer_names_are_data(name: str, healthy: Fields, write_pairs: Write, qdebug: Run) -> None:
    path = write_pairs({name: healthy})
    for form in ("table", "markdown", "csv", "json"):
        result = qdebug("report", path, "--format", form)
        assert result.exit_code == 0
        assert not set("\x1b\x07\r\u202e") & set(result.output)
        if form == "csv":
            ((_, cells),) = enumerate(csv.DictReader(io.StringIO(result.output)))
            assert not cells["layer"].startswith(("=", "+", "-", "@"))
        if form == "json":
            assert json.loads(result.output)["layers"][0]["name"] == name
        if form == "markdown":
            assert len(result.output.splitlines()) == 3
    assert qdebug("check", path).exit_code == 0


@pytest.mark.slow
def test_layer_names_are_data_in_pictures_too(
    healthy: Fields,
    write_pairs: Write,
    qdebug: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plots, "_DPI", 40)
    path, out = write_pairs(dict.fromkeys(HOSTILE, healthy)), tmp_path / "out"
    drawn = qdebug("plot", "--all", "-m", path, "-o", out)
    assert drawn.exit_code == 0, drawn.stderr
    written = [Path(line) for line in drawn.output.splitlines()]
    assert len(written) == len(HOSTILE)
    assert {picture.parent for picture in written} == {out}
    assert sorted(written) == sorted(out.iterdir())
    assert qdebug("plot", "--overview", "-m", path, "-o", tmp_path / "o.png").exit_code == 0


def test_source_is_looked_for_where_it_is_left_out(
    healthy: Fields,
    write_pairs: Write,
    qdebug: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no .npz file here" in qdebug("report").stderr
    write_pairs({"one": healthy}, "one.npz")
    assert "one.npz: 1 layer" in qdebug("report").output
    write_pairs({"two": healthy}, "two.npz")
    assert "2 .npz files here" in qdebug("report").stderr
    (tmp_path / "qdebug.toml").write_text('source = "two.npz"\n')
    assert "two.npz: 1 layer" in qdebug("report").output
    monkeypatch.setenv("QDEBUG_SOURCE", "one.npz")
    assert "one.npz: 1 layer" in qdebug("report").output
    assert "two.npz: 1 layer" in qdebug("report", "two.npz").output


@pytest.mark.slow
def test_output_goes_to_a_file_whole_or_not_at_all(
    qdebug: Run, tmp_path: Path, healthy: Fields, write_pairs: Write
) -> None:
    for name, start in [
        ("r.json", "{"),
        ("r.csv", "layer,"),
        ("r.md", "| output"),
        ("r.txt", f"{DIGITS}: 20"),
    ]:
        result = qdebug("report", DIGITS, "-o", tmp_path / name)
        assert (result.exit_code, result.output) == (0, "")
        assert (tmp_path / name).read_text().startswith(start)
    for target, message in [
        (tmp_path / "none" / "r.json", "cannot be written: No such file or directory"),
        (tmp_path, "found a directory"),
    ]:
        result = qdebug("report", DIGITS, "-o", target)
        assert result.exit_code == 2
        assert message in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv", "r.json", "r.md", "r.txt"]
    assert qdebug("report", DIGITS, "-o", "-").output == qdebug("report", DIGITS).output


def test_wrong_usage_is_one_line_and_status_2(qdebug: Run) -> None:
    for args, message in [
        (("reprot",), "no command 'reprot'; did you mean 'report'"),
        (("report", DIGITS, "--columns", "rmse_scal"), "no column 'rmse_scal'; did you mean 'rms"),
        (("report", DIGITS, "--sort", "size"), "no column 'size'"),
        (("report", DIGITS, "--format", "json", "--columns", "rmse"), "cannot be used with json"),
        (("report", DIGITS, "saved.json"), "found a report (.json, .csv) among others"),
        (("report", DIGITS, "--top", "0"), "--top"),
    ]:
        result = qdebug(*args)
        assert result.exit_code == 2, args
        assert message in result.stderr


def test_a_channel_wise_layer_shows_the_spread_of_its_scales(
    qdebug: Run, write_pairs: Write
) -> None:
    x = np.ones((2, 3), np.float32)
    fields = {"float": x, "quantized": np.ones((2, 3), np.int8), "scale": [0.5, 0.25], "axis": 0}
    assert "0.250..0.500" in qdebug("report", write_pairs({"w": fields})).output


@pytest.mark.slow
def test_the_table_and_the_sort_know_verdict_and_cause(qdebug: Run) -> None:
    text = qdebug("report", FAULTY).output
    for cause in ("clipping", "bias", "range-waste", "coarse-scale"):
        assert f"  {cause}" in text
    args = ("report", FAULTY, "--sort", "cause", "--columns", "verdict,cause", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(qdebug(*args).output)))
    causes = [row["cause"] for row in rows]
    assert causes == sorted(causes)
    assert {"clipping", "bias", "range-waste", "coarse-scale", "ok"} <= set(causes)
    assert {row["verdict"] for row in rows} == {"ok", "warn", "bad"}
