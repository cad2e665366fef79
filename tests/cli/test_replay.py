"""``qdebug replay``: its table, its JSON, its exit status, and what users can do wrong."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.paths import SAMPLES

pytest.importorskip("ai_edge_litert", reason="qdebug[litert] is not installed")

from tests.arithmetic.integer.one_operator import Tensor
from tests.arithmetic.integer.one_operator import model as one_operator
from tests.sources.tflite.models import schema
from tests.sources.tflite.replay.device import (
    LOGITS,
    POINTWISE,
    dumped,
    faulty,
    name_of,
    until,
)

Run = Callable[..., Result]
MODEL, INPUTS = SAMPLES / "digits_int8.tflite", SAMPLES / "digits_inputs.npz"


@pytest.fixture
def dump(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dump of codes."""

    def written(**changes: object) -> Path:
        path = tmp_path / "dump.npz"
        np.savez(path, **{**dumped(), **changes})  # type: ignore[arg-type]
        return path

    return written


def test_a_sound_runtime_ends_with_status_0(qdebug: Run) -> None:
    result = qdebug("replay", MODEL, "--inputs", INPUTS, "--samples", 2, "--kernels", "reference")
    assert result.exit_code == 0
    assert "2 samples; compared with reference kernels" in result.stdout
    assert "9 operators: not one of 5480 codes differs" in result.stdout


def test_a_faulty_layer_of_a_dump_is_shown_with_its_fault(qdebug: Run, tmp_path: Path) -> None:
    name, path = name_of(LOGITS), tmp_path / "dump.npz"
    np.savez(path, **until(name) | {name: faulty(LOGITS, "bias")})
    result = qdebug("replay", MODEL, "--outputs", path)
    assert result.exit_code == 1
    assert "1 of 8 operators differs" in result.stdout
    assert "the codes are those of a kernel with a fault: it ignores its bias\n" in result.stdout
    assert "sample 0, [0, " in result.stdout
    assert "not replayed: 1\n  SOFTMAX StatefulPartitionedCall_1:0: " in result.stdout


def test_the_table_tells_whose_input_codes_an_operator_read(qdebug: Run, tmp_path: Path) -> None:
    path, codes = tmp_path / "dump.npz", dumped()
    kept = [name for name in codes if not name.startswith(("serving", POINTWISE))]
    np.savez(path, **{name: codes[name] for name in kept})
    args = ("replay", MODEL, "--outputs", path)
    local = ("--inputs", INPUTS, "--samples", 3, "--kernels", "reference")
    result = qdebug(*args, *local)
    assert result.exit_code == 0
    found = {line.split()[1]: line.split()[-1] for line in result.stdout.splitlines()[5:13]}
    assert found == {
        "CONV_2D": "dump",  # the last of the two; the first read the local run's
        "DEPTHWISE_CONV_2D": "dump",
        "ADD": "both",
        **dict.fromkeys(("AVERAGE_POOL_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"), "dump"),
    }
    result = qdebug(*args, *local, "--format", "json")
    values = json.loads(result.stdout)
    assert values["dumped"] is True
    assert [each["recorded"] for each in values["operators"]][:3] == ["run", "dump", "both"]
    assert "input" not in qdebug("replay", MODEL, *local).stdout


def test_overflows_of_the_accumulator_are_told(qdebug: Run, tmp_path: Path) -> None:
    model, dump = overflowing(tmp_path)
    result = qdebug("replay", model, "--outputs", dump)
    assert result.exit_code == 0
    assert "FULLY_CONNECTED t3: 1 sum does not fit the int32 accumulator\n" in result.stdout


def overflowing(path: Path) -> tuple[Path, Path]:
    """A model of one dense layer whose first sum is beyond int32, and its wrapped codes."""
    x, weights = Tensor((1, 2), "int8", 0.5), Tensor((2, 2), "int8", 0.5)
    weights.data = np.array([[127, 127], [1, 1]], np.int8)
    bias = Tensor((2,), "int32", 0.25, 0, None, np.array([2**31 - 1, 0], np.int32))
    output = Tensor((1, 2), "int8", 2.0**24)
    options = schema.FullyConnectedOptionsT()
    content = one_operator("FULLY_CONNECTED", options, [x, weights, bias], output, version=4)
    (path / "one.tflite").write_bytes(content)
    values = np.array([[[127, 100]]], np.int8)
    wrapped = -(2**31) - 1 + 127 * 227  # 2^31 - 1 + 127 * 227, less 2^32
    made = np.array([[[round(wrapped * 0.25 / 2**24), 0]]], np.int8)
    np.savez(path / "dump.npz", t0=values, t3=made)
    return path / "one.tflite", path / "dump.npz"


def test_the_tolerance_is_in_steps(qdebug: Run, dump: Callable[..., Path]) -> None:
    name = name_of(LOGITS)
    codes = dumped()[name]
    path = dump(**{name: np.where(codes < 100, codes + 2, codes)})
    assert qdebug("replay", MODEL, "--outputs", path).exit_code == 1
    assert qdebug("replay", MODEL, "--outputs", path, "--tolerance", 1).exit_code == 1
    within = qdebug("replay", MODEL, "--outputs", path, "--tolerance", 120)
    assert within.exit_code == 0
    assert "codes differ, none by more than 120 steps" in within.stdout


def test_json_goes_to_a_file_by_its_suffix(
    qdebug: Run, dump: Callable[..., Path], tmp_path: Path
) -> None:
    target = tmp_path / "replay.json"
    assert qdebug("replay", MODEL, "--outputs", dump(), "-o", target).stdout == ""
    values = json.loads(target.read_text())
    assert values["schema"] == "qdebug.replay/1"
    assert (values["num_samples"], values["failing"], values["unsupported"]) == (3, [], [])
    first = values["operators"][0]
    assert (first["op"], first["rounding"], first["fault"]) == ("CONV_2D", "double", None)
    assert first["differing"]["double"] == 0 < first["differing"]["single"]


def test_csv_has_a_row_for_each_operator_replayed_or_not(qdebug: Run, tmp_path: Path) -> None:
    name, path, target = name_of(LOGITS), tmp_path / "dump.npz", tmp_path / "replay.csv"
    np.savez(path, **until(name) | {name: faulty(LOGITS, "bias")})
    assert qdebug("replay", MODEL, "--outputs", path, "-o", target).exit_code == 1
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert len(rows) == 9
    found = next(row for row in rows if row["operator"] == name)
    assert (found["op"], found["codes"], found["input_codes"]) == ("FULLY_CONNECTED", "30", "dump")
    assert (found["fault"], found["matching"]) == ("it ignores its bias", "")
    assert int(found["differ"]) > 0 < int(found["most_steps"])
    assert rows[0]["matching"].split()[0] == "double"
    assert (rows[-1]["op"], rows[-1]["codes"]) == ("SOFTMAX", "")
    assert rows[-1]["not_replayed"] == "its output is not in the dump"


def test_markdown_is_one_table_of_code_spans(qdebug: Run, dump: Callable[..., Path]) -> None:
    result = qdebug("replay", MODEL, "--outputs", dump(), "--format", "markdown")
    lines = result.stdout.splitlines()
    assert (result.exit_code, len(lines)) == (0, 11)
    headings = [each.strip() for each in lines[0].strip("|").split("|")]
    assert headings == [
        "operator", "op", "codes", "differ", "most steps", "rounding", "matching", "input codes",
    ]  # fmt: skip
    assert all(line.startswith("| `") for line in lines[2:])


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "json"])
def test_names_of_tensors_are_data(form: str, qdebug: Run, tmp_path: Path) -> None:
    model, path = tmp_path / "one.tflite", tmp_path / "dump.npz"
    model.write_bytes(overflowing(tmp_path)[0].read_bytes().replace(b"t3", b"=\x1b"))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{name.replace("t3", "=\x1b"): codes for name, codes in arrays.items()})
    result = qdebug("replay", model, "--outputs", path, "--format", form)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    if form == "csv":
        assert result.stdout.splitlines()[1].startswith("'=")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((MODEL,), "found no inputs, expected samples"),
        ((SAMPLES / "digits_float.tflite", "--inputs", INPUTS), "found no quantized activations"),
        ((SAMPLES / "digits.npz", "--inputs", INPUTS), "expected a quantized .tflite model"),
        ((MODEL, "--outputs", "missing.npz"), "missing.npz: No such file or directory"),
        ((MODEL, "--outputs", MODEL), "File is not a zip file; expected an .npz file"),
        ((MODEL, "--outputs", INPUTS), "expected codes named like tensors of"),
        ((MODEL, "--inputs", INPUTS, "-o", "missing/x.json"), "missing"),
        ((MODEL, "--inputs", INPUTS, "--tolerance", "-1"), "--tolerance"),
        (
            (MODEL, "--outputs", INPUTS, "--kernels", "builtin"),
            "--kernels goes with samples",
        ),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    args: tuple[object, ...], message: str, qdebug: Run
) -> None:
    result = qdebug("replay", *args)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
