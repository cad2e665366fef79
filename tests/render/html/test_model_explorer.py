"""Model Explorer itself, in a browser: it shows qdebug's figures on the sample model's nodes."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.paths import SAMPLES
from tests.render.html.test_browser import browser  # noqa: F401 - a fixture

if importlib.util.find_spec("model_explorer") is None:
    pytest.skip("needs ai-edge-model-explorer", allow_module_level=True)

pytestmark = pytest.mark.slow
Run = Callable[..., Result]
MODEL = SAMPLES / "digits_int8.tflite"
_PATIENCE = 60.0  # seconds


@pytest.fixture
def address(qdebug: Run, tmp_path: Path) -> Iterator[str]:
    nodes = tmp_path / "nodes.json"
    qdebug("report", SAMPLES / "digits_faulty.npz", "--format", "model-explorer", "-o", nodes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, model_explorer as m; c = m.config(); c.add_model_from_path(sys.argv[1]);"
        "c.add_node_data_from_path(sys.argv[2]);"
        "m.visualize_from_config(c, port=int(sys.argv[3]), no_open_in_browser=True)"
    )
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(MODEL), str(nodes), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert server.stdout is not None
        yield next(line.strip() for line in server.stdout if line.startswith("http://"))
    finally:
        server.kill()
        server.communicate()


def test_the_figures_are_on_the_nodes(browser: Any, address: str) -> None:  # noqa: F811
    browser.get(address)
    text, end = "", time.monotonic() + _PATIENCE
    while "qdebug: times expected" not in text and time.monotonic() < end:
        time.sleep(0.5)
        text = browser.execute_script("return document.body.innerText")
    words = text.split()
    # Each node beside its figure: an ADD of 82.7 times, a SOFTMAX of 0.847.
    for node, figure in (("add", "82.7"), ("softmax", "0.847"), ("conv_2d", "15.3")):
        assert (node, figure) in pairwise(words), text
