"""Hostile names of layers in everything that qdebug writes."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qdebug.names import from_spreadsheet, printable
from tests.hostile.names import HOSTILE_NAMES
from tests.hostile.npz import members, zipped
from tests.hostile.trial import Ended, run

NAMES = list(HOSTILE_NAMES.values())


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A pair file of all these names at once."""
    content: dict[str, bytes] = {}
    for name in NAMES:
        content |= members(name)
    zipped(tmp_path / "x.npz", content)
    return tmp_path / "x.npz"


def sound(command: list[str], folder: Path, *written: str, status: int = 0) -> Ended:
    ended = run(command, folder, written)
    assert not ended.problem, ended
    assert ended.status == status, ended
    return ended


def test_json_keeps_them_as_they_are(pairs: Path) -> None:
    out = sound(["report", str(pairs), "--format", "json"], pairs.parent).out
    assert [layer["name"] for layer in json.loads(out)["layers"]] == NAMES


@pytest.mark.parametrize("form", ["csv", "tflite-csv"])
def test_no_cell_of_a_csv_is_a_formula_and_each_comes_back(form: str, pairs: Path) -> None:
    out = sound(["report", str(pairs), "--format", form], pairs.parent).out
    rows = list(csv.DictReader(io.StringIO(out)))
    column = "layer" if form == "csv" else "tensor_name"
    assert [from_spreadsheet(row[column]) for row in rows] == [printable(name) for name in NAMES]
    # A spreadsheet takes the full-width forms for the plain ones, and skips leading spaces.
    begin = {cell.lstrip(" ")[:1] for row in rows for cell in (row[column],)}
    assert not begin & set("=+-@\uff1d\uff0b\uff0d\uff20")


@pytest.mark.parametrize("form", ["table", "markdown", "html", "model-explorer"])
def test_nothing_moves_the_cursor_or_turns_the_text_around(form: str, pairs: Path) -> None:
    out = sound(["report", str(pairs), "--format", form], pairs.parent).out
    assert not any(mark in out for mark in "\u202e\u200b\ufeff\x9b")


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_no_name_is_markup(form: str, pairs: Path) -> None:
    out = sound(["report", str(pairs), "--format", form], pairs.parent).out
    if form == "markdown":
        markdown = pytest.importorskip("markdown", reason="comes with mkdocs")
        out = markdown.markdown(out, extensions=["tables"])
    assert "<script>alert" not in out
    assert "<img" not in out
    assert 'href="javascript' not in out


@pytest.mark.slow
def test_pictures_stay_in_their_folder(tmp_path: Path) -> None:
    names = ["../../../escaped", "/tmp/escaped", "..\\..\\escaped", "a\nb", "x" * 10_000, ""]
    content: dict[str, bytes] = {}
    for name in names:
        content |= members(name)
    zipped(tmp_path / "x.npz", content)
    (tmp_path / "out").mkdir()
    assert run(["plot", "--all", "-m", "x.npz", "-o", "out"], tmp_path).status == 0
    new = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.npz"]
    assert len(new) == len(names)
    assert {path.parent for path in new} == {tmp_path / "out"}


def test_annotations_and_junit(pairs: Path) -> None:
    command = ["check", str(pairs), "--max-rmse-scale", "0.001"]
    out = sound([*command, "--format", "github"], pairs.parent, status=1).out
    assert all(line.startswith("::error title=") for line in out.splitlines())
    junit = sound([*command, "--format", "junit"], pairs.parent, status=1).out
    assert len(list(ElementTree.fromstring(junit).iter("testcase"))) == len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["explain", NAMES[2], "-m"], ["suggest"]])
def test_words_about_a_layer(command: list[str], pairs: Path) -> None:
    sound([*command, str(pairs)], pairs.parent)
