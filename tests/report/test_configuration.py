"""Which configuration applies: that of the repository, never that of a stranger above it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.report.configuration import find_config

LOOSE = "max_rmse_scale = 1e9\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose parent folder has a configuration that allows everything."""
    (tmp_path / "qdebug.toml").write_text(LOOSE)
    project = tmp_path / "project"
    (project / "src/deep").mkdir(parents=True)
    (project / ".git").mkdir()
    return project


def test_the_nearest_one_of_the_repository_applies(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.qdebug]\nmin_sqnr = 20\n")
    assert find_config(project / "src/deep").path == project / "pyproject.toml"
    (project / "src/qdebug.toml").write_text("min_sqnr = 30\n")
    assert find_config(project / "src/deep").path == project / "src/qdebug.toml"


def test_one_above_the_repository_does_not_apply(project: Path) -> None:
    assert find_config(project / "src/deep").path is None
    assert find_config(project).path is None
    assert find_config(project.parent).path == project.parent / "qdebug.toml"


def test_a_worktree_or_submodule_is_a_repository_of_its_own(project: Path) -> None:
    (project / "qdebug.toml").write_text(LOOSE)
    (project / "src/.git").write_text("gitdir: ../.git/modules/src\n")
    assert find_config(project / "src/deep").path is None


def test_outside_a_repository_only_the_folder_itself_counts(tmp_path: Path) -> None:
    (tmp_path / "qdebug.toml").write_text(LOOSE)
    (tmp_path / "below").mkdir()
    assert find_config(tmp_path / "below").path is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_a_repository_of_another_user_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "qdebug.toml").write_text(LOOSE)
    (tmp_path / ".git").mkdir()
    (tmp_path / "below").mkdir()
    assert find_config(tmp_path / "below").path is not None
    os.chown(tmp_path / ".git", 65534, 65534)
    assert find_config(tmp_path / "below").path is None


def test_a_check_cannot_be_loosened_from_above_and_names_its_configuration(
    qdebug: Callable[..., Result],
    project: Path,
    healthy: dict[str, Any],
    write_pairs: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = write_pairs({"conv1": healthy | {"quantized": healthy["quantized"] + np.int8(2)}})
    monkeypatch.chdir(project / "src")
    result = qdebug("check", pairs)
    assert result.exit_code == 1
    assert "configuration" not in result.stderr
    (project / "qdebug.toml").write_text(LOOSE)
    result = qdebug("check", pairs)
    assert result.exit_code == 0
    assert f"0 over a limit; configuration: {project / 'qdebug.toml'}" in result.stderr
