"""The kernel is built where there is a compiler; without one qdebug works as well."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qdebug.errors import QdebugError
from qdebug.measure.kernel import library
from qdebug.measure.kernel.library import VARIABLE, description

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_models/digits.npz"


def copied(folder: Path, **environment: str) -> tuple[str, str]:
    """Build a copy of the package in `folder`: what the build says, and what --version says."""
    package = folder / "qdebug"
    left_out = shutil.ignore_patterns("kernel.so", "kernel.dll", "__pycache__")
    shutil.copytree(ROOT / "qdebug", package, ignore=left_out)
    build = [sys.executable, package / "measure/kernel/build.py"]
    built = subprocess.run(
        build, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return built.stderr, run(folder, "--version")


def run(folder: Path, *args: object) -> str:
    """What the copy's command line prints."""
    command = [sys.executable, "-m", "qdebug", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    ran = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.mark.slow
def test_without_a_compiler_numpy_takes_over(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    said, version = copied(tmp_path, PATH=str(tmp_path / "bin"), CC="")
    assert "there is no C compiler" in said
    assert version.endswith("kernel: NumPy (no compiled kernel was built)\n")
    assert run(tmp_path, "report", SAMPLE) == run(ROOT, "report", SAMPLE)


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_no_library(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    broken.chmod(0o755)
    said, version = copied(tmp_path, CC=str(broken))
    assert "broken" in said
    assert "no such option" in said
    assert "NumPy" in version
    kernel = tmp_path / "qdebug/measure/kernel"
    assert not [path for path in kernel.iterdir() if path.suffix in (".so", ".dll")]
    assert not list(kernel.glob(".build-*"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_with_a_compiler_the_kernel_is_built_and_used(tmp_path: Path) -> None:
    said, version = copied(tmp_path)
    assert said == ""
    assert version.endswith("kernel: compiled\n")
    source = tmp_path / "qdebug/measure/kernel/kernel.c"
    source.write_text(source.read_text() + "\n")
    assert "is not of this kernel.c" in run(tmp_path, "--version")
    library = tmp_path / f"qdebug/measure/kernel/{source.stem}.so"
    if library.exists():
        library.write_bytes(b"not a library")
        assert "does not load" in run(tmp_path, "--version")
    assert run(tmp_path, "report", SAMPLE) == run(ROOT, "report", SAMPLE)


def test_numpy_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "numpy")
    assert library.library() is None
    assert description() == "NumPy (QDEBUG_KERNEL=numpy)"
    monkeypatch.setenv(VARIABLE, "cuda\n")
    with pytest.raises(QdebugError, match=r"^QDEBUG_KERNEL: found 'cuda\\n', expected numpy"):
        library.library()


def test_another_kernel_is_a_mistake_of_one_line(
    qdebug: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    for args in (["--version"], ["report", SAMPLE]):
        result = qdebug(*args)
        assert result.exit_code == 2
        assert "QDEBUG_KERNEL: found 'cuda', expected numpy or nothing" in result.output
