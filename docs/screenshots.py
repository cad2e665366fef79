"""Take the screenshots of docs/html.md in headless Chromium, with chromedriver.

    python docs/screenshots.py                                  # those of the sample models
    python docs/screenshots.py html-ad01 ad01_fp32.tflite ad01_int8.tflite --inputs ad01.npy

The second form takes one more, of any SOURCE of `qdebug report`.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from qdebug.cli import main

IMAGES = Path(__file__).parent / "images"
SAMPLES = Path(__file__).parent.parent / "sample_models"
LIVE = [SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"]
# Picture -> source, where in the page, height, and whether the page is dark.
PICTURES: dict[str, tuple[list[object], str, int, bool]] = {
    "html": ([SAMPLES / "digits_faulty.npz"], "", 1220, False),
    "html-layer": ([*LIVE, "--inputs", SAMPLES / "digits_inputs.npz"], "#layer-14", 900, True),
}
WIDTH = 1180


def take(name: str, source: list[object], jump: str, height: int, dark: bool) -> None:
    """Make the page of a source, and its picture."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("headless=new", "no-sandbox", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            main(["report", *map(str, source), "-o", str(page)], standalone_mode=False)
            driver.get(page.as_uri() + jump)
            driver.save_screenshot(str(IMAGES / f"{name}.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    if sys.argv[1:]:
        take(sys.argv[1], list(sys.argv[2:]), "", 1220, False)
    else:
        for picture, about in PICTURES.items():
            take(picture, *about)
