"""One layer on one screen: figures and normal values, cause, worst channels, what-if table."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from qdebug.advise.remedy import LABELS, recommend
from qdebug.advise.whatif import Alternative, WhatIf
from qdebug.arithmetic.affine import code_range, representable_range
from qdebug.errors import FieldError
from qdebug.formatting import percent, significant
from qdebug.measure.metrics import REFERENCE, Metrics, times_expected_limit
from qdebug.names import printable, shorten, shown
from qdebug.report.json import to_json
from qdebug.report.report import LayerReport, Report

SCHEMA = "qdebug.explain/1"

_GAPS = ("  ", " ")  # between columns; the second where the first is too wide
_WORST_CHANNELS = 5

# What each bit adds to the SQNR of uniform floats that fill the code range: 20 log10(2).
_DB_A_BIT = 20 * math.log10(2)

# Columns that the what-if table drops on a narrow terminal, in this order.
_DISPENSABLE = ("clipped\n[%]", "rmse", "zero\npoint", "scale")

# Heading -> cells; every heading has at most two lines.
_Columns = dict[str, list[str]]


def explained(layer: LayerReport, what_if: WhatIf | None, width: int = 80) -> str:
    """Everything known about one readable layer, as text of at most `width` columns.

    `what_if` is None if the source is a saved report, which holds no tensors.
    """
    assert layer.metrics is not None
    parts = [
        _title(layer, width),
        _figures(layer, layer.metrics, width),
        _diagnosis(layer, width),
        _channels(layer, width),
        _what_if(what_if, layer.grid, width),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def explained_json(report: Report, what_ifs: Mapping[str, WhatIf]) -> dict[str, Any]:
    """The same as JSON values: those of the report, and ``what_if`` in every layer.

    docs/whatif.md describes them; without a layer's tensors its `what_if` is null.
    """
    values = to_json(report) | {"schema": SCHEMA}
    for layer in values["layers"]:
        what_if = what_ifs.get(layer["name"])
        layer["what_if"] = None if what_if is None else _what_if_json(what_if)
    return values


def _title(layer: LayerReport, width: int) -> list[str]:
    """The layer's name, then its operator, kind, type and quantization."""
    name = textwrap.wrap(shown(layer.name), width, break_on_hyphens=False, drop_whitespace=False)
    return [*(name or ["''"]), *_wrapped(", ".join(facts(layer)), width, "  ")]


def facts(layer: LayerReport) -> list[str]:
    """A layer's operator, kind, type and quantization, each in a few words."""
    known = [layer.op, layer.kind, layer.dtype or layer.grid]
    found = [shorten(printable(fact), 60) for fact in known if fact]
    codes = _codes(layer)
    if codes and codes != code_range(str(layer.dtype)):
        found.append(f"codes {codes[0]} to {codes[1]}")
    if layer.shape is not None:
        found.append(shorten("shape " + ("x".join(map(str, layer.shape)) or "scalar"), 60))
    if layer.scale is not None:
        found.append(f"scale {_spread(layer.scale)}")
    if layer.zero_point is not None:
        found.append(f"zero point {_spread(layer.zero_point)}")
    if isinstance(layer.scale, list):
        along = "" if layer.axis is None else f" along axis {layer.axis}"
        found.append(f"{len(layer.scale)} channels{along}")
    return found


def _figures(layer: LayerReport, metrics: Metrics, width: int) -> list[str]:
    """One line per figure: its name, its value, the normal value."""
    cells = figure_rows(layer, metrics)
    names, values, normals = ([row[i] for row in cells] for i in range(3))
    return _table({"figure": names, "value": values, "normal": normals}, "figure normal", width)


def figure_rows(layer: LayerReport, metrics: Metrics) -> list[tuple[str, str, str]]:
    """The figures that a person looks at first: name, value and normal value as text.

    Names of parts are indented.
    """
    m = metrics
    rows: list[tuple[str, float | int | None, str]] = [
        ("NaN or Inf", m.non_finite or None, "0; the float model itself is broken"),
        ("rmse/scale", m.rmse_scale, _normal_rmse_scale(m)),
        ("times expected", m.times_expected, _normal_times(m)),
        ("  quantizer", m.quantizer_rmse_scale, "the same: its own rounding and clipping"),
        ("  carried", m.carried_rmse_scale, "0: wrong before this quantizer"),
        ("    weights", m.weights_rmse_scale, "what rounding the operator's weights brings"),
        ("    arithmetic", m.arithmetic_rmse_scale, "0; up to 0.1 by the kernel's rounding"),
        ("mean error [s]", m.mean_error_scale, _normal_mean(m)),
        ("max abs error [s]", m.max_abs_error_scale, "0.5 at most"),
    ]
    cells = [(label, _cell(value), normal) for label, value, normal in rows if value is not None]
    if m.clipped is not None:
        cells.append(("clipped [%]", percent(m.clipped), "0"))
    if m.range_waste is not None:
        cells.append(("range waste [%]", percent(m.range_waste), "0; 50 is one bit lost"))
    if m.sqnr_db is not None:
        bits = layer.bits if _codes(layer) else None
        normal = f"{_DB_A_BIT * bits:.0f} for uniform floats that fill {bits} bits" if bits else ""
        cells.append(("SQNR [dB]", _db(m.sqnr_db), normal))
    if m.float_min is not None and m.float_max is not None:
        cells.append(("floats", _ends(m.float_min, m.float_max), _representable(layer)))
    one = not isinstance(layer.scale, list) and not isinstance(layer.zero_point, list)
    if one and m.fit_scale is not None and m.fit_zero_point is not None:
        line = f"{significant(m.fit_scale)}, {significant(m.fit_zero_point)}"
        recorded = f"{_spread(layer.scale or 0.0)}, {_spread(layer.zero_point or 0)} as recorded"
        if layer.grid is not None:
            recorded = "1, 0: of the decoded values"
        cells.append(("fitted scale, zero", line, recorded))
    for label, value, normal in (
        ("model rmse/scale", m.model_rmse_scale, "0.3 in first layers, 1 to 3 in last ones"),
        ("  inherited", m.inherited_rmse_scale, "from the layer's inputs"),
    ):
        if value is not None:
            cells.append((label, _cell(value), normal))
    if m.model_sqnr_db is not None:
        cells.append(("model SQNR [dB]", _db(m.model_sqnr_db), "against the float model's own run"))
    return cells


def _normal_rmse_scale(m: Metrics) -> str:
    expected, limit = m.rmse_scale_expected, significant(m.rmse_scale_limit)
    if expected is None or not 0 <= expected <= REFERENCE:
        return f"{significant(REFERENCE)}, up to {limit} (less with exact zeros)"
    zeros = 1 - (expected / REFERENCE) ** 2
    why = f"{percent(zeros)} % zeros" if zeros > 1e-9 else "rounding alone"
    return f"{_cell(expected)}, up to {limit} ({why})"


def _normal_times(m: Metrics) -> str:
    limit = significant(times_expected_limit(m))
    return f"1, up to {limit}; less where scales were searched for"


def _normal_mean(m: Metrics) -> str:
    """Three standard errors of a mean of errors uniform over one step."""
    return f"0, give or take {significant(3 * REFERENCE / math.sqrt(max(m.num_elements, 1)))}"


def _codes(layer: LayerReport) -> tuple[int, int] | None:
    """The least and largest code; None if the report does not say."""
    if layer.dtype is None or layer.bits is None:
        return None
    try:
        return code_range(layer.dtype, layer.bits, bool(layer.narrow_range))
    except FieldError:
        return None


def _representable(layer: LayerReport) -> str:
    """The range of floats that a scale and zero point can represent; empty per channel."""
    s, z, codes = layer.scale, layer.zero_point, _codes(layer)
    if codes is None or not isinstance(s, int | float) or not isinstance(z, int):
        return ""
    if not codes[0] <= z <= codes[1]:
        return ""
    return f"{_ends(*representable_range(s, z, codes))} can be represented"


def _diagnosis(layer: LayerReport, width: int) -> list[str]:
    found = layer.diagnosis
    if found is None:
        return []
    indent = " " * 10
    cause = found.cause or "not known"
    if found.verdict != cause:
        cause += f" ({found.verdict})"
    lines = [shorten(f"cause     {printable(cause)}", width)]
    for label, text in (("evidence", found.evidence), ("advice", found.advice)):
        if text:
            lines += _wrapped(f"{label:10}{printable(text)}", width, indent, first="")
    return lines


def _channels(layer: LayerReport, width: int) -> list[str]:
    """The `_WORST_CHANNELS` channels furthest above what rounding alone gives."""
    if not layer.channels:
        return []

    def badness(index: int) -> float:
        metrics = layer.channels[index].metrics if layer.channels else None
        assert metrics is not None
        return (metrics.steps or 0.0) / (metrics.rmse_scale_expected or REFERENCE)

    worst = sorted(range(len(layer.channels)), key=badness, reverse=True)[:_WORST_CHANNELS]
    chosen = [layer.channels[index] for index in worst]
    columns = {"channel": [str(index) for index in worst]}
    if layer.grid is None:
        columns |= {
            "scale": [_cell(channel.scale) for channel in chosen],
            "zero\npoint": [str(channel.zero_point) for channel in chosen],
            "rmse\n/scale": [_cell(channel.metrics.rmse_scale) for channel in chosen],
            "up to": [significant(channel.metrics.rmse_scale_limit) for channel in chosen],
        }
    else:
        columns |= {
            "times\nexpected": [_cell(channel.metrics.times_expected) for channel in chosen],
            "up to": [significant(times_expected_limit(channel.metrics)) for channel in chosen],
        }
    columns |= {
        "clipped\n[%]": [_share(channel.metrics.clipped) for channel in chosen],
        "SQNR\n[dB]": [_db(channel.metrics.sqnr_db) for channel in chosen],
    }
    title = f"The worst of {len(layer.channels)} channels:"
    return [title, *_table(columns, "", width)]


def _what_if(found: WhatIf | None, grid: str | None, width: int) -> list[str]:
    if found is None:
        text = "Other ways to quantize these floats: needs the tensors, not a saved report."
        if grid is not None:
            text = "Other ways to quantize these floats: not tried where steps differ."
        return _wrapped(text, width, "")
    advice = recommend(found)
    rows: list[tuple[str, Alternative, Metrics, str]] = [
        ("as recorded", found.recorded, found.recorded.metrics, ""),
        ("with its codes", found.recorded, found.total, ""),
    ]
    for each in found.alternatives:
        marks = "†" * each.needs_clamp + " *" * (each.name == advice.alternative)
        label = LABELS[each.name] + " " * each.needs_clamp + marks
        change = "-" if each.change_db is None else f"{round(each.change_db, 1) + 0.0:+.1f}"
        rows.append((label, each, each.metrics, change))
    columns = {
        "these floats": [label for label, *_ in rows],
        "scale": [_spread(each.params.scale.tolist(), 2) for _, each, *_ in rows],
        "zero\npoint": [_spread(each.params.zero_point.tolist()) for _, each, *_ in rows],
        "rmse": [_cell(metrics.rmse) for _, _, metrics, _ in rows],
        "rmse\n/scale": [_cell(metrics.rmse_scale) for _, _, metrics, _ in rows],
        "SQNR\n[dB]": [_db(metrics.sqnr_db) for _, _, metrics, _ in rows],
        "change\n[dB]": [change for *_, change in rows],
        "clipped\n[%]": [_share(metrics.clipped) for _, _, metrics, _ in rows],
    }
    beyond = []
    if any(each.needs_clamp for each in found.alternatives):
        beyond = _wrapped(
            "† only if the ReLU (or Clip) is an operator of its own: this model leaves it to the "
            "range of the codes, and this range reaches beyond it.",
            width,
            "",
        )
    return [
        *_table(columns, "these floats", width),
        *beyond,
        "",
        *_wrapped(advice.text, width, ""),
    ]


def _what_if_json(found: WhatIf) -> dict[str, Any]:
    advice = recommend(found)
    return {
        "alternatives": [_alternative(each) for each in (found.recorded, *found.alternatives)],
        "recommendation": {
            "alternative": advice.alternative,
            "sqnr_db": advice.sqnr_db,
            "gain_db": advice.gain_db,
            "text": advice.text,
        },
    }


def _alternative(each: Alternative) -> dict[str, Any]:
    scale, zero_point = each.params.scale.tolist(), each.params.zero_point.tolist()
    many = each.params.axis is not None
    return {
        "name": each.name,
        "change": each.change,
        "dtype": each.params.dtype,
        "bits": each.params.bits,
        "narrow_range": each.params.narrow_range,
        "axis": each.params.axis,
        "scale": scale if many else scale[0],
        "zero_point": zero_point if many else zero_point[0],
        "rmse": each.metrics.rmse,
        "rmse_scale": each.metrics.rmse_scale,
        "sqnr_db": each.metrics.sqnr_db,
        "change_db": each.change_db,
        "clipped": each.metrics.clipped,
        "needs_clamp": each.needs_clamp,
    }


def _table(columns: _Columns, left: str, width: int) -> list[str]:
    """Lines of aligned columns, the last one cut to fit; `left` names the left-aligned ones.

    Columns in `_DISPENSABLE` are left out if the table is too wide; the last line then lists them.
    """
    left_out = []
    gap = next((gap for gap in _GAPS if _wide(columns, gap) <= width), _GAPS[-1])
    for name in _DISPENSABLE:
        if name in columns and _wide(columns, gap) > width:
            columns = {heading: cells for heading, cells in columns.items() if heading != name}
            left_out.append(name.replace("\n", " "))
    headings = [heading.split("\n") for heading in columns]
    depth = max(map(len, headings))
    stacked = [
        [""] * (depth - len(heading)) + heading + cells
        for heading, cells in zip(headings, columns.values(), strict=True)
    ]
    for name, cells in zip(columns, stacked, strict=True):
        room = max(map(len, cells))
        aligned = str.ljust if name in left.split() or name == left else str.rjust
        cells[:] = [aligned(cell, room) for cell in cells]
        cells.insert(depth, "-" * room)
    lines = [gap.join(cells).rstrip() for cells in zip(*stacked, strict=True)]
    lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    if left_out:
        lines += _wrapped(f"left out to fit {width} columns: {', '.join(left_out)}", width, "")
    return lines


def _wide(columns: _Columns, gap: str) -> int:
    widths = [
        max(*map(len, heading.split("\n")), *map(len, cells), 0)
        for heading, cells in columns.items()
    ]
    return sum(widths) + len(gap) * (len(widths) - 1)


def _wrapped(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else "0" if value == 0 else significant(value)


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _ends(low: float, high: float) -> str:
    return f"{_cell(low)} to {_cell(high)}"


def _spread(values: Any, digits: int = 3) -> str:
    """One number, or the least and largest of several."""
    numbers = values if isinstance(values, list) else [values]
    low, high = min(numbers), max(numbers)
    if low == high or len(numbers) == 1:
        return str(low) if isinstance(low, int) else significant(low)
    if isinstance(low, int):
        return f"{low}..{high}"
    return f"{low:.{digits}g}..{high:.{digits}g}"
