"""``qdebug quantize``: float arrays in, a pair file out, by any scheme."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from qdebug.measure.metrics import REFERENCE, Metrics
from qdebug.run import session
from qdebug.sources.pair_file.read import PairFiles

Run = Callable[..., Result]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    path = tmp_path / "weights.npz"
    arrays = {"conv/w": rng.normal(size=(8, 3, 3, 16)), "fc": rng.normal(size=(64, 100)) * 5}
    np.savez(path, **{name: a.astype(np.float32) for name, a in arrays.items()}, steps=np.arange(3))
    return path


def figures(path: Path) -> dict[str, Metrics]:
    found = {layer.name: layer.metrics for layer in session.run(PairFiles([str(path)])).layers}
    return {name: metrics for name, metrics in found.items() if metrics is not None}


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--dtype uint8",
        "--dtype int16",
        "--dtype uint16 --bits 12",
        "--bits 4",
        "--scheme symmetric --narrow-range --axis 0",
        "--scheme symmetric --dtype uint8",
        "--axis -1",
        "--rounding half-even",
    ],
)
def test_every_scheme_leaves_rounding_alone(options: str, weights: Path, qdebug: Run) -> None:
    out = weights.with_name("pairs.npz")
    result = qdebug("quantize", weights, "-o", out, *options.split())
    assert result.exit_code == 0
    assert "'steps' left out: found int64" in result.stderr
    found = figures(out)
    assert list(found) == ["conv/w", "fc"]
    for metrics in found.values():
        assert metrics.rmse_scale == pytest.approx(REFERENCE, rel=0.1)
        assert metrics.clipped == 0
        assert metrics.carried_rmse_scale == 0


def test_ranges_trade_clipping_for_a_finer_step(weights: Path, qdebug: Run) -> None:
    rmse = {}
    for how in ("minmax", "percentile:99", "mse"):
        out = weights.with_name("pairs.npz")
        qdebug("quantize", weights, "-o", out, "--bits", "4", "--range-from", how)
        rmse[how] = figures(out)["fc"]
    assert rmse["minmax"].clipped == 0
    assert rmse["percentile:99"].clipped == pytest.approx(0.01, abs=0.005)
    assert rmse["mse"].mse < min(rmse["minmax"].mse, rmse["percentile:99"].mse)  # type: ignore


def test_arrays_without_the_axis_get_one_scale(weights: Path, qdebug: Run) -> None:
    arrays = {"kernel": np.ones((4, 3, 3)), "bias": np.arange(4.0), "none": np.zeros((0, 3))}
    np.savez(weights, **arrays)
    out = weights.with_name("pairs.npz")
    result = qdebug("quantize", weights, "-o", out, "--axis", "0")
    assert result.exit_code == 0
    assert "'bias' gets one scale: found shape (4,)" in result.stderr
    with np.load(out) as pairs:
        assert pairs["kernel/scale"].shape == (4,)
        assert pairs["bias/scale"].shape == pairs["none/scale"].shape == ()


def test_a_fixed_range_is_everyones(weights: Path, qdebug: Run) -> None:
    out = weights.with_name("pairs.npz")
    assert qdebug("quantize", weights, "-o", out, "--range", "-1", "1").exit_code == 0
    with np.load(out) as pairs:
        assert pairs["fc/scale"] == pairs["conv/w/scale"] == 2 / 255
        assert pairs["fc/float"].dtype == np.float32
        assert pairs["fc/zero_point"] == 0


def test_the_same_input_gives_the_same_bytes(weights: Path, qdebug: Run) -> None:
    first, second = (weights.with_name(name) for name in ("1.npz", "2.npz"))
    for out in (first, second):
        qdebug("quantize", weights, "-o", out)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--bits 9", "field 'bits': found 9, expected 2 to 8 for int8"),
        ("--bits 1", "field 'bits': found 1"),
        ("--range 1 -1", "field 'range': found 1.0 to -1.0"),
        ("--range 0 nan", "field 'range': found 0.0 to nan"),
        ("--range-from best", "found 'best', expected minmax, mse or percentile:P"),
        ("--range-from percentile:x", "found 'percentile:x'"),
        ("--range-from percentile:101", "field 'percentile': found 101.0"),
        ("--dtype int4", "--dtype"),
        ("--range 0 1 --axis 0", "--axis and --range cannot be combined"),
        ("--range 0 1 --range-from mse", "--range-from and --range cannot be combined"),
    ],
)
def test_wrong_options_leave_no_file(
    options: str, message: str, weights: Path, qdebug: Run
) -> None:
    out = weights.with_name("pairs.npz")
    result = qdebug("quantize", weights, "-o", out, *options.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in weights.parent.iterdir()] == ["weights.npz"]


def test_wrong_input_is_explained(tmp_path: Path, qdebug: Run) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "codes.npz", q=np.zeros(3, np.int8))
    np.savez(tmp_path / "objects.npz", allow_pickle=True, q=np.array([{}]))
    (tmp_path / "text.npz").write_text("not a zip")
    for name, message in [
        ("one.npy", "found a single array (.npy)"),
        ("codes.npz", "found no float array"),
        ("objects.npz", "allow_pickle"),
        ("text.npz", "expected an .npz file"),
        ("none.npz", "No such file"),
    ]:
        result = qdebug("quantize", tmp_path / name, "-o", tmp_path / "out.npz")
        assert result.exit_code == 2
        assert message in result.stderr
        assert not (tmp_path / "out.npz").exists()


def test_a_percentage_of_nothing_is_refused(qdebug: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.ones((2, 2), np.float32))
    result = qdebug(
        "quantize", tmp_path / "w.npz", "-o", tmp_path / "p.npz", "--range-from", "percentile:0"
    )
    assert result.exit_code == 2
    assert "found 0.0, expected above 0" in result.output
    assert not (tmp_path / "p.npz").exists()
