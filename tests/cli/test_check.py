"""``qdebug check``: limits, where they come from, and the exit status."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]

DIGITS = SAMPLES / "digits.npz"
FAULTY = SAMPLES / "digits_faulty.npz"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the repository's own pyproject.toml."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pairs(healthy: Fields, write_pairs: Write) -> Path:
    """Two healthy layers and one whose codes are two steps off."""
    off = healthy | {"quantized": healthy["quantized"] + np.int8(2)}
    return write_pairs({"conv1": healthy, "conv2": off, "dense": healthy})


def failing(result: Result) -> list[str]:
    return [line.split()[0] for line in result.stdout.splitlines()[2:]]


def test_without_limits_tflites_own_threshold_holds(qdebug: Run, pairs: Path) -> None:
    result = qdebug("check", pairs)
    assert result.exit_code == 1
    assert failing(result) == ["conv2"]
    assert "rmse_scale" in result.stdout
    assert "<= 0.7" in result.stdout
    assert "default" in result.stdout
    assert "3 layers checked, 1 over a limit" in result.stderr


@pytest.mark.slow
def test_nothing_over_a_limit_prints_nothing_and_ends_well(qdebug: Run) -> None:
    result = qdebug("check", DIGITS)
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("option", "good", "bad", "figure"),
    [
        ("--max-rmse-scale", "3", "2", "rmse_scale"),
        ("--max-times-expected", "9", "6", "rmse_scale_ratio"),
        ("--max-mean-error", "2.1", "1.9", "mean_error_scale"),
        ("--min-sqnr", "10", "90", "sqnr_db"),
        ("--max-range-waste", "90%", "1%", "range_waste"),
        ("--max-clipped", "0", None, "clipped"),
        ("--max-saturated", "0.5", None, "saturated"),
        ("--max-abs-error", "0.1", "0.07", "max_abs_error"),
    ],
)
def test_every_limit(
    option: str, good: str, bad: str | None, figure: str, qdebug: Run, pairs: Path
) -> None:
    assert qdebug("check", pairs, option, good).exit_code == 0
    if bad is not None:
        result = qdebug("check", pairs, option, bad)
        assert result.exit_code == 1
        assert "conv2" in failing(result)
        assert figure in result.stdout
        assert option in result.stdout


@pytest.mark.slow
def test_clipping_and_saturation_are_over_their_limits_where_they_happen(qdebug: Run) -> None:
    for option in ("--max-clipped", "--max-saturated"):
        result = qdebug("check", FAULTY, option, "3%")
        assert result.exit_code == 1
        assert "block_add_1/Add" in result.stdout


def test_configuration_overrides_by_layer_and_ignores(qdebug: Run, pairs: Path) -> None:
    Path("pyproject.toml").write_text(
        """
        [tool.qdebug]
        max_rmse_scale = 0.2
        ignore = ["dense"]

        [[tool.qdebug.layer]]
        name = "conv[12]"
        max_rmse_scale = 5

        [[tool.qdebug.layer]]
        name = "conv2"
        max-mean-error = 1.5
        """
    )
    result = qdebug("check", pairs)
    assert result.exit_code == 1
    assert failing(result) == ["conv2"]
    assert "mean_error_scale" in result.stdout
    assert "layer table 2 'conv2'" in result.stdout
    assert "2 layers checked" in result.stderr
    # An option wins over the table, a layer's own limit over both.
    assert qdebug("check", pairs, "--max-mean-error", "0").stdout.count("conv") >= 2


def test_qdebug_toml_is_found_above_and_wins_over_pyproject(
    qdebug: Run, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("pyproject.toml").write_text("[tool.qdebug]\nmax_rmse_scale = 9\n")
    Path("qdebug.toml").write_text("max_rmse_scale = 8\n[[layer]]\nname = 'conv1'\nmin_sqnr = 99\n")
    Path(".git").mkdir()
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    result = qdebug("check", pairs)
    assert result.exit_code == 1
    assert failing(result) == ["conv1"]
    assert "qdebug.toml" in result.stdout


def test_a_pyproject_without_our_table_is_not_ours(qdebug: Run, pairs: Path) -> None:
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n[tool.other]\nlayer = 3\n")
    assert "default" in qdebug("check", pairs).stdout


def test_a_glob_that_matches_no_layer_is_a_warning(qdebug: Run, pairs: Path) -> None:
    Path("qdebug.toml").write_text("max_rmse_scale = 9\nignore = ['conv9']\n")
    result = qdebug("check", pairs)
    assert result.exit_code == 0
    assert "no layer matches 'conv9'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_rmse_scal = 1", "unknown key 'max_rmse_scal'; did you mean 'max_rmse_scale'"),
        ("max_rmse_scale = 'x'", "'max_rmse_scale': found 'x', expected a number of 0 or more"),
        ("max_rmse_scale = true", "found 'True', expected a number"),
        ("max_rmse_scale = -1", "found '-1', expected a number of 0 or more"),
        ("max_rmse_scale = nan", "found 'nan'"),
        ("max_clipped = 5", "found '5', expected a share from 0 to 1"),
        ("max_clipped = '101%'", "found '101%', expected a share"),
        ("ignore = 3", "'ignore': found 3, expected text or a list of texts"),
        ("layer = 3", "'layer': expected tables"),
        ("[[layer]]\nmin_sqnr = 3", "layer table 1: 'name': found nothing"),
        ("[[layer]]\nname = 'a'\nmin_sqr = 3", "unknown key 'min_sqr'; did you mean 'min_sqnr'"),
        ("x = ", "not TOML"),
        ("tool = {qdebug = 3}", "[tool.qdebug]: found 3, expected a table"),
    ],
)
def test_wrong_configuration_is_explained(
    text: str, message: str, qdebug: Run, pairs: Path
) -> None:
    Path("qdebug.toml").write_text(text)
    result = qdebug("check", pairs)
    assert result.exit_code == 2
    assert "qdebug.toml" in result.stderr
    assert message in result.stderr


def test_wrong_options_are_explained(qdebug: Run, pairs: Path) -> None:
    for args, message in [
        (("--max-clipped", "2"), "--max-clipped: found '2', expected a share"),
        (("--min-sqnr", "loud"), "--min-sqnr: found 'loud', expected a number"),
        (("--config", "none.toml"), "none.toml: No such file"),
    ]:
        result = qdebug("check", pairs, *args)
        assert result.exit_code == 2
        assert message in result.stderr


def test_an_unreadable_layer_is_status_2_even_where_limits_are_kept(
    qdebug: Run, healthy: Fields, write_pairs: Write
) -> None:
    path = write_pairs({"good": healthy, "bad": healthy | {"scale": -1.0}})
    result = qdebug("check", path)
    assert result.exit_code == 2
    assert "layer 'bad'" in result.stderr


def test_a_layer_of_nan_alone_does_not_pass(
    qdebug: Run, healthy: Fields, write_pairs: Write
) -> None:
    path = write_pairs({"nan": healthy | {"float": np.full(1000, np.nan)}})
    result = qdebug("check", path)
    assert result.exit_code == 1
    assert "no finite element" in result.stdout


@pytest.mark.slow
def test_the_real_command_gives_the_shell_its_status(pairs: Path) -> None:
    for args, status in [([DIGITS], 0), ([pairs], 1), (["none.npz"], 2)]:
        run = subprocess.run(
            [sys.executable, "-m", "qdebug", "check", *map(str, args)], capture_output=True
        )
        assert run.returncode == status
        assert b"Traceback" not in run.stderr


def test_check_fails_on_causes(
    qdebug: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faulty = SAMPLES / "digits_faulty.npz"
    monkeypatch.chdir(tmp_path)
    result = qdebug("check", faulty, "--fail-on", "clipping, coarse-scale")
    assert result.exit_code == 1
    assert [line.split()[-3] for line in result.stdout.splitlines()[2:]] == [
        "clipping",
        "coarse-scale",
    ]
    assert qdebug("check", faulty, "--fail-on", "constant").exit_code == 0
    (tmp_path / "qdebug.toml").write_text('fail_on = ["clipping"]\n')
    assert "qdebug.toml" in qdebug("check", faulty).stdout
    (tmp_path / "qdebug.toml").write_text('fail_on = ["cliping"]\n')
    wrong = qdebug("check", faulty)
    assert wrong.exit_code == 2
    assert "'fail_on': no cause 'cliping'; did you mean 'clipping'" in wrong.stderr
