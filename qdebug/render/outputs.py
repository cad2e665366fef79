"""A model's own outputs in words: the first lines of a report."""

import math
from collections.abc import Sequence

from qdebug.formatting import percent, significant
from qdebug.measure.outputs import OutputMetrics, is_ruined
from qdebug.names import printable, shorten

# With more outputs than this, only the worst are shown.
_MOST = 8

_NAME_WIDTH = 60


def output_lines(outputs: Sequence[OutputMetrics]) -> list[tuple[str, bool]]:
    """A line for each output, at most `_MOST`, and whether the output is ruined."""
    worst = sorted(outputs, key=_goodness)[:_MOST]
    lines = [(_line(output), is_ruined(output)) for output in outputs if output in worst]
    if len(outputs) > len(worst):
        lines.append((f"and {len(outputs) - len(worst)} better outputs", False))
    return lines


def _goodness(output: OutputMetrics) -> tuple[bool, float]:
    return not is_ruined(output), math.inf if output.sqnr_db is None else output.sqnr_db


def _line(output: OutputMetrics) -> str:
    name = shorten(printable(output.name), _NAME_WIDTH)
    return f"output {name}: {'; '.join(figures(output))}"


def figures(output: OutputMetrics) -> list[str]:
    """The figures of one output, each with its name."""
    if not output.num_elements and not output.non_finite:
        return ["no finite elements"]
    found = []
    if is_ruined(output):
        found.append("RUINED")
    if output.non_finite:
        found.append(f"{output.non_finite} NaN or infinite elements, finite in the float model")
    if output.sqnr_db is not None:
        worst = ""
        if output.worst_sqnr_db is not None and output.num_samples > 1:
            worst = f" (least: {output.worst_sqnr_db:.1f}, sample {output.worst_sample})"
        found.append(f"SQNR {output.sqnr_db:.1f} dB{worst}")
    elif output.rmse == 0:
        found.append("exact")
    if output.cosine_similarity is not None:
        found.append(f"cosine {output.cosine_similarity:.4f}")
    if output.rmse and output.max_abs_error is not None:
        found.append(f"rmse {significant(output.rmse)}")
        found.append(f"largest error {significant(output.max_abs_error)}")
    if output.top1 is not None:
        found.append(f"same top-1 in {percent(output.top1)} % of {output.num_rows}")
    return found
