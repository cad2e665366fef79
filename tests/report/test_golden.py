"""The sample models' reports stay what they are, to nine digits, by either kernel.

A change that is meant to move a figure makes the golden reports anew, from the repository's root:

    qdebug report sample_models/digits.npz -o tests/data/golden/digits.json
    qdebug report sample_models/digits_faulty.npz -o tests/data/golden/digits_faulty.json

The live models are left out: LiteRT's float kernels differ in the last digits from machine to
machine, and these pair files are what they gave once.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from qdebug.measure.kernel.library import VARIABLE, description, library
from qdebug.report.json import dumps
from tests.pairs import read
from tests.paths import DATA, SAMPLES


def differences(found: Any, golden: Any, where: str) -> Iterator[str]:
    """Places at which two JSON values differ: numbers by more than 1e-9, all else at all."""
    numbers = (found, golden)
    if isinstance(golden, dict) and isinstance(found, dict):
        for key in golden.keys() | found.keys():
            yield from differences(
                found.get(key, "none"), golden.get(key, "none"), f"{where}.{key}"
            )
    elif isinstance(golden, list) and isinstance(found, list) and len(found) == len(golden):
        for place, pair in enumerate(zip(found, golden, strict=True)):
            yield from differences(*pair, f"{where}[{place}]")
    elif any(type(each) is float for each in numbers) and None not in numbers:
        if not math.isclose(found, golden, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{where}: {found}, golden {golden}"
    elif found != golden:
        yield f"{where}: {found}, golden {golden}"


@pytest.mark.parametrize("kernel", ["compiled", "numpy"])
@pytest.mark.parametrize("name", ["digits", "digits_faulty"])
def test_no_figure_of_the_sample_models_drifts(
    name: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "numpy" if kernel == "numpy" else "")
    if kernel == "compiled" and library() is None:
        pytest.skip(description())
    golden = json.loads((DATA / f"golden/{name}.json").read_text())
    found = json.loads(dumps(read(SAMPLES / f"{name}.npz")))
    for report in (found, golden):
        del report["sources"], report["qdebug_version"]
    assert len(golden["layers"]) == 20
    assert list(differences(found, golden, "report")) == []


def test_what_differs_in_the_tenth_digit_is_the_same_and_in_the_eighth_is_not() -> None:
    assert list(differences({"a": [1.0, None]}, {"a": [1.0 + 1e-10, None]}, "r")) == []
    wrong = differences({"a": [1.0, None], "b": 1}, {"a": [1.0 + 1e-8, 2.0]}, "r")
    assert sorted(line.partition(":")[0] for line in wrong) == ["r.a[0]", "r.a[1]", "r.b"]
