"""Standard streams that are closed or full: no traceback, and the status that is true."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import SAMPLES

pytestmark = pytest.mark.slow
QDEBUG = f"{sys.executable} -m qdebug"
SOUND, FAULTY = SAMPLES / "digits.npz", SAMPLES / "digits_faulty.npz"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash
    return subprocess.run([bash, "-c", command], capture_output=True, text=True)


@pytest.mark.parametrize(("source", "status"), [(SOUND, 0), (FAULTY, 1)])
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_check_with_closed_streams_has_its_own_status(
    source: Path, status: int, closed: str
) -> None:
    done = shell(f"{QDEBUG} check {source} {closed}")
    assert done.returncode == status
    assert "Traceback" not in done.stdout + done.stderr


def test_a_report_with_closed_streams_is_written(tmp_path: Path) -> None:
    for closed in ("2>&-", ">&- 2>&-"):
        path = tmp_path / "r.json"
        assert shell(f"{QDEBUG} report {SOUND} -o {path} {closed}").returncode == 0
        assert path.read_text().startswith("{")
        path.unlink()


def test_a_full_device_is_one_line_and_status_2() -> None:
    for command in ("--help", "report --help", f"report {SOUND}"):
        done = shell(f"{QDEBUG} {command} > /dev/full")
        assert done.returncode == 2
        assert done.stderr == "Error: No space left on device\n"


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    done = shell(f"{QDEBUG} plot --overview -m {SOUND} -o /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: -o: found the file /dev/full, expected a directory, or")
