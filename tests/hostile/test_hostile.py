"""Hostile files: one line and status 2, or a right report; little time, little memory, no trace."""

import re
from pathlib import Path

import pytest

from tests.hostile.cases import Hostile
from tests.hostile.everyone import ALL
from tests.hostile.trial import run

_NEEDS = {
    "inputs": "ai_edge_litert",
    "LiteRT model": "ai_edge_litert",
    "ONNX model": "onnxruntime",
}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name.replace(": ", "-"))
def test_a_hostile_file_is_refused_in_one_line_or_reported(case: Hostile, tmp_path: Path) -> None:
    pytest.importorskip(_NEEDS.get(case.reader, "numpy"))
    command = case.made(tmp_path)
    ended = run(command, tmp_path)
    assert not ended.problem, ended
    assert ended.status == case.status, ended
    assert re.search(case.said, ended.said), ended
