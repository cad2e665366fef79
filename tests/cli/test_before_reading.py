"""What can be checked is checked before data is read; no output is half-written or lost."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.measure.figures import Figures
from tests.paths import SAMPLES

Run = Callable[..., Result]
DIGITS = str(SAMPLES / "digits.npz")
LIVE = [str(SAMPLES / f"digits_{kind}.tflite") for kind in ("float", "int8")]
ON = ["--inputs", str(SAMPLES / "digits_inputs.npz")]


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(self: Any, *args: Any) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(Figures, "add", measured)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", DIGITS, "--columns", "layer,rmsescale"], "no column 'rmsescale'; did you mean"),
        (["report", DIGITS, "--sort", "nope"], "no column 'nope'"),
        (["report", DIGITS, "--format", "json", "--columns", "layer"], "cannot be used with json"),
        (["report", DIGITS, "--layer", "nope"], "no layer 'nope'"),
        (["report", DIGITS, "-o", "missing/report.json"], "missing/report.json: cannot be written"),
        (["report", DIGITS, "-o", "."], ".: found a directory, expected the name of a file"),
        (["report", DIGITS, "--kernels", "reference"], "--kernels goes with LiteRT models"),
        (["report", DIGITS, *ON], "--inputs goes with a float and a quantized model"),
        (["report", *LIVE, *ON, "--keys", "float={}_x"], "--keys goes with pair files (.npz)"),
        (["report", "a.onnx", "b.onnx", "--kernels", "builtin"], "--kernels goes with LiteRT"),
        (["report", *LIVE, *ON, "--scheduler", "local"], "--scheduler goes with pair files"),
        (["check", DIGITS, "--max-clipped", "150%"], "--max-clipped: found '150%'"),
        (["check", DIGITS, "--fail-on", "clippping"], "did you mean 'clipping'?"),
        (["check", DIGITS, "--config", "nope.toml"], "nope.toml: No such file or directory"),
        (["plot", "nope", "-m", DIGITS], "no layer 'nope'"),
        (["plot", "--all", "-m", DIGITS, "-o", "one.png"], "expected a directory"),
        (["plot", "*Mean", "-m", DIGITS, "-o", "missing/one.png"], "missing/one.png: cannot be"),
        (["plot", "--all", "-m", "report.json"], "found a report, which holds no tensors"),
        (["explain", "nope", "-m", DIGITS], "no layer 'nope'"),
        (["explain", "*", "-m", DIGITS, "-o", "missing/x.txt"], "missing/x.txt: cannot be written"),
        (["suggest", DIGITS, "--budget", "x"], "--budget: found 'x'"),
        (["suggest", *LIVE, *ON, "--for", "onnxruntime"], "found a .tflite source, expected .onnx"),
        (["suggest", DIGITS, "-o", "missing/list"], "missing/list: cannot be written"),
        (["capture", *LIVE, *ON, "-o", "missing/x.npz"], "missing/x.npz: cannot be written"),
    ],
    ids=lambda value: " ".join(map(str, value))[-60:] if isinstance(value, list) else None,
)
def test_a_mistake_is_told_before_anything_is_read(
    qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = qdebug(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("Error")]) == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_told_first(qdebug: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = qdebug("report", DIGITS, "-o", tmp_path / "report.json")
    assert result.exit_code == 2
    assert "Permission denied" in result.output


class TestOutputs:
    """Files that are written."""

    @pytest.fixture(autouse=True)
    def nothing_is_measured(self) -> None:
        """Here data is read."""

    @pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
    def test_overwriting_a_file_keeps_its_mode(
        self, qdebug: Run, tmp_path: Path, mode: int
    ) -> None:
        path = tmp_path / "report.json"
        path.touch()
        path.chmod(mode)
        assert qdebug("report", DIGITS, "--layer", "*Mean", "-o", path).exit_code == 0
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.read_text().startswith("{")

    @pytest.mark.slow
    def test_no_picture_is_written_over_another(
        self, qdebug: Run, tmp_path: Path, write_pairs: Callable[..., Path], healthy: dict[str, Any]
    ) -> None:
        path = write_pairs(dict.fromkeys(["a/b", "a_b", "a_b-2", "A_B"], healthy))
        result = qdebug("plot", "--all", "-m", path, "-o", tmp_path / "pictures")
        names = [Path(line).name for line in result.output.splitlines()]
        assert len(names) == len({name.lower() for name in names}) == 4
        assert sorted(names) == sorted(p.name for p in (tmp_path / "pictures").iterdir())


class TestConfiguration:
    """A source of the configuration, with all that belongs to it."""

    @pytest.fixture(autouse=True)
    def nothing_is_measured(self) -> None:
        """Here data is read."""

    def test_a_live_pair_and_its_inputs(
        self, qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.savez(tmp_path / "two.npz", image=np.load(SAMPLES / "digits_inputs.npz")["image"][:2])
        (tmp_path / "qdebug.toml").write_text(
            f'source = ["{LIVE[0]}", "{LIVE[1]}"]\ninputs = "two.npz"\nkernels = "reference"\n'
        )
        (tmp_path / ".git").mkdir()
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert "3 files" in qdebug("report", "--layer", "*Mean").output
        assert "64 elements" in qdebug("report", "--layer", "*Mean").output
        assert "32 elements" in qdebug("report", "--layer", "*Mean", "--samples", "1").output

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('inputs = "x.npz"', "'inputs': found no 'source' that it goes with"),
            ('source = "a.npz"\nsamples = 0', "'samples': found 0, expected 1 or more"),
            ('source = "a.npz"\nsamples = "2"', "'samples': found '2', expected a whole number"),
            ('source = "a.npz"\ninputs = ["x"]', "'inputs': found ['x'], expected the name of"),
        ],
    )
    def test_options_of_the_source_are_checked(
        self, qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
    ) -> None:
        (tmp_path / "qdebug.toml").write_text(text)
        monkeypatch.chdir(tmp_path)
        result = qdebug("report")
        assert result.exit_code == 2
        assert said in result.output
