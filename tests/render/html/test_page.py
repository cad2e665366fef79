"""The HTML page as a file: whole, inert, of a bearable size, and true to the report."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import qdebug
from tests.paths import SAMPLES

pytest.importorskip("jinja2", reason="needs qdebug[html]")

Run = Callable[..., Result]
HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "a\u202eb\x1b[2J\nc",
    "&lt;b&gt;",
    "' onmouseover='alert(1)",
]


class Page(HTMLParser):
    """What is in a page: its tags, its text by tag, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]


@pytest.fixture(scope="module")
def faulty() -> str:
    return qdebug.analyze(SAMPLES / "digits_faulty.npz").to_html()


def of_names(names: list[str]) -> str:
    rng = np.random.default_rng(0)
    pairs = {name: qdebug.quantize(rng.normal(size=100)) for name in names}
    return qdebug.analyze(pairs).to_html()


def test_the_policy_allows_the_pages_own_style_and_scripts_and_nothing_else(faulty: str) -> None:
    page = Page(faulty)
    (policy,) = (v for t, n, v in page.attributes if (t, n) == ("meta", "content") and "src" in v)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    code = re.findall(r"<(script|style)>(.*?)</\1>", faulty, re.DOTALL)
    assert len(code) == 3
    for _, text in code:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_nothing_in_the_page_loads_or_leads_elsewhere(faulty: str) -> None:
    for tag, name, value in Page(faulty).attributes:
        assert name not in ("src", "srcset", "style", "action", "data", "poster")
        assert not name.startswith("on"), f"<{tag} {name}>"
        if name == "href":
            assert value.startswith("#")
    assert "url(" not in faulty
    assert "@import" not in faulty


def test_hostile_names_are_text() -> None:
    plain, hostile = (Page(of_names(names)) for names in (["a"] * 0 + list("abcdefgh"), HOSTILE))
    assert sorted(plain.tags) == sorted(hostile.tags)
    assert not any(n.startswith("on") for _, n, _ in hostile.attributes)
    said = "".join("".join(texts) for tag, texts in hostile.texts.items() if tag != "script")
    for name in HOSTILE:
        assert name.split("\u202e")[0] in said
    assert "\u202e" not in said
    assert "\x1b" not in said


def test_the_figures_are_the_reports(faulty: str) -> None:
    report = qdebug.analyze(SAMPLES / "digits_faulty.npz")
    found = re.search(r'id="figure-data">(.*?)</script>', faulty, re.DOTALL)
    assert found
    figures: dict[str, Any] = json.loads(found[1])
    for place, layer in enumerate(report):
        assert layer.metrics is not None
        assert figures["rmse_scale"]["values"][place] == pytest.approx(
            layer.metrics.rmse_scale, rel=1e-5
        )
    graph = re.search(r'id="graph-data">(.*?)</script>', faulty, re.DOTALL)
    assert graph
    nodes = json.loads(graph[1])["nodes"]
    assert [node["op"] for node in nodes][:3] == ["input", "CONV_2D", "DEPTHWISE_CONV_2D"]


def test_the_worst_layers_come_first_with_their_causes(faulty: str) -> None:
    first = faulty.partition('id="worst"')[2].partition("</section>")[0]
    assert re.findall(r"<span class=\"badge v-\w+\">([\w-]+)</span>", first) == [
        *("clipping", "bias", "bias", "carried", "range-waste"),
    ]


def test_only_the_worst_layers_get_histograms() -> None:
    report = qdebug.analyze(SAMPLES / "digits_faulty.npz")
    for number in (0, 3, 50):
        assert report.to_html(histograms=number).count("Floats and codes</figcaption>") == min(
            number, 20
        )


@pytest.mark.slow
def test_large_models_stay_bearable() -> None:
    """Sixty layers under 5 MB; two thousand still make a page."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 4096)).astype(np.float32)
    names = [f"block_{i // 8}/layer_{i}/with/a/name/of/usual/length" for i in range(2000)]
    pair = qdebug.quantize(values, axis=0)
    assert len(qdebug.analyze(dict.fromkeys(names[:60], pair)).to_html()) < 5e6
    page = qdebug.analyze(dict.fromkeys(names, pair)).to_html()
    assert page.count('<details class="layer"') == 2000
    assert page.count("Floats and codes</figcaption>") == 50
    assert len(page) < 20e6


def test_a_saved_report_makes_a_page_without_histograms(tmp_path: Path, qdebug: Run) -> None:
    saved, page = tmp_path / "r.json", tmp_path / "r.html"
    qdebug("report", SAMPLES / "digits_faulty.npz", "-o", saved)
    assert qdebug("report", saved, "-o", page).exit_code == 0
    text = page.read_text()
    assert "Floats and codes</figcaption>" not in text
    assert text.count('<details class="layer"') == 20


def test_layers_are_chosen_and_sorted_as_in_a_table(tmp_path: Path, qdebug: Run) -> None:
    page = tmp_path / "r.html"
    args = ("report", SAMPLES / "digits_faulty.npz", "-o", page, "--sort", "rmse_scale", "--top", 3)
    assert qdebug(*args).exit_code == 0
    names = re.findall(r'<span class="name">(.*?)</span>', page.read_text())
    assert len(names) == 3
    assert names[0] == "digits_1/block_relu_1/Relu;digits_1/block_add_1/Add"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--format", "html", "--columns", "layer"), "cannot be used with html"),
        (("--histograms", "3"), "--histograms goes with html"),
        (("--format", "html", "--histograms", "-1"), "--histograms"),
        (("-o", "missing/r.html"), "missing"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    args: tuple[str, ...], message: str, qdebug: Run
) -> None:
    result = qdebug("report", SAMPLES / "digits_faulty.npz", *args)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_without_jinja2_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, qdebug: Run, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    result = qdebug("report", SAMPLES / "digits_faulty.npz", "-o", tmp_path / "r.html")
    assert result.exit_code == 2
    assert result.stderr == "Error: HTML reports need an extra: pip install 'qdebug[html]'\n"
    assert not (tmp_path / "r.html").exists()


def test_a_report_without_figures_makes_a_page(tmp_path: Path, qdebug: Run) -> None:
    empty = np.zeros(0, np.float32)
    np.savez(
        tmp_path / "p.npz",
        **{"a/float": empty, "a/quantized": empty.astype(np.int8), "a/scale": np.float32(1)},
    )
    assert qdebug("report", tmp_path / "p.npz", "-o", tmp_path / "r.html").exit_code == 0
    text = (tmp_path / "r.html").read_text()
    assert 'id="error"' not in text
    assert "no elements" in text
