"""``qdebug plot``: which layers are drawn, and into which files."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from click.testing import Result
from matplotlib.figure import Figure

from qdebug import api
from qdebug.render import plots
from qdebug.report.json import loads
from tests.paths import SAMPLES

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]

DIGITS = SAMPLES / "digits.npz"


def png(figure: Figure) -> bytes:
    file = BytesIO()
    plots.save(figure, file)
    return file.getvalue()


@pytest.mark.slow
def test_one_picture_a_layer_named_after_it(qdebug: Run, tmp_path: Path) -> None:
    result = qdebug("plot", "*conv*/convolution", "-m", DIGITS, "-o", tmp_path / "pictures")
    assert result.exit_code == 0
    written = [Path(line) for line in result.output.splitlines()]
    assert [path.name for path in written] == [
        "digits_1_stem_conv_1_convolution.png",
        "digits_1_tail_conv_1_convolution.png",
    ]
    report = api.analyze(DIGITS)
    for path, part in zip(written, ("stem_conv", "tail_conv"), strict=True):
        assert path.read_bytes() == png(report[f"digits_1/{part}_1/convolution"].plot())


def test_a_unique_part_of_a_name_is_enough_and_others_are_explained(
    qdebug: Run, tmp_path: Path
) -> None:
    assert qdebug("plot", "AvgPool", "-m", DIGITS, "-o", tmp_path / "one.png").exit_code == 0
    for part, message in [
        ("logits", "is a part of 3 layers' names"),
        ("AvgPol", "no layer 'AvgPol'"),
        ("digits_1/pool_1/AvgPol", "did you mean 'digits_1/pool_1/AvgPool'"),
    ]:
        result = qdebug("plot", part, "-m", DIGITS)
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.slow
def test_the_same_layer_gives_the_same_bytes(qdebug: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        qdebug("plot", "AvgPool", "-m", DIGITS, "-o", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.slow
def test_names_that_make_one_file_name_are_kept_apart(
    qdebug: Run, healthy: Fields, write_pairs: Write, tmp_path: Path
) -> None:
    path = write_pairs({"a/b": healthy, "a;b": healthy, "A b": healthy})
    result = qdebug("plot", "--all", "-m", path, "-o", tmp_path / "p")
    assert {Path(line).name for line in result.output.splitlines()} == {
        "a_b.png",
        "a_b-2.png",
        "A_b-3.png",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"quantized": np.full(1000, 127, np.int8)},
        {"float": np.zeros(1000, np.float32), "quantized": np.zeros(1000, np.int8)},
        {"float": np.full(1000, 1e30)},
        {"scale": 1e-30},
        {"quantized": np.zeros(1000, np.int32), "scale": 1e-9},
        {"quantized": np.zeros(1000, np.uint16)},
        {"quantized": np.zeros(1000, np.int8), "bits": 2},
        {"float": np.full(1000, np.nan) * 1.0},
        {"scale": np.linspace(0.01, 0.1, 1000), "axis": 0},
    ],
)
def test_strange_layers_make_a_picture_or_a_line(
    change: Fields,
    qdebug: Run,
    healthy: Fields,
    write_pairs: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plots, "_DPI", 40)
    result = qdebug("plot", "layer", "-m", write_pairs({"layer": healthy | change}), "-o", tmp_path)
    picture = tmp_path / "layer.png"
    if np.isfinite(change.get("float", 0.0)).any():
        assert result.exit_code == 0
        assert matplotlib.image.imread(picture).shape[1] == 360
    else:
        assert result.exit_code == 2
        assert "no finite element to draw" in result.stderr
        assert not picture.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_the_ending_says_what_kind_of_file(
    ending: str, start: bytes, qdebug: Run, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path in paths:
        args = ("plot", "AvgPool", "-m", DIGITS, "--what", "error", "-o", path)
        assert qdebug(*args).exit_code == 0
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_one_panel_is_smaller_than_all_and_channels_need_channels(
    qdebug: Run, tmp_path: Path
) -> None:
    heights = {}
    for what in ("all", "values", "channels"):
        figure = api.analyze(DIGITS)["digits_1/tail_conv_1/convolution"].plot(what=what)
        heights[what] = len(figure.axes), figure.get_size_inches()[1]
        if what == "channels":
            assert [text.get_text().partition(":")[0] for text in figure.axes[0].texts] == ["8"]
    assert heights["all"][1] > heights["values"][1] == heights["channels"][1]
    alone = qdebug("plot", "AvgPool", "--what", "channels", "-m", DIGITS, "-o", tmp_path)
    assert (alone.exit_code, "expected channels" in alone.stderr) == (2, True)
    every = qdebug("plot", "--all", "--what", "channels", "-m", DIGITS, "-o", tmp_path)
    assert every.exit_code == 0
    assert len(list(tmp_path.glob("*.png"))) == 10


def test_the_overview_has_the_accumulated_error_where_it_is_known() -> None:
    for name, labels in (("digits", 1), ("digits_faulty", 0)):
        figure = api.analyze(SAMPLES / f"{name}.npz").plot()
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert shown.count("accumulated") == labels


def test_overview_shows_every_layer(qdebug: Run, tmp_path: Path) -> None:
    saved, picture = tmp_path / "report.json", tmp_path / "o.png"
    qdebug("report", DIGITS, "-o", saved)
    expected = png(plots.overview_figure(loads(saved.read_text(), "report.json")))
    for source in (DIGITS, saved):
        assert qdebug("plot", "--overview", "-m", source, "-o", picture).exit_code == 0
        assert picture.read_bytes() == expected
        picture.unlink()


@pytest.mark.slow
def test_wrong_usage_is_explained(qdebug: Run, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    qdebug("report", DIGITS, "-o", saved)
    for args, message in [
        ((), "expected exactly one of LAYER..., --all or --overview"),
        (("a", "--all"), "expected exactly one of LAYER..., --all or --overview"),
        (("--all", "-m", saved), "found a report, which holds no tensors"),
        (("--all", "-m", DIGITS, "-o", "one.png"), "found the file one.png for 20 pictures"),
        (("AvgPool", "-m", DIGITS, "-o", tmp_path / "no" / "x.png"), "cannot be written"),
        (
            ("AvgPool", "-m", DIGITS, "-o", tmp_path / "x.gif"),
            "expected .png, .svg, .pdf or a directory",
        ),
    ]:
        result = qdebug("plot", *args)
        assert result.exit_code == 2, args
        assert message in result.stderr
