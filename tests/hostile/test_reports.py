"""Saved reports whose figures no run gives, in every command that takes one."""

from pathlib import Path

import pytest

from tests.hostile.cases import RIGHT, SOUND, Hostile
from tests.hostile.texts import REPORTS, changed, with_figure
from tests.hostile.trial import run

STRANGE = [case for case in REPORTS.all if case.status == RIGHT]
COMMANDS = [
    ["check", "x.json"],
    ["check", SOUND, "--baseline", "x.json"],
    ["diff", "x.json", SOUND],
    ["suggest", "x.json"],
    ["report", "x.json", "--format", "html"],
    ["report", "x.json", "--format", "csv", "--per-channel"],
    ["report", "x.json", "--format", "json"],
    ["report", "x.json", "--sort", "shape"],
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("case", STRANGE, ids=lambda case: case.build.__name__)
def test_every_command_ends_in_order(case: Hostile, command: list[str], tmp_path: Path) -> None:
    case.made(tmp_path)
    ended = run(command, tmp_path)
    assert not ended.problem, ended
    assert ended.status in (0, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "value"),
    [
        (figure, value)
        for figure in ("rmse_scale", "num_elements", "float_max", "sqnr_db", "clipped")
        for value in (1e308, -1e308, 0, -1, 5e-324)
        if figure != "num_elements" or value in (0, -1)
    ],
)
def test_extreme_figures(figure: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(changed(with_figure(figure, value)))
    for command in COMMANDS:
        ended = run(command, tmp_path)
        assert not ended.problem, (command, ended)
