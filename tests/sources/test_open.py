"""What the names of a source mean, and which options go with which."""

from typing import Any

import pytest

from qdebug.errors import OptionError, QdebugError
from qdebug.sources.open import (
    Options,
    check_options,
    check_pairs_options,
    is_live,
    is_saved,
    open_models,
    open_source,
    saved_report,
)
from qdebug.sources.pair_file.read import PairFiles
from tests.paths import SAMPLES

PAIRS, TFLITE, ONNX, SAVED = ["a.npz"], ["a.tflite", "b.TFLITE"], ["a.onnx", "b.onnx"], ["a.json"]
EVERY: dict[str, Any] = {
    "keys": {"float": "{}_fp32"},
    "inputs": "x.npz",
    "samples": 3,
    "kernels": "builtin",
    "signature": "main",
    "jobs": 2,
    "scheduler": "local",
}


def test_names_end_as_what_they_are() -> None:
    assert is_live(TFLITE)
    assert is_live(ONNX)
    assert is_saved(SAVED)
    assert is_saved(["debugger.CSV"])
    for names in (PAIRS, ["https://host/a.npz?b"], ["shards/*"], []):
        assert not is_live(names)
        assert not is_saved(names)


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (PAIRS, {"keys", "jobs", "scheduler"}),
        (TFLITE, {"inputs", "samples", "kernels", "signature", "jobs"}),
        (ONNX, {"inputs", "samples", "jobs"}),
        (SAVED, set()),
        (None, {"jobs"}),
    ],
    ids=["pair files", "tflite", "onnx", "saved", "in memory"],
)
def test_an_option_goes_with_some_sources_only(names: list[str] | None, meant: set[str]) -> None:
    for name, value in EVERY.items():
        options = Options(**{name: value})
        try:
            check_pairs_options(options) if names is None else check_options(names, options)
        except OptionError as error:
            assert name not in meant
            assert error.option == name
            assert str(error).startswith(f"option '{name}' goes with ")
        else:
            assert name in meant


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("samples", value) for value in (0, -1, 1.5, "3", True)),
        *(("jobs", value) for value in (0, -1, 1.5, "3", True)),
        *(("kernels", value) for value in ("", "fast", 3)),
        *(("keys", value) for value in ({"x": "{}"}, {"float": "x"}, {"float": 3}, "float={}")),
    ],
    ids=str,
)
def test_values_that_an_option_cannot_have_are_refused(option: str, value: Any) -> None:
    """Click looks at them on the command line, nobody else in Python or a configuration file."""
    for names in (PAIRS, TFLITE):
        with pytest.raises(QdebugError, match=f"^{option}: "):
            check_options(names, Options(**{option: value}))
    with pytest.raises(QdebugError, match=f"^{option}: "):
        check_pairs_options(Options(**{option: value}))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "found no source, expected pair files, two models or a report"),
        ([*SAVED, *PAIRS], "found a report (.json, .csv) among others, expected it alone"),
        ([*TFLITE[:1], *ONNX[:1]], "found a.tflite and a.onnx, expected two models of one kind"),
        ([*TFLITE[:1], *PAIRS], "found a.tflite and a.npz, expected two models of one kind"),
    ],
    ids=str,
)
def test_names_that_do_not_go_together_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(QdebugError) as caught:
        check_options(names, Options())
    assert said in str(caught.value)


def test_tensors_are_in_pair_files_and_models_only() -> None:
    assert isinstance(open_source([str(SAMPLES / "digits.npz")]), PairFiles)
    with pytest.raises(QdebugError, match=r"a\.json: found a report, which holds no tensors"):
        open_source(SAVED)
    for names in (PAIRS, SAVED, []):
        with pytest.raises(QdebugError, match="expected two models of one kind"):
            open_models(names)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe", "found no text, expected JSON"),
        (b"{", "not JSON"),
        (b"[]", "field 'schema': found None, expected 'qdebug.report/1'"),
    ],
    ids=str,
)
def test_what_is_no_report_is_one_line(content: bytes | None, said: str, tmp_path: Any) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QdebugError) as caught:
        saved_report(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
