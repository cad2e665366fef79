"""The figures of Statistics are known to type checkers, and defined once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qdebug.arithmetic.affine import QuantParams
from qdebug.measure.kernel.measure import measure
from qdebug.measure.layer import Block
from qdebug.measure.statistics import Statistics

USE = """\
from qdebug.measure.statistics import Statistics

def use(found: Statistics) -> None:
    reveal_type(found.x_moment)
    found.x_momentum
"""


@pytest.mark.slow
def test_a_misspelt_figure_is_a_type_error(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    module = tmp_path / "use.py"
    module.write_text(USE)
    command = [sys.executable, "-m", "mypy", "--strict", str(module)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    types, misspelt, summary = checked.stdout.splitlines()
    assert "ndarray[" in types
    assert "float64" in types
    assert '"Statistics" has no attribute "x_momentum"' in misspelt
    assert summary.startswith("Found 1 error")


def test_each_figure_is_the_row_of_the_table_that_it_is_declared_for() -> None:
    x, q = np.array([0.0, 1.0, 2.25]), np.array([0, 1, 2], np.int8)
    found = measure(Block(x.reshape(1, 1, 3), q.reshape(1, 1, 3)), QuantParams.of(1.0))
    named = [name for name, figure in vars(Statistics).items() if hasattr(figure, "row")]
    assert len(named) == len(found.table)
    for row, name in zip(found.table, named, strict=True):
        assert np.shares_memory(getattr(found, name), row)
    assert (found.count, found.x_sum, found.q_max, found.e_max) == (3, 3.25, 2, 0.25)
    assert not hasattr(found, "x_momentum")
