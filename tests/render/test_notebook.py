"""What a notebook shows of reports and layers."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import qdebug
from tests.paths import SAMPLES

Write = Callable[..., Path]

PAIR = qdebug.quantize(np.linspace(-1, 1, 100))


class Page(HTMLParser):
    """The tags of a page, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def shown(report: qdebug.Report) -> Page:
    page = Page(report._repr_html_())
    assert {*page.tags} <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    return page


def test_a_report_is_a_table_between_what_was_read_and_what_stands_out() -> None:
    report = qdebug.analyze(SAMPLES / "digits_faulty.npz")
    page = shown(report)
    assert page.texts[0] == f"{SAMPLES / 'digits_faulty.npz'}: 20 layers, 115,058 elements"
    assert page.tags.count("tr") == 1 + len(report)
    assert "clipping" in page.texts
    assert any(text.startswith("verdicts: 2 bad, 4 warn, 14 ok") for text in page.texts)


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "</td></table><img src=x onerror=alert(1)>",
        "&lt;b&gt;",
        '"><svg/onload=alert(1)>',
        "\x1b[2J\u202e\n",
        "",
    ],
)
def test_names_are_text_whatever_they_hold(name: str) -> None:
    page = shown(qdebug.analyze({name: PAIR}))
    assert page.tags.count("tr") == 2
    if name.isprintable() and name:
        assert name in page.texts
    assert all(text.isprintable() for text in page.texts if text.strip())


def test_an_unreadable_layer_is_escaped_in_its_reason_too(write_pairs: Write) -> None:
    wrong = {"float": [1.0], "quantized": np.ones(1, np.int8), "scale": 0.0}
    page = shown(qdebug.analyze(write_pairs({"<b>bold</b>": wrong})))
    assert any("layer '<b>bold</b>': field 'scale'" in text for text in page.texts)


@pytest.mark.slow
def test_a_page_stays_small() -> None:
    long = {"a" * 60_000 + str(number): PAIR for number in range(3)}
    assert len(qdebug.analyze(long)._repr_html_()) < 5_000
    many = qdebug.analyze({str(number): PAIR for number in range(300)})
    page = shown(many)
    assert page.tags.count("tr") == 1 + 200
    assert "the first 200 of 300 layers" in page.texts


def test_many_complaints_are_counted(write_pairs: Write) -> None:
    wrong = {"float": [1.0], "quantized": np.ones(1, np.int8), "scale": 0.0}
    page = shown(qdebug.analyze(write_pairs({str(number): wrong for number in range(50)})))
    assert sum("field 'scale'" in text for text in page.texts) < 20
    assert any(text.startswith("and ") and text.endswith(" more lines") for text in page.texts)


def test_a_report_without_layers_is_a_table_without_rows() -> None:
    assert shown(qdebug.analyze({})).texts[0] == "0 layers, 0 elements"


@pytest.mark.slow
def test_a_layer_is_its_picture() -> None:
    layer = qdebug.compare([0.1, 0.2], np.array([1, 2], np.int8), 0.1)
    picture = layer._repr_png_()
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert layer.plot()._repr_png_() == picture
