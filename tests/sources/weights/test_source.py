"""Two weight files as a source: which tensors pair, how they are cut, what else is said."""

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import qdebug
from qdebug.errors import QdebugError
from qdebug.run.session import Session
from qdebug.sources import weights
from qdebug.sources.gguf.files import open_gguf
from qdebug.sources.weights.source import WeightFiles
from tests import gguf_files
from tests.gguf_files import Entry, decoded_q8_0, floats, gguf, q8_0, write_pair
from tests.grid_oracle import figures

RNG = np.random.default_rng(0)


def source(names: list[str]) -> WeightFiles:
    return WeightFiles(*map(open_gguf, names))


def test_figures_are_those_of_the_oracle(tmp_path: Path) -> None:
    x = RNG.normal(size=(4, 64)).astype(np.float32)
    entry = q8_0(x)
    names = write_pair(tmp_path, {entry.name: x})
    (layer,) = qdebug.analyze(*names)
    d = decoded_q8_0(entry)
    scale = np.abs(d.reshape(-1, 32)).max(axis=1) / 127
    tables = [[code * scale[i // 32] for code in range(-128, 128)] for i in range(x.size)]
    for name, expected in figures(x.ravel().tolist(), d.ravel().tolist(), tables).items():
        found = getattr(layer.metrics, name)
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-12), name
    assert (layer.grid, layer.kind, list(layer.shape or ())) == ("Q8_0", "weight", [4, 64])
    assert len(layer.channels) == 4


def test_rows_are_channels_whatever_the_number_of_axes(tmp_path: Path) -> None:
    shapes = {"experts": (3, 5, 32), "matrix": (5, 32), "vector": (64,), "none": (0, 32)}
    tensors = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    report = qdebug.analyze(*write_pair(tmp_path, tensors))
    found = {layer.name: len(layer.channels or ()) for layer in report}
    assert found == {"experts": 15, "matrix": 5, "vector": 0, "none": 0}


def test_figures_do_not_depend_on_how_tensors_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_pair(tmp_path, {"w": RNG.normal(size=(50, 96)).astype(np.float32)})
    whole = qdebug.analyze(*names)
    for elements in (96, 200, 1000):
        monkeypatch.setattr(weights.source, "TASK_ELEMENTS", elements)
        monkeypatch.setattr(weights.source, "BLOCK_ELEMENTS", elements // 2)
        parts = source(names).parts(source(names).layers)  # type: ignore[arg-type]
        assert len(parts) == math.ceil(50 / (elements // 96))
        found = qdebug.analyze(*names)
        for name in ("rmse", "times_expected", "sqnr_db"):
            expected = getattr(whole["w"].metrics, name)
            assert math.isclose(getattr(found["w"].metrics, name), expected, rel_tol=1e-12)


def test_a_part_travels_to_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, {"w": np.ones((2, 32), np.float32)})
    monkeypatch.chdir(tmp_path)
    found = source(["f.gguf", "q.gguf"])
    (part,) = found.parts(found.layers)  # type: ignore[arg-type]
    monkeypatch.chdir(os.sep)
    assert pickle.loads(pickle.dumps(part)).num_elements == 64


def test_what_does_not_pair_is_said(tmp_path: Path) -> None:
    x = np.ones((1, 32), np.float32)
    one, other = tmp_path / "f.gguf", tmp_path / "q.gguf"
    one.write_bytes(gguf([floats(x, n) for n in ("w", "norm", "lost")] + [q8_0(x, "both")]))
    other.write_bytes(gguf([q8_0(x, n) for n in ("w", "new", "both")] + [floats(x, "norm")]))
    found = source([str(one), str(other)])
    assert [layer.name for layer in found.layers] == ["w"]
    assert found.notes == ["floats in both files: 'norm'"]
    assert found.skipped == [
        ("new", f"{one} has no such tensor"),
        ("both", "quantized in both files: Q8_0"),
        ("lost", f"{other} has no such tensor"),
    ]


def test_tensors_of_other_shapes_cannot_be_compared(tmp_path: Path) -> None:
    one, other = tmp_path / "f.gguf", tmp_path / "q.gguf"
    one.write_bytes(gguf([floats(np.ones((2, 32), np.float32), "w")]))
    other.write_bytes(gguf([q8_0(np.ones((1, 64), np.float32), "w")]))
    (complaint,) = qdebug.analyze(str(one), str(other)).complaints
    assert complaint == (
        f"layer 'w': field 'shape': found shape (1, 64) in {other}, expected shape (2, 32) as in "
        f"{one}"
    )


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("q", "f", "f.gguf: found floats only, expected quantized tensors: give the float file"),
        ("f", "f", "f.gguf: found floats only, expected quantized tensors"),
        ("q", "q", "q.gguf: found 'w' quantized (Q8_0), expected floats"),
        ("f", "other", "other.gguf: found no tensor of"),
    ],
)
def test_files_that_make_no_pair_are_refused(
    one: str, other: str, said: str, tmp_path: Path
) -> None:
    x = np.ones((1, 32), np.float32)
    write_pair(tmp_path, {"w": x})
    (tmp_path / "other.gguf").write_bytes(gguf([q8_0(x, "x")]))
    with pytest.raises(QdebugError) as error:
        source([str(tmp_path / f"{name}.gguf") for name in (one, other)])
    assert said in str(error.value)


def test_tensors_that_cannot_be_read_are_the_reason_why_there_is_no_pair(tmp_path: Path) -> None:
    x = np.ones((1, 32), np.float32)
    one, other = tmp_path / "f.gguf", tmp_path / "q.gguf"
    one.write_bytes(gguf([floats(x, "a"), floats(x, "b")]))
    other.write_bytes(gguf([Entry(name, (32,), 99, b"x" * 18) for name in ("a", "b")]))
    with pytest.raises(QdebugError) as error:
        source([str(one), str(other)])
    assert str(error.value) == (f"{other}: layer 'a': its GGUF type 99 is not known; and 1 more")


def test_a_file_that_shrinks_is_said_and_no_figure_is_made_of_it(tmp_path: Path) -> None:
    names = write_pair(tmp_path, {"w": np.ones((8, 32), np.float32)})
    found = source(names)
    with Path(names[1]).open("r+b") as file:
        file.truncate(Path(names[1]).stat().st_size - 40)
    (layer,) = Session(found).report().layers
    assert layer.unreadable == f"layer 'w': {names[1]}: the file ends too early"


def test_scales_that_are_not_finite_are_found(tmp_path: Path) -> None:
    x = np.ones((2, 64), np.float32)
    entry = q8_0(x)
    data = bytearray(entry.data)
    data[:2] = np.array([np.nan], np.float16).tobytes()
    (tmp_path / "f.gguf").write_bytes(gguf([floats(x)]))
    broken = Entry(entry.name, entry.shape, gguf_files.Q8_0, bytes(data))
    (tmp_path / "q.gguf").write_bytes(gguf([broken]))
    (layer,) = qdebug.analyze(str(tmp_path / "f.gguf"), str(tmp_path / "q.gguf"))
    assert layer.diagnosis is not None
    assert layer.diagnosis.cause == "non-finite"
    assert layer.metrics is not None
    assert layer.metrics.non_finite == 32
