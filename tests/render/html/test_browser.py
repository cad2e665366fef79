"""The HTML page in a real browser: it opens without a sound, and what it offers works."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qdebug
from tests.paths import SAMPLES
from tests.render.html.test_page import HOSTILE

pytest.importorskip("jinja2", reason="needs qdebug[html]")
selenium = pytest.importorskip("selenium", reason="needs selenium")

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        # .ci/run installs one, so that there it is never left out.
        assert not os.environ.get("QDEBUG_NEEDS_BROWSER"), "no chromium, chromedriver on the path"
        pytest.skip("no chromium and chromedriver on the path")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "window-size=1280,1000", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    driver.implicitly_wait(2)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    reports = {
        "faulty": qdebug.analyze(SAMPLES / "digits_faulty.npz"),
        "sound": qdebug.analyze(SAMPLES / "digits.npz"),
        "hostile": qdebug.analyze(
            {name: qdebug.quantize(np.linspace(-1, 1, 50)) for name in HOSTILE}
        ),
    }
    paths = {name: folder / f"{name}.html" for name in reports}
    for name, report in reports.items():
        paths[name].write_text(report.to_html(), "utf-8")
    return paths


def opened(browser: Any, path: Path, jump: str = "") -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri() + jump)


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def visible_rows(browser: Any) -> list[str]:
    names: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr:not([hidden]) th a')]"
        ".map((a) => a.title)"
    )
    return names


def typed(browser: Any, field: str, value: str) -> None:
    browser.execute_script(
        "const f = document.getElementById('filters').elements[arguments[0]];"
        "f.value = arguments[1]; f.dispatchEvent(new Event('input', { bubbles: true }));",
        field, value,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["faulty", "sound", "hostile"])
def test_a_page_opens_without_errors_or_requests(
    name: str, browser: Any, pages: dict[str, Path]
) -> None:
    opened(browser, pages[name])
    assert browser.get_log("browser") == []
    assert [url for url in requests(browser) if url.startswith("http")] == []
    assert browser.title.startswith("qdebug: ")


def test_hostile_names_are_shown_and_do_nothing(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["hostile"])
    assert browser.find_elements("css selector", "img, b, iframe") == []
    names = visible_rows(browser)
    assert HOSTILE[0] in names
    assert HOSTILE[3] in names
    assert len(names) == len(HOSTILE)


def test_headings_sort_the_table(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["faulty"])
    before = visible_rows(browser)
    heading = next(
        button
        for button in browser.find_elements("css selector", "#rows thead button")
        if button.text == "rmse/scale"
    )
    heading.click()
    report = qdebug.analyze(SAMPLES / "digits_faulty.npz")

    def size(name: str) -> float:
        metrics = report[name].metrics
        assert metrics is not None
        assert metrics.rmse_scale is not None
        return metrics.rmse_scale

    by_size = sorted((layer.name for layer in report), key=size, reverse=True)
    assert visible_rows(browser)[:5] == by_size[:5]
    heading.click()
    assert visible_rows(browser)[0] == by_size[-1]
    assert sorted(visible_rows(browser)) == sorted(before)


def test_filters_work_as_one_types_and_together(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["faulty"])
    report = qdebug.analyze(SAMPLES / "digits_faulty.npz")
    typed(browser, "text", "LOGITS")
    assert visible_rows(browser) == [layer.name for layer in report if "logits" in layer.name]
    typed(browser, "verdict", "warn")
    assert len(visible_rows(browser)) == 1
    assert browser.find_element("id", "count").text == "1 of 20 layers"
    browser.find_element("css selector", "#filters button[type=reset]").click()
    typed(browser, "cause", "bias")
    assert len(visible_rows(browser)) == 2
    typed(browser, "cause", "")
    typed(browser, "op", "ADD")
    assert len(visible_rows(browser)) == 1
    typed(browser, "op", "")
    typed(browser, "figure", "clipped")
    typed(browser, "least", "0.01")
    assert visible_rows(browser) == [
        layer.name for layer in report if layer.metrics and (layer.metrics.clipped or 0) >= 0.01
    ]


def test_a_click_jumps_to_a_layer_and_opens_it(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["faulty"])
    for place in ("#error svg a", "#worst a", "#rows tbody a", "#map a"):
        browser.execute_script("document.querySelectorAll('.layer').forEach(d => d.open = false)")
        target = browser.execute_script(
            "const a = document.querySelectorAll(arguments[0])[1]; a.dispatchEvent("
            "new MouseEvent('click', { bubbles: true, cancelable: true }));"
            "return a.getAttribute('href')",
            place,
        )
        layer = browser.find_element("css selector", f"{target}[open] .figures")
        assert layer.is_displayed()


def test_a_link_to_a_layer_opens_it(browser: Any, pages: dict[str, Path]) -> None:
    opened(browser, pages["faulty"], "#layer-10")
    assert browser.find_element("css selector", "#layer-10[open] .figures").is_displayed()
    assert not browser.find_elements("css selector", "#layer-11[open]")


def test_the_graph_is_drawn_and_no_label_leaves_its_node(
    browser: Any, pages: dict[str, Path]
) -> None:
    opened(browser, pages["sound"])
    assert len(browser.find_elements("css selector", "#map .node")) == 10
    over = browser.execute_script(
        "return [...document.querySelectorAll('#map .node')].filter((n) => {"
        "const r = n.querySelector('rect').getBoundingClientRect();"
        "return [...n.querySelectorAll('text')].some((t) => { const b = t.getBoundingClientRect();"
        "return b.left < r.left || b.right > r.right; }); }).length"
    )
    assert over == 0


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out_of_the_page(width: int, browser: Any, pages: dict[str, Path]) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, pages["sound"], "#layer-3")
        wide = browser.execute_script("return document.documentElement.scrollWidth")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_without_scripts_everything_but_the_graph_is_there(
    browser: Any, pages: dict[str, Path]
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, pages["faulty"])
        layer = browser.find_element("css selector", "#layer-10 summary")
        layer.click()
        assert browser.find_element("css selector", "#layer-10 .figures").is_displayed()
        assert len(browser.find_elements("css selector", "#rows tbody tr")) == 20
        assert not browser.find_element("id", "filters").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
