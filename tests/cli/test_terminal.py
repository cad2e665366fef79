"""Colour, quiet and verbose, hints, and completion."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qdebug import api
from qdebug.cli import main
from qdebug.render.columns import View
from qdebug.render.table import table
from tests.paths import SAMPLES

Run = Callable[..., Result]
FAULTY, SOUND = SAMPLES / "digits_faulty.npz", SAMPLES / "digits.npz"


def ran(*args: object, color: bool = False, **environment: str) -> str:
    return CliRunner(env=environment).invoke(main, list(map(str, args)), color=color).output


def test_colour_follows_the_option_the_environment_and_the_terminal() -> None:
    assert "\x1b[31m" in ran("--color", "always", "report", FAULTY)
    assert "\x1b" not in ran("report", FAULTY)
    assert "\x1b[31m" in ran("report", FAULTY, color=True)  # as on a terminal
    assert "\x1b" not in ran("report", FAULTY, color=True, NO_COLOR="1")
    assert "\x1b" not in ran("--color", "never", "report", FAULTY, color=True)
    assert "\x1b[31m" in ran("--color", "always", "report", FAULTY, NO_COLOR="1")


def test_quiet_has_no_hint_and_no_note_and_verbose_says_what_was_read(qdebug: Run) -> None:
    plain, quiet, verbose = (qdebug(*o, "report", FAULTY) for o in ((), ("-q",), ("-v",)))
    assert plain.stdout.replace(quiet.stdout, "").startswith("next: qdebug explain ")
    assert (quiet.stderr, plain.stderr) == ("", "")
    assert verbose.stderr.startswith(f"Read {FAULTY}: 20 layers, 115,058 elements in 0.")
    both = qdebug("-q", "-v", "report", FAULTY)
    assert (both.exit_code, "expected one of them" in both.stderr) == (2, True)


def test_the_command_to_run_next_runs(qdebug: Run, tmp_path: Path) -> None:
    named = tmp_path / "a file; with $signs.npz"
    named.write_bytes(FAULTY.read_bytes())
    (hint,) = (line for line in qdebug("report", named).stdout.splitlines() if "next: " in line)
    program, *args = shlex.split(hint.removeprefix("next: "))
    assert program == "qdebug"
    explained = qdebug(*args)
    assert explained.exit_code == 0
    assert "cause     clipping (bad)" in explained.stdout


def test_a_sound_report_leads_to_a_check(qdebug: Run, write_pairs: Callable[..., Path]) -> None:
    pair = api.quantize([i / 100 for i in range(-100, 100)])
    path = write_pairs({"a": {"float": pair.floats, "quantized": pair.codes, "scale": pair.scale[0],
                              "zero_point": pair.params.zero_point[0]}})  # fmt: skip
    assert qdebug("report", path).stdout.endswith(f"next: qdebug check {path}\n")


def test_a_bar_stands_beside_the_error_on_a_terminal() -> None:
    report = api.analyze(FAULTY)
    lines = table(report, View(sort="rmse_scale_ratio"), width=180).splitlines()
    bars = [line.count("\u2587") for line in lines if "\u2587" in line]
    assert bars[:2] == [7, 5]
    assert bars[-1] == 1
    assert "\u2587" not in table(report, View())
    assert "bar" not in table(report, View(), width=60).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell(shell: str) -> None:
    def asked(kind: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from qdebug.cli import main; main(prog_name='qdebug')"],
            env={**os.environ, "_QDEBUG_COMPLETE": f"{shell}_{kind}", **more},
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert "_qdebug_completion" in asked("source")
    words = {"COMP_WORDS": "qdebug re", "COMP_CWORD": "re" if shell == "fish" else "1"}
    assert {"report", "replay"} <= set(asked("complete", **words).replace(",", "\n").split())
    words = {"COMP_WORDS": "qdebug report --fo", "COMP_CWORD": "--fo" if shell == "fish" else "2"}
    assert "--format" in asked("complete", **words)
