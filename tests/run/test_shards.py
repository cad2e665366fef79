"""What is broken costs itself: the other layers, the other files are reported."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.layers import large_layer
from tests.pairs import read

WritePairs = Callable[..., Path]


def broken_shards(write_pairs: WritePairs) -> tuple[list[Path], list[Path]]:
    """Five shards, and those of them that are whole: one has a changed byte, one is cut."""
    rng = np.random.default_rng(0)
    paths = [
        write_pairs({"a": large_layer(rng, 900), "b": large_layer(rng, 500)}, name=f"{i}.npz")
        for i in range(5)
    ]
    data = bytearray(paths[1].read_bytes())
    data[600] ^= 1  # within the floats of a
    paths[1].write_bytes(data)
    os.truncate(paths[3], paths[3].stat().st_size - 30)
    return paths, [paths[0], paths[2], paths[4]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_shard_costs_its_own_data_only(
    jobs: int, write_pairs: WritePairs, qdebug: Callable[..., Result], tmp_path: Path
) -> None:
    paths, whole = broken_shards(write_pairs)
    found = read(*paths, jobs=jobs)
    a, b = found.layers
    assert a == read(*whole).layers[0]
    assert b.metrics is not None
    assert b.metrics.num_elements == 4 * 500
    cut, wrong = sorted(found.problems, key=lambda line: "checksum" in line)
    assert cut.startswith(f"{paths[3]}: ")
    assert wrong == f"{paths[1]}: layer 'a': its checksum (CRC-32) does not agree with its data"
    ran = qdebug("report", *paths, "--jobs", jobs)
    assert ran.exit_code == 2
    assert [line for line in ran.stderr.splitlines() if line] == [
        f"Error: {line}" for line in found.problems
    ]


def test_a_layer_broken_in_all_shards_is_unreadable_and_each_is_named(
    write_pairs: WritePairs,
) -> None:
    rng = np.random.default_rng(0)
    paths = [write_pairs({"a": large_layer(rng, 900)}, name=f"{i}.npz") for i in range(3)]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[600] ^= 1
        path.write_bytes(data)
    report = read(*paths)
    (layer,) = report.layers
    assert layer.unreadable is not None
    assert [line.split(":")[0] for line in [layer.unreadable, *report.problems]] == [
        str(path) for path in paths
    ]


@pytest.mark.slow
def test_a_layer_of_broken_shards_is_drawn_and_explained_from_the_others(
    write_pairs: WritePairs, qdebug: Callable[..., Result], tmp_path: Path
) -> None:
    paths, whole = broken_shards(write_pairs)
    source = [word for path in paths for word in ("-m", path)]
    for command in (["plot", "a", "-o", tmp_path / "a.png"], ["explain", "a"]):
        ran = qdebug(*command, *source)
        assert ran.exit_code == 2
        lines = ran.stderr.splitlines()
        assert len(lines) == 2
        assert any(line.startswith(f"Error: {paths[1]}: layer 'a': ") for line in lines)
        assert any(line.startswith(f"Error: {paths[3]}: ") for line in lines)
    assert (tmp_path / "a.png").exists()
    good = qdebug("explain", "a", *(word for path in whole for word in ("-m", path)))
    assert good.exit_code == 0
    assert good.stdout == ran.stdout


def test_layers_chosen_answer_for_themselves_alone(
    write_pairs: WritePairs, qdebug: Callable[..., Result]
) -> None:
    rng = np.random.default_rng(0)
    a, b = large_layer(rng, 900), large_layer(rng, 500)
    paths = [
        write_pairs({"a": a, "b": b}, name="0.npz"),
        write_pairs({"a": {"float": a["float"]}, "b": b}, name="1.npz"),
    ]
    ran = qdebug("report", *paths, "--layer", "b")
    assert (ran.exit_code, ran.stderr) == (0, "")
    ran = qdebug("report", *paths, "--layer", "a")
    assert ran.exit_code == 2
    assert ran.stderr == (
        f"Error: {paths[1]}: layer 'a': field 'quantized': found nothing, expected an array\n"
    )
    assert "1 layer, 900 elements" in ran.stdout
