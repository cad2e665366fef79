"""The commands on a float and a quantized weight file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import qdebug as library
from tests.gguf_files import architecture, floats, gguf, q8_0, write_pair

Run = Callable[..., Result]


@pytest.fixture
def weights(tmp_path: Path) -> list[str]:
    """Three tensors, of which one has scales of twice their size; a norm in floats."""
    rng = np.random.default_rng(0)
    names = ("blk.0.attn_q.weight", "blk.0.ffn_up.weight", "output.weight")
    tensors = {name: rng.normal(size=(24, 64)).astype(np.float32) for name in names}
    one, other = write_pair(tmp_path, tensors)
    norm = floats(np.ones(64, np.float32), "norm")
    sound, wrong = tensors | {}, tensors | {names[1]: 2 * tensors[names[1]]}
    facts = architecture()
    Path(one).write_bytes(gguf([*(floats(x, n) for n, x in sound.items()), norm], facts))
    Path(other).write_bytes(gguf([*(q8_0(x, n) for n, x in wrong.items()), norm], facts))
    return [one, other]


def test_a_report_shows_the_type_and_what_is_wrong(qdebug: Run, weights: list[str]) -> None:
    result = qdebug("report", *weights)
    assert result.exit_code == 0
    heading = result.stdout.splitlines()[2]
    assert "grid" in heading
    assert "op" not in heading.split()
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if "Q8_0" in line}
    assert rows["blk.0.ffn_up.weight"].split()[-2:] == ["bad", "wrong-scale"]
    assert rows["output.weight"].split()[-2:] == ["ok", "ok"]
    assert "floats in both files: 'norm'" in result.stderr
    assert f"next: qdebug explain blk.0.ffn_up.weight -m {weights[0]}" in result.stdout


def test_a_check_fails_on_the_cause(qdebug: Run, weights: list[str]) -> None:
    assert qdebug("check", *weights, "--max-times-expected", "1.2").exit_code == 1
    assert qdebug("check", *weights, "--fail-on", "wrong-scale").exit_code == 1
    assert qdebug("check", *weights, "--fail-on", "clipping").exit_code == 0


def test_a_layer_is_explained_and_drawn(qdebug: Run, weights: list[str], tmp_path: Path) -> None:
    source = ["-m", weights[0], "-m", weights[1]]
    result = qdebug("explain", "ffn_up", *source)
    assert "weight, Q8_0, shape 24x64" in result.stdout
    assert "the floats are 0.500 times the decoded values" in " ".join(result.stdout.split())
    picture = tmp_path / "p.png"
    assert qdebug("plot", "ffn_up", *source, "-o", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_quantized_files_are_compared(qdebug: Run, weights: list[str], tmp_path: Path) -> None:
    one, other = weights
    sound = tmp_path / "s.gguf"
    rng = np.random.default_rng(0)
    names = ("blk.0.attn_q.weight", "blk.0.ffn_up.weight", "output.weight")
    sound.write_bytes(gguf([q8_0(rng.normal(size=(24, 64)).astype(np.float32), n) for n in names]))
    result = qdebug("diff", f"{one},{sound}", f"{one},{other}", "--fail-on-regression")
    assert result.exit_code == 1
    assert "blk.0.ffn_up.weight" in result.stdout
    assert qdebug("diff", f"{one},{other}", f"{one},{sound}", "--fail-on-regression").exit_code == 0


@pytest.mark.slow
def test_threads_and_processes_find_the_same(qdebug: Run, weights: list[str]) -> None:
    alone = qdebug("report", *weights, "--jobs", "1", "--format", "csv")
    for options in (["--jobs", "2"], ["--scheduler", "local", "--jobs", "1"]):
        assert qdebug("report", *weights, *options, "--format", "csv").stdout == alone.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["report", "{q}"], ".safetensors, or a folder): the float one, then the quantized"),
        (["report", "{f}", "{q}", "{q}"], "expected two weight files (.gguf, "),
        (["report", "{f}", "x.npz"], "expected two weight files (.gguf, "),
        (["report", "{q}", "{f}"], "found floats only, expected quantized tensors: give the float"),
        (["report", "{f}", "{q}", "--kernels", "default"], "--kernels goes with LiteRT models"),
        (["report", "{f}", "{q}", "--keys", "float={}_f"], "--keys goes with pair files"),
        (["report", "{f}", "{q}", "--layer", "nope"], "no layer 'nope'"),
        (["capture", "{f}", "{q}", "-o", "c.npz"], "expected two models of one kind"),
        (["suggest", "{f}", "{q}"], "found no operator among the layers"),
    ],
)
def test_a_mistake_is_one_line(qdebug: Run, weights: list[str], args: list[str], said: str) -> None:
    one, other = weights
    result = qdebug(*(arg.replace("{f}", one).replace("{q}", other) for arg in args))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_python_reads_them_too(weights: list[str]) -> None:
    report = library.analyze(*weights)
    layer = report["blk.0.ffn_up.weight"]
    assert layer.grid == "Q8_0"
    assert layer.diagnosis is not None
    assert layer.diagnosis.cause == "wrong-scale"
    assert [each.name for each in report.worst(1)] == ["blk.0.ffn_up.weight"]
