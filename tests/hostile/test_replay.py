"""Hostile LiteRT models in the commands that run them alone or with switches."""

from pathlib import Path

import pytest

from tests.hostile.cases import FLOAT, Hostile
from tests.hostile.litert_models import LITERT
from tests.hostile.trial import run
from tests.paths import SAMPLES

INPUTS = ["--inputs", str(SAMPLES / "digits_inputs.npz"), "--samples", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("case", LITERT.all, ids=lambda case: case.build.__name__)
def test_every_command_names_the_file(case: Hostile, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    case.made(tmp_path)
    for command in (
        ["replay", "x.tflite", *INPUTS],
        ["suggest", FLOAT, "x.tflite", *INPUTS, "--measure"],
    ):
        ended = run(command, tmp_path)
        assert not ended.problem, (command, ended)
        named = "x.tflite: " in ended.said or "digits_inputs.npz: " in ended.said
        assert named or ended.status == 0, (command, ended)
