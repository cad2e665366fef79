"""Pictures show the figures of the report and every element of the layer."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from qdebug.measure import histogram
from qdebug.measure.histogram import Distributions
from qdebug.render import plots
from qdebug.report.diagnosis import Diagnosis
from qdebug.report.report import LayerReport, Report
from qdebug.run.session import Session
from qdebug.sources.pair_file.read import PairFiles
from tests.pairs import read
from tests.paths import SAMPLES
from tests.reports import layer as made

Write = Callable[..., Path]
Fields = dict[str, Any]


def measured(path: Path, end: str = "") -> tuple[LayerReport, Distributions]:
    """The report of the one layer of a file whose name ends so, and its distributions."""
    session = Session(PairFiles([str(path)]))
    (name,) = (each.name for each in session.source.layers if each.name.endswith(end))
    report = session.report([name])
    (found,) = session.distributions(report).values()
    return report.layers[0], found


def stairs(axes: Axes) -> dict[str, np.ndarray]:
    """Label -> the heights of its steps."""
    patches = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    return {str(patch.get_label()): np.asarray(patch.get_data().values) for patch in patches}


def bars(axes: Axes) -> list[Rectangle]:
    """Those that are not in the legend only."""
    rectangles = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [bar for bar in rectangles if bar.get_width() and bar.get_height()]


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_histograms_count_every_element_once(healthy: Fields, write_pairs: Write) -> None:
    x = healthy["float"].copy()
    x[:5] = np.nan, np.inf, 0.0, 1e20, -1e20
    _, found = measured(write_pairs({"layer": healthy | {"float": x}}))
    assert found.floats.counts.sum() == 998
    assert found.codes.counts.sum() == 998
    assert found.errors.counts.sum() + found.exact_zeros == 998
    assert found.floats.counts[[0, -1]].min() >= 1  # far outside: at the edge


def test_a_picture_shows_floats_codes_and_errors_in_the_shares_of_their_bins(
    healthy: Fields, write_pairs: Write
) -> None:
    report, found = measured(write_pairs({"layer": healthy}))
    assert report.metrics is not None
    values, errors = plots.layer_figure(report, found).axes
    assert stairs(values)["float"].tolist() == found.floats.shares.tolist()
    assert stairs(values)["quantized"].tolist() == found.codes.shares.tolist()
    (drawn,) = stairs(errors).values()  # none is beyond half a step
    assert drawn.sum() / histogram._ERROR_BINS_A_STEP == pytest.approx(1)
    assert f"rmse/scale {report.metrics.rmse_scale:.3f}" in legend(errors)


@pytest.mark.slow
def test_what_clips_is_drawn_apart_and_has_its_share() -> None:
    report, found = measured(SAMPLES / "digits_faulty.npz", "block_add_1/Add")
    values, errors = plots.layer_figure(report, found).axes
    (label,) = (label for label in stairs(values) if label.startswith("float outside"))
    assert label == "float outside the range (3.97 % clipped)"
    assert report.metrics is not None
    assert np.nansum(stairs(values)[label]) == pytest.approx(report.metrics.clipped, rel=0.01)
    assert any(text.startswith("more than half a step: ") for text in legend(errors))
    report, found = measured(SAMPLES / "digits.npz", "block_add_1/Add")
    values, _ = plots.layer_figure(report, found).axes
    assert not any("outside" in text for text in legend(values))


def test_codes_that_are_never_used_are_hatched() -> None:
    report, found = measured(SAMPLES / "digits_faulty.npz", "block_dw_bn_1/batchnorm/sub1")
    values, _ = plots.layer_figure(report, found).axes
    assert report.metrics is not None
    assert report.metrics.range_waste is not None
    hatched = [patch.get_width() for patch in values.patches if patch.get_hatch()]
    assert sum(hatched) / 255 == pytest.approx(report.metrics.range_waste)
    share = f"(range waste {100 * report.metrics.range_waste:.1f} %)"
    assert any(text.endswith(share) for text in legend(values))


def test_each_channel_has_a_bar() -> None:
    report, found = measured(SAMPLES / "digits.npz", "stem_conv_1/convolution")
    _, _, channels = plots.layer_figure(report, found).axes
    assert report.channels is not None
    heights = [bar.get_height() for bar in bars(channels)]
    assert heights == [channel.metrics.rmse_scale for channel in report.channels]
    assert len(heights) == 8


def overview(report: Report) -> tuple[Figure, list[Rectangle]]:
    figure = plots.overview_figure(report)
    return figure, bars(figure.axes[0])


def test_overview_has_a_bar_for_each_layer_in_the_colour_of_its_verdict() -> None:
    report = read(SAMPLES / "digits_faulty.npz")
    _, drawn = overview(report)
    colours = {"ok": plots.FLOAT, "warn": plots.ABOVE, "bad": plots.BAD}
    expected = [
        (layer.metrics.rmse_scale, colours[layer.diagnosis.verdict].lower())
        for layer in report.layers
        if layer.metrics and layer.diagnosis
    ]
    assert [(bar.get_width(), to_hex(bar.get_facecolor())) for bar in drawn] == expected
    assert len({colour for _, colour in expected}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("count", [91, 415, 3000])
def test_an_overview_of_many_layers_fits_a_screen_or_two_and_names_the_worst(count: int) -> None:
    fine, bad = Diagnosis("ok", "ok", "", ""), Diagnosis("bad", "clipping", "", "")
    layers = [made(f"layer{i}", rmse_scale=0.3, diagnosis=fine) for i in range(count)]
    layers[40] = made("bad", rmse_scale=0.8, diagnosis=bad)
    layers[41] = made("worse", rmse_scale=0.9, diagnosis=bad)
    layers[42] = made("coarse", rmse_scale=0.2, diagnosis=Diagnosis("warn", "coarse-scale", "", ""))
    figure, drawn = overview(Report([], layers))
    assert len(drawn) == count
    assert figure.bbox.height <= 2_200  # pixels
    figure.draw_without_rendering()
    axes, values = figure.axes[0], figure.axes[0].child_axes[0]
    for each in (axes, values):
        boxes = [text.get_window_extent() for text in each.get_yticklabels()]
        assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(boxes))
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert "worse" in names
    assert len(names) < count
    assert f"({len(names)} of {count} layers named" in axes.get_xlabel()
    # Where bars overlap, the worse is in front.
    assert drawn[41].get_zorder() > drawn[42].get_zorder() > drawn[0].get_zorder()


@pytest.mark.slow
def test_ticks_of_an_overview_keep_clear_of_each_other_and_numbers_are_whole() -> None:
    layers = [made(f"layer{i}", rmse_scale=0.3) for i in range(9)]
    layers.append(made("far off", rmse_scale=2.123456e27))
    figure, _ = overview(Report([], layers))
    figure.draw_without_rendering()
    axes, values = figure.axes[0], figure.axes[0].child_axes[0]
    boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert len(boxes) > 3
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in values.get_yticklabels())
