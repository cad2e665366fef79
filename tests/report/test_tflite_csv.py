"""The CSV of TFLite's QuantizationDebugger, read and written."""

import csv
import io
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdebug.errors import QdebugError
from qdebug.measure.metrics import REFERENCE, Metrics
from qdebug.render.columns import View
from qdebug.render.table import table
from qdebug.report.json import dumps, loads
from qdebug.report.report import LayerReport, Report
from qdebug.report.tflite_csv import COLUMNS, read_csv, write_csv

# As TensorFlow 2.21 wrote it for a conv / depthwise / mean / dense / softmax model, 3 samples.
DUMP = """\
op_name,tensor_idx,num_elements,stddev,mean_error,max_abs_error,mean_squared_error,scale,\
zero_point,tensor_name\r
CONV_2D,13,2048.0,0.0060296115,-7.037116e-05,0.10960662,4.0588824e-05,0.00944243,-128,\
functional_1/conv2d_1/Relu;functional_1/conv2d_1/convolution\r
DEPTHWISE_CONV_2D,17,2048.0,0.00062944036,-4.942097e-05,0.0037936594,3.9878933e-07,0.003036248,\
-128,functional_1/depthwise_conv2d_1/Relu6;functional_1/depthwise_conv2d_1/depthwise\r
MEAN,21,8.0,0.002762867,-0.0010238163,0.008221728,1.2784868e-05,0.0005588575,-128,\
functional_1/global_average_pooling2d_1/Mean\r
"""
HEAD, CONV, DEPTHWISE, MEAN = DUMP.splitlines(keepends=True)


@pytest.fixture
def read(tmp_path):
    def read_text(text, encoding="utf-8"):
        path = tmp_path / "debug.csv"
        path.write_bytes(text.encode(encoding))
        return read_csv(str(path))

    return read_text


def row(**cells):
    (known,) = csv.DictReader(io.StringIO(HEAD + MEAN))
    return HEAD + ",".join((known | cells).values()) + "\n"


def reason(report):
    (layer,) = report.layers
    assert layer.unreadable
    assert "\n" not in layer.unreadable
    return layer.unreadable


def test_a_dump_of_tensorflow_gives_the_figures_of_its_guide(read):
    report = read(DUMP)
    assert [layer.op for layer in report.layers] == ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN"]
    conv = report.layers[0]
    assert conv.name == "functional_1/conv2d_1/Relu;functional_1/conv2d_1/convolution"
    assert (conv.scale, conv.zero_point) == (0.00944243, -128)
    metrics = conv.metrics
    assert metrics.num_elements == 2048
    assert metrics.stddev == 0.0060296115
    assert metrics.mse == 4.0588824e-05
    assert metrics.rmse == math.sqrt(4.0588824e-05)
    # The guide's df['rmse/scale'] = sqrt(mean_squared_error) / scale.
    assert metrics.rmse_scale == pytest.approx(math.sqrt(4.0588824e-05) / 0.00944243, rel=1e-15)
    assert metrics.mean_error_scale == pytest.approx(-7.037116e-05 / 0.00944243, rel=1e-15)
    assert metrics.max_abs_error_scale == pytest.approx(0.10960662 / 0.00944243, rel=1e-15)
    assert metrics.rmse_scale_stderr == pytest.approx(0.1290994 / math.sqrt(2048), rel=1e-6)


def test_what_the_file_cannot_know_is_none_and_survives_json(read):
    report = read(DUMP)
    known = {
        "num_elements", "stddev", "mean_error", "max_abs_error", "mse", "rmse", "rmse_scale",
        "rmse_scale_stderr", "mean_error_scale", "max_abs_error_scale",
    }  # fmt: skip
    for layer in report.layers:
        assert {f.name for f in fields(Metrics) if getattr(layer.metrics, f.name) is not None} == (
            known
        )
        assert layer.dtype is layer.shape is layer.channels is None
    assert loads(dumps(report), "r.json") == report


def test_a_layer_is_measured_against_the_reference_where_zeros_are_unknown(read):
    conv, depthwise, mean = (layer.metrics for layer in read(DUMP).layers)
    assert conv.exceeds_reference
    assert mean.exceeds_reference
    assert not depthwise.exceeds_reference
    assert not replace(depthwise, rmse_scale=REFERENCE * 1.04).exceeds_reference
    assert "the worst: functional_1/global_average" in table(read(DUMP), View())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_a_byte_order_mark_and_more_columns_change_nothing(read, end, encoding):
    text = HEAD.replace("scale,", "corr,scale,") + MEAN.replace("1.2784868e-05,", "1e-5,0.99,")
    (layer,) = read(text.replace("\r\n", end), encoding).layers
    assert (layer.metrics.mse, layer.scale) == (1e-5, 0.0005588575)


def test_a_bracketed_number_is_a_number(read):
    (layer,) = read(row(scale="[0.25]", zero_point="[-3]")).layers
    assert (layer.scale, layer.zero_point) == (0.25, -3)
    assert layer.metrics.rmse_scale == layer.metrics.rmse / 0.25


@pytest.mark.parametrize("scales", ["[0.5 0.25]", '"[0.5, 0.25]"', "[ 0.5\t0.25 ]"])
def test_a_scale_a_channel_leaves_no_figure_in_steps(read, scales):
    (layer,) = read(row(scale=scales, zero_point="[0 1]")).layers
    assert (layer.scale, layer.zero_point) == ([0.5, 0.25], [0, 1])
    assert layer.metrics.rmse is not None
    assert layer.metrics.rmse_scale is None
    assert not layer.metrics.exceeds_reference


def test_an_empty_cell_is_a_figure_that_is_not_known(read):
    (layer,) = read(
        row(stddev="", scale="", zero_point="", op_name="", mean_squared_error="")
    ).layers
    assert layer.op is layer.scale is layer.zero_point is None
    assert layer.metrics.stddev is layer.metrics.rmse is layer.metrics.rmse_scale is None


def test_names_that_occur_twice_are_kept_apart(read):
    names = [layer.name for layer in read(HEAD + MEAN + MEAN + MEAN + CONV).layers]
    mean = "functional_1/global_average_pooling2d_1/Mean"
    assert names[:3] == [mean, f"{mean}:21", f"{mean}:21 (2)"]
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"scale": "wide"}, "column 'scale': found 'wide', expected a finite number"),
        ({"scale": "0"}, "column 'scale': found '0', expected a number above 0"),
        ({"scale": "[0.5 -1]"}, "column 'scale': found '[0.5 -1]', expected a number above 0"),
        ({"zero_point": "1.5"}, "column 'zero_point': found '1.5', expected a code"),
        ({"num_elements": ""}, "column 'num_elements': found nothing, expected a number"),
        ({"num_elements": "0"}, "column 'num_elements': found '0', expected 1 or more"),
        ({"mean_error": "nan"}, "column 'mean_error': found 'nan', expected a finite number"),
        ({"stddev": "[1 2]"}, "column 'stddev': found '[1 2]', expected one number"),
        ({"mean_squared_error": "-1"}, "found '-1', expected 0 or more"),
        ({"max_abs_error": "1e999"}, "found '1e999', expected a finite number"),
        ({"max_abs_error": "\x1b[2J"}, r"found '\x1b[2J', expected a finite number"),
        ({"tensor_name": "a,b"}, "column 'tensor_name': found more cells"),
    ],
)
def test_a_bad_cell_is_an_unreadable_layer_that_names_row_and_column(read, cells, message):
    text = reason(read(row(**cells)))
    assert message in text
    assert "debug.csv: row 2: " in text


def test_the_rows_beside_a_bad_one_are_read(read):
    report = read(HEAD + CONV + MEAN.replace("8.0", "many", 1) + DEPTHWISE)
    assert [bool(layer.unreadable) for layer in report.layers] == [False, True, False]
    assert "row 3" in report.complaints[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file, expected the CSV of"),
        ("\n\n", "found an empty file, expected the CSV of"),
        (HEAD, "found no row below the columns' names"),
        (HEAD.replace("stddev", "std") + MEAN, "row 1: no column 'stddev': found op_name, tensor"),
        ("a" * 200_000, "field larger than field limit"),
        ("\udcff", "found no text"),
    ],
)
def test_a_file_that_is_no_dump_is_one_line(tmp_path, text, message):
    path = tmp_path / "debug.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(QdebugError) as caught:
        read_csv(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(QdebugError, match="No such file"):
        read_csv(str(tmp_path / "none.csv"))


def test_written_and_read_again_it_is_the_same_report(read):
    report = read(DUMP)
    again = read(write_csv(report))
    assert again == replace(report, sources=again.sources)


def test_what_is_written_is_what_tensorflow_writes_but_for_the_index(read):
    ours = list(csv.DictReader(io.StringIO(write_csv(read(DUMP)))))
    theirs = list(csv.DictReader(io.StringIO(DUMP)))
    for our, their in zip(ours, theirs, strict=True):
        assert list(our) == list(their)
        for column in their.keys() - {"tensor_idx", "op_name", "tensor_name"}:
            assert float(our[column]) == float(their[column])


def test_a_scale_a_channel_and_unreadable_layers_leave_numbers_in_the_columns(read):
    report = read(row(scale="[0.5 0.25]", zero_point="[0 1]"))
    report = replace(report, layers=[*report.layers, LayerReport("no figures")])
    (line,) = csv.DictReader(io.StringIO(write_csv(report)))
    assert (line["scale"], line["zero_point"]) == ("", "")
    assert float(line["mean_squared_error"]) == report.layers[0].metrics.mse


@pytest.mark.parametrize(
    "name", ["=1", "-x", "+x", "@x", "\uff1d1", "'\uff20x", "'=x", "''=x", "a,b", 'q"q', "'plain"]
)
def test_no_name_is_a_formula_and_each_comes_back(read, name):
    report = read(DUMP)
    report = Report(["r"], [replace(report.layers[0], name=name, op=name)], [])
    text = write_csv(report)
    for cell in next(csv.reader(io.StringIO(text.split("\n", 1)[1]))):
        assert not cell.startswith(("=", "+", "@"))
    (layer,) = read(text).layers
    assert (layer.name, layer.op) == (name, name)


@given(st.text(max_size=300))
def test_any_text_gives_a_report_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "debug.csv"
    for content in (text, HEAD + text):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            report = read_csv(str(path))
        except QdebugError as error:
            lines = [str(error)]
        else:
            lines = report.complaints
            dumps(report)
            write_csv(report)
        assert not any("\n" in line for line in lines)


def test_a_file_cut_anywhere_does_not_pass(tmp_path):
    """A row cut inside the scale cell once read as another scale, without a word."""
    rows = [
        ",".join(COLUMNS),
        "CONV_2D,3,1000,0.1,0.0,0.3,0.01,0.003921568,-128,first",
        "ADD,4,1000,0.1,0.0,0.3,0.01,0.015,3,second",
    ]
    whole = "".join(f"{each}\n" for each in rows)
    path = tmp_path / "dump.csv"
    path.write_text(whole)
    assert not read_csv(str(path)).complaints
    ends = [len("\n".join(rows[:count])) + 1 for count in (2, 3)]
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        try:
            complaints = read_csv(str(path)).complaints
        except QdebugError:
            continue
        assert complaints or cut in ends, whole[:cut][-30:]
