"""A small file, cut at every byte: one line and status 2, and never a pass.

Inputs of models: tests/sources/test_inputs.py. TFLite's CSV: tests/report/test_tflite_csv.py.
"""

from pathlib import Path

import pytest

from tests.hostile.npz import members, zipped
from tests.hostile.texts import changed
from tests.hostile.trial import run

pytestmark = pytest.mark.slow


def assert_every_cut_is_refused(path: Path, *command: str, last: int = 1) -> None:
    """Cut the file everywhere but in its last bytes, which do not matter."""
    whole = path.read_bytes()
    for size in range(len(whole) - last + 1):
        path.write_bytes(whole[:size])
        ended = run([part.replace("{}", str(path)) for part in command], path.parent)
        assert not ended.problem, (size, ended)
        assert ended.status == 2, (size, ended)


@pytest.mark.parametrize("method", [0, 8])
def test_a_pair_file(method: int, tmp_path: Path) -> None:
    zipped(tmp_path / "x.npz", members(), method)
    assert_every_cut_is_refused(tmp_path / "x.npz", "check", "{}")


def test_a_report(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(changed(lambda report: report.update(layers=[])))
    assert_every_cut_is_refused(tmp_path / "x.json", "report", "{}", last=2)
