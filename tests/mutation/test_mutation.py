"""The mutants of a module, and survivors that name mutants that there are."""

import pytest

from tests.mutation.mutants import mutants
from tests.mutation.survivors import explained
from tests.mutation.targets import TARGETS
from tests.paths import ROOT

SOURCE = '''
LIMIT = 3

class Gauge:
    def over(self, value: int) -> bool:
        """Whether it is."""
        assert LIMIT > 0
        return not value < LIMIT
'''


def test_each_mutant_has_one_fault_and_says_where() -> None:
    found = list(mutants(SOURCE))
    assert [str(mutant) for mutant, _ in found] == [
        "module: `LIMIT = 3`: 3 -> 4",
        "module: `LIMIT = 3`: 3 -> 2",
        *(
            f"Gauge.over: `return not value < LIMIT`: {change}"
            for change in (
                "return not value < LIMIT -> return None",
                "not value < LIMIT -> value < LIMIT",
                "value < LIMIT -> value <= LIMIT",
                "value < LIMIT -> value >= LIMIT",
            )
        ),
    ]
    assert {(mutant.line, mutant.first_line) for mutant, _ in found} == {(2, 0), (8, 5)}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_exist_and_explained_survivors_are_mutants_of_theirs(name: str) -> None:
    target = TARGETS[name]
    assert [path for path in target.tests if not (ROOT / path).exists()] == []
    assert set(explained(name)) <= {str(mutant) for mutant, _ in mutants(target.source)}
