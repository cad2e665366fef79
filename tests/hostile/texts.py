"""Hostile text files: JSON reports, the CSV of TFLite's debugger, configurations."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from qdebug.report.json import dumps
from qdebug.report.tflite_csv import COLUMNS
from tests.hostile.cases import SOUND, Cases
from tests.pairs import read

REPORTS = Cases("report", "x.json", ["report", "{}"])
TABLES = Cases("CSV", "x.csv", ["report", "{}"])
CONFIGS = Cases("configuration", "x.toml", ["check", SOUND, "--config", "{}"])


def _of_text(cases: Cases, name: str, text: str | bytes, said: str) -> None:
    def build(path: Path) -> None:
        """Text that is no such file."""
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    build.__name__ = name
    cases.refused(said)(build)


@cache
def _sound_report() -> str:
    return dumps(read(Path(SOUND)))


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The report on a sound model, as `change` leaves it."""
    values = json.loads(_sound_report())
    values["layers"] = values["layers"][:4]
    change(values)
    return json.dumps(values)


for _name, _text, _said in (
    ("empty", "", "x.json: not JSON"),
    ("not_json", "{", "x.json: not JSON"),
    ("deep", "[" * 200_000, "x.json: not JSON"),
    ("deep_objects", '{"a":' * 200_000, "x.json: not JSON"),
    ("number_of_10_000_digits", "1" * 10_000, "x.json: not JSON"),
    ("not_utf_8", b"\xff\xfe{}", "x.json: found no text, expected JSON"),
    ("another_schema", '{"schema": "\\u001b[2J"}', r"field 'schema': found '\\x1b\[2J'"),
    ("a_list", "[1]", "field 'schema': found None"),
    ("long_schema", json.dumps({"schema": "x" * 10**6}), "field 'schema': found 'xxx"),
):
    _of_text(REPORTS, _name, _text, _said)


def _of_report(name: str, change: Callable[[dict[str, Any]], object], said: str) -> None:
    def build(path: Path) -> None:
        """A field of another type, or a number that no arithmetic can take."""
        path.write_text(changed(change))

    build.__name__ = name
    (REPORTS.refused(said) if said else REPORTS.read())(build)


def _layer(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda report: report["layers"][0].update(fields)


def with_figure(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda report: report["layers"][0]["metrics"].update({name: value})


for _name, _change, _said in (
    (
        "figure_of_nan",
        with_figure("rmse", float("nan")),
        "field 'rmse': found NaN, expected a number",
    ),
    ("figure_of_infinity", with_figure("rmse", float("inf")), "field 'rmse': found Infinity"),
    ("figure_of_400_digits", with_figure("rmse", 10**400), "field 'rmse': found 1000"),
    ("count_of_20_digits", with_figure("num_elements", 10**20), "field 'num_elements': found 1000"),
    (
        "figure_of_text",
        with_figure("rmse", "\x1b[2J"),
        r"field 'rmse': found .*, expected a number",
    ),
    ("figure_of_true", with_figure("rmse", True), "field 'rmse': found true, expected a number"),
    (
        "figure_of_a_list",
        with_figure("rmse", [0.1]),
        "field 'rmse': found .0.1., expected a number",
    ),
    ("layer_of_a_number", lambda r: r.update(layers=[1]), "field 'layers': found"),
    ("layers_of_nothing", lambda r: r.pop("layers"), "field 'layers': found null"),
    ("name_of_nothing", _layer(name=None), "field 'name': found null, expected text"),
    ("no_scales", _layer(scale=[]), "field 'scale': found an empty list"),
    ("shape_of_text", _layer(shape=["1"]), "field 'shape': found"),
    ("channels_of_numbers", _layer(channels=[1]), "field 'channels': found"),
    ("metrics_of_a_list", _layer(metrics=[]), "field 'metrics': found"),
    ("name_of_a_half_character", _layer(name="a\ud800"), ""),
    ("name_of_a_page", _layer(name="a\n" * 5000), ""),
    (
        "layer_that_feeds_itself",
        lambda r: r["layers"][0].update(inputs=[r["layers"][0]["name"]]),
        "",
    ),
    ("inputs_of_nobody", _layer(inputs=["nobody"] * 100), ""),
    ("negative_counts", with_figure("num_elements", -5), ""),
    ("negative_shape", _layer(shape=[-5, 2**62, 2**62]), ""),
    ("scale_of_nothing", _layer(scale=0), ""),
    ("two_layers_of_one_name", lambda r: r["layers"].append(r["layers"][0]), ""),
    ("unknown_fields", _layer(__class__="os", __init__={}), ""),
    ("no_layer", lambda r: r.update(layers=[]), ""),
):
    _of_report(_name, _change, _said)

_HEAD = ",".join(COLUMNS) + "\n"
_ROW = "CONV_2D,1,100,0.1,0.0,0.2,0.01,0.3,0,conv\n"

for _name, _text, _said in (
    ("empty", "", "x.csv: found an empty file"),
    ("not_utf_8", b"\xff\xfe", "x.csv: found no text"),
    ("nul", _HEAD + "\0" * 100 + "\n", "x.csv: "),
    ("another_table", "a,b\n1,2\n", "x.csv: row 1: no column 'op_name'"),
    ("no_rows", _HEAD, "x.csv: found no row"),
    ("cell_of_a_megabyte", _HEAD + "x" * 1_000_000 + "\n", "x.csv: field larger than field limit"),
    ("open_quote", _HEAD + '"' + _ROW * 9, "x.csv: "),
    (
        "row_cut_off",
        _HEAD + _ROW + "CONV_2D,1,100,0.1,0.0,0.2,0.01,0.0039\n",
        "row 3: column 'zero",
    ),
    ("row_too_long", _HEAD + _ROW[:-1] + ",1\n", "row 2: column 'tensor_name': found more cells"),
    ("no_line_end", _HEAD + _ROW[:-1], "x.csv: found no line end after the last row"),
    ("scale_of_nan", _HEAD + _ROW.replace("0.3", "nan"), "row 2: column 'scale': found 'nan'"),
    ("scale_of_0", _HEAD + _ROW.replace("0.3", "0"), "row 2: column 'scale': found '0'"),
    ("scale_of_code", _HEAD + _ROW.replace("0.3", "__import__('os')"), "row 2: column 'scale'"),
    ("count_of_1e308", _HEAD + _ROW.replace("100", "1e308"), "row 2: column 'num_elements'"),
    ("escape", _HEAD + _ROW.replace("0.3", "\x1b[2J"), r"found '\\x1b\[2J'"),
):
    _of_text(TABLES, _name, _text, _said)


@TABLES.read()
def formula(path: Path) -> None:
    """A name that a spreadsheet would run."""
    path.write_text(_HEAD + _ROW.replace("conv", "=cmd|' /C calc'!A0"))


for _name, _text, _said in (
    ("not_toml", "[", "x.toml: not TOML"),
    ("not_utf_8", b"\xff\xfe", "x.toml: not TOML"),
    ("deep", "a = " + "[" * 100_000, "x.toml: not TOML"),
    ("long_number", "max_rmse_scale = " + "9" * 10_000, "x.toml: "),
    ("unknown_key", '"\\u001b[2J" = 1', r"x.toml: unknown key '\\x1b\[2J'"),
    ("table_of_text", 'tool = {qdebug = "x"}', "x.toml: .*found 'x', expected a table"),
    ("limit_of_nan", "max_rmse_scale = nan", "x.toml: 'max_rmse_scale': "),
    ("limit_of_text", 'max_rmse_scale = "\\n"', "x.toml: 'max_rmse_scale': "),
    ("limit_of_true", "max_rmse_scale = true", "x.toml: 'max_rmse_scale': "),
    ("limit_of_a_table", "max_rmse_scale = {}", "x.toml: 'max_rmse_scale': "),
    ("limit_below_0", "max_rmse_scale = -1", "x.toml: 'max_rmse_scale': "),
    ("layer_of_text", 'layer = "x"', "x.toml: 'layer': expected tables"),
    ("layer_without_a_name", "layer = [{}]", "x.toml, layer table 1: 'name': found nothing"),
    ("cause_unknown", 'fail_on = ["x"]', "x.toml: 'fail_on'"),
    ("ignore_of_numbers", "ignore = [1]", "x.toml: 'ignore': found"),
    ("samples_of_0", 'source = "x"\nsamples = 0', "x.toml: 'samples': found 0"),
    ("duplicate_key", "ignore = []\nignore = []", "x.toml: not TOML"),
):
    _of_text(CONFIGS, _name, _text, _said)


@CONFIGS.read()
def glob_that_could_take_for_ever(path: Path) -> None:
    """A glob of many stars takes a naive matcher exponential time."""
    path.write_text(f'ignore = ["{"*a" * 40}b"]')


@REPORTS.refused("x.json: found a device, expected a file")
def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


@TABLES.refused("x.csv: found a device, expected a file")
def endless_table(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")


@CONFIGS.refused("x.toml: found a device, expected a file")
def endless_configuration(path: Path) -> None:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")
