"""The rooms of the package: a room imports those below it, and never one above."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs/house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_arrow_goes_back_up(house: ModuleType) -> None:
    arrows = house.imports()
    assert len(arrows) > 30  # it sees imports at all
    assert house.upward(arrows) == {}


def test_an_arrow_that_goes_up_is_seen(house: ModuleType) -> None:
    wrong = {("measure", "report"): ["measure.layer -> report.report"]}
    assert house.upward({("report", "measure"): [], **wrong}) == wrong


def test_every_module_has_a_room(house: ModuleType) -> None:
    rooms = {room for floor in house.FLOORS for room in floor}
    for path in house.PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(house.PACKAGE).with_suffix("").parts)
        if module != "sources.__init__":
            assert house.room_of(module.removesuffix(".__init__")) in rooms, module


def test_a_module_says_first_what_it_is_for(house: ModuleType) -> None:
    for path in house.PACKAGE.rglob("*.py"):
        first = path.read_text().split("\n", 1)[0]
        assert first.startswith('"""'), path
        assert len(first) > 20, path
