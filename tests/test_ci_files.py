"""The GitHub Action and the pre-commit hook run what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT, SAMPLES

yaml: Any = pytest.importorskip("yaml", reason="needs PyYAML")

pytestmark = pytest.mark.slow


def run_action(tmp_path: Path, **inputs: str) -> tuple[int, str, str]:
    """The action's check step, as the runner calls it: inputs in the environment, bash -e."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = action["runs"]["steps"][1]
    given = {name: spec["default"] for name, spec in action["inputs"].items()} | inputs
    environment = {
        name: given[template.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, template in step["env"].items()
    }
    summary = tmp_path / "summary.md"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, **environment, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, summary.read_text() if summary.exists() else ""


def test_the_action_annotates_and_fails(tmp_path: Path) -> None:
    status, said, summary = run_action(tmp_path, source=str(SAMPLES / "digits_faulty.npz"))
    assert status == 1
    assert said.count("::error title=") == 2
    assert "| `digits_1/block_relu_1/Relu;digits_1/block_add_1/Add` " in summary


def test_the_action_takes_a_baseline_and_options(tmp_path: Path) -> None:
    sound, faulty = (str(SAMPLES / f"{name}.npz") for name in ("digits", "digits_faulty"))
    more = {"args": "--min-sqnr 1 --max-regression 1000000%"}
    assert run_action(tmp_path, source=faulty, baseline=sound, **more)[0] == 0
    assert run_action(tmp_path, source=faulty, baseline=sound, args="--min-sqnr 1")[0] == 1


def test_inputs_of_the_action_are_no_commands(tmp_path: Path) -> None:
    run_action(tmp_path, source="$(touch a) `touch b` ; touch c", args="; touch d")
    assert [path.name for path in tmp_path.iterdir() if path.name != "summary.md"] == []


def test_the_hook_calls_check(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    command = [*hook["entry"].split(), str(SAMPLES / "digits.npz")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, cwd=tmp_path)
    assert done.returncode == 0
