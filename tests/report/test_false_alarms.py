"""Nothing is named where nothing is wrong."""

import pytest

from tests import faults


@pytest.mark.slow
def test_no_false_alarm_on_ten_thousand_healthy_layers() -> None:
    found = list(faults.diagnosed(faults.healthy_layers(11, 10_000)))
    assert len(found) == 10_000
    assert [entry for entry in found if entry[2].verdict != "ok"] == []
