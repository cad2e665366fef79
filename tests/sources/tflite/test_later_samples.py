"""What goes wrong in a later sample is the business of the layer that it goes wrong in."""

from typing import Any

import pytest

from qdebug.run.session import Session
from qdebug.sources.tflite.references import Activation, Runs, Value
from qdebug.sources.tflite.run import Runner
from tests.sources.tflite.models import digits


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The softmax has another shape in the float model, from the third sample on."""
    original, seen = Runs._value, 0

    def value(self: Runs, activation: Activation, inputs: Any) -> Value | str:
        nonlocal seen
        if activation.layer.op != "SOFTMAX":
            return original(self, activation, inputs)
        seen += 1
        return original(self, activation, inputs) if seen < 4 else "its shape is another"

    monkeypatch.setattr(Runs, "_value", value)


@pytest.mark.usefixtures("moody")
def test_one_activation_that_disagrees_later_takes_no_other_with_it() -> None:
    report = Session(digits(samples=4)).report()
    (softmax,) = (layer for layer in report.layers if layer.unreadable)
    assert softmax.metrics is None
    assert softmax.unreadable == f"layer '{softmax.name}': sample 2: its shape is another"
    others = [layer for layer in report.layers if layer is not softmax]
    assert len(others) == 19
    assert all(layer.metrics for layer in others)
    assert report.complaints == [softmax.unreadable]


def test_a_sample_is_run_once_in_each_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantized, local with float and with quantized weights, float; the first to see shapes."""
    runs = 0
    original = Runner.run

    def counted(self: Runner, *args: Any) -> None:
        nonlocal runs
        runs += 1
        original(self, *args)

    monkeypatch.setattr(Runner, "run", counted)
    session = Session(digits(samples=4))
    assert runs == 4
    report = session.report()
    assert runs == 4 * 4
    session.distributions(report)
    assert runs == 4 * 8
