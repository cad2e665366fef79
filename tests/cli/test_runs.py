"""How often live models run: each sample once in each sweep, for all layers together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from qdebug.render import plots
from tests.paths import SAMPLES

Run = Callable[..., Result]

SAMPLES_TAKEN = 4

# One sweep for the figures, one more for the pictures or for other ways to quantize.
SWEEPS = [(["report"], 1), (["plot", "--all", "-o", "."], 2), (["explain", "*"], 2)]


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "layer_figure", lambda *given: None)
    monkeypatch.setattr(plots, "save", lambda *given: None)


def counting(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[object]:
    """What is run from now on."""
    ran: list[object] = []
    original = kind.run  # type: ignore[attr-defined]

    def run(self: object, *args: object, **options: object) -> object:
        ran.append(self)
        return original(self, *args, **options)

    monkeypatch.setattr(kind, "run", run)
    return ran


def runs(ran: list[object]) -> list[int]:
    """How often each model ran."""
    return [ran.count(model) for model in dict.fromkeys(ran)]


def arguments(command: list[str], *source: Path) -> list[str]:
    named = [str(path) for path in source]
    if command[0] != "report":
        named = [text for name in named for text in ("-m", name)]
    return [*command, *named, "--samples", str(SAMPLES_TAKEN)]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "sweeps"), SWEEPS, ids=lambda value: str(value))
def test_four_litert_models_run_each_sample_once_in_a_sweep(
    command: list[str],
    sweeps: int,
    qdebug: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Quantized, local with float and with quantized weights, float."""
    pytest.importorskip("ai_edge_litert")
    from qdebug.sources.tflite.run import Runner

    monkeypatch.chdir(tmp_path)
    ran = counting(monkeypatch, Runner)
    source = SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite"
    inputs = SAMPLES / "digits_inputs.npz"
    assert qdebug(*arguments(command, *source), "--inputs", inputs).exit_code == 0
    assert runs(ran) == [sweeps * SAMPLES_TAKEN] * 4


@pytest.mark.slow
@pytest.mark.parametrize(("command", "sweeps"), SWEEPS, ids=lambda value: str(value))
def test_two_onnx_models_run_each_sample_once_in_a_sweep(
    command: list[str],
    sweeps: int,
    qdebug: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    models = pytest.importorskip("tests.sources.onnx.models")
    from qdebug.sources.onnx.run import Session

    monkeypatch.chdir(tmp_path)
    source = Path("float.onnx"), Path("int8.onnx")
    models.onnx.save(models.network(), source[0])
    models.quantize_static(*source, models.Calibration(), quant_format=models.QuantFormat.QDQ)
    x = np.random.default_rng(11).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.save("x.npy", x)
    ran = counting(monkeypatch, Session)
    assert qdebug(*arguments(command, *source), "--inputs", "x.npy").exit_code == 0
    assert runs(ran) == [sweeps * SAMPLES_TAKEN] * 2
