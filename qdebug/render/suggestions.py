"""Suggestions in the forms that people and converters take, with names escaped for each."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qdebug.advise.suggest import Suggestion, Suggestions
from qdebug.arguments import one_of
from qdebug.errors import QdebugError
from qdebug.formatting import percent
from qdebug.names import printable, shortened, shown
from qdebug.report.graph import graph_of, is_constant
from qdebug.report.report import LayerReport, Report

_LEAST_NAME_WIDTH = 24
_INDENT = " " * 20
_WORTH_SAYING = 0.01  # the share of the error that cannot be traced
_WIDTH = 100  # of the text below the table, if no terminal sets the width

_BASES = {
    "model": "shares of the error at the model's output, traced back to where it was made",
    "local": "shares of the sum of local noise-to-signal ratios, without a run of the float model",
    "steps": "shares of squared rmse/scale, the only figure known; the signal's size is not",
}


@dataclass(frozen=True)
class Form:
    """One way to write a suggestion.

    Attributes:
        values: what the reader takes, from the report and the operators chosen.
        text: the same, written.
        models: endings of the models that its reader knows; empty where that does not matter.
    """

    values: Callable[[Report, Sequence[Suggestion]], list[Any]]
    text: Callable[[Sequence[Any]], str]
    models: tuple[str, ...] = ()


def table(found: Suggestions, kept: Sequence[Suggestion], width: int | None = None) -> str:
    """The operators as a table: shares, name and reason; at most `width` columns wide."""
    lines = ["   share   removes  operator", "-" * 60]
    ops = [f" ({printable(suggestion.op)})" if suggestion.op else "" for suggestion in kept]
    names = [printable(suggestion.layer) for suggestion in kept]
    if width is not None:
        room = width - len(_INDENT) - max(map(len, ops), default=0)
        names = shortened(names, max(_LEAST_NAME_WIDTH, room))
    for suggestion, name, op in zip(kept, names, ops, strict=True):
        lines.append(f"{_share(suggestion.share)}  {_share(suggestion.removes)}  {name}{op}")
        lines += _lines(printable(suggestion.reason), width, _INDENT)
    kept_removes, all_remove = (sum(s.removes for s in some) for some in (kept, found.candidates))
    tail = (
        f"{len(kept)} of {len(found.candidates)} operators that help by themselves: they remove "
        f"{percent(kept_removes)} % of the error, all of them {percent(all_remove)} %. The rest is "
        "rounding and clipping of activations: it goes where neighbours are in float together, "
        "with 16-bit activations, or with better ranges (`qdebug report`: clipped)."
    )
    lines += ["", *_lines(tail, width or _WIDTH)]
    if found.untraced >= _WORTH_SAYING:
        lines += _lines(
            f"Another {percent(found.untraced)} % cannot be traced: some layers, such as a softmax "
            "after a mask, inherit far more error than the layers that feed them explain.",
            width or _WIDTH,
        )
    lines += _lines(f"({_BASES[found.basis]})", width)
    return "\n".join(lines) + "\n"


def _lines(text: str, width: int | None, indent: str = "") -> list[str]:
    """The text in lines of at most `width` columns; one line if `width` is None."""
    if width is None:
        return [indent + text]
    width = max(width, len(indent) + _LEAST_NAME_WIDTH)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def _share(value: float) -> str:
    return f"{percent(value):>6} %"


def _names(report: Report, kept: Sequence[Suggestion]) -> list[str]:
    """The layers' names, as `--layer` of other commands takes them."""
    return [suggestion.layer for suggestion in kept]


def _tflite(report: Report, kept: Sequence[Suggestion]) -> list[str]:
    """Output tensors' names: QuantizationDebugOptions compares them with the float model's."""
    return list(dict.fromkeys(name for s in kept for name in s.nodes or (s.layer,)))


def _onnxruntime(report: Report, kept: Sequence[Suggestion]) -> list[str]:
    """Node names.

    Raises:
        QdebugError: the name of an operator's node is unknown.
    """
    for suggestion in kept:
        if not suggestion.nodes:
            raise QdebugError(
                f"layer '{shown(suggestion.layer)}': its node's name is unknown, and ONNX Runtime "
                "takes no tensor names; expected a report on two ONNX models with named nodes"
            )
    return list(dict.fromkeys(name for suggestion in kept for name in suggestion.nodes))


def _ai_edge_quantizer(report: Report, kept: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """A recipe: all operators as they are quantized in the report, then the exceptions.

    The last entry that matches an operator applies. An operator's scope consists of the names of
    its output tensors, each followed by a semicolon. The model's inputs and outputs are operators,
    too: their entries keep the first entry from rounding what an operator in float reads or makes.
    """
    recipe: list[dict[str, Any]] = [
        {
            "regex": ".*",
            "operation": "*",
            "algorithm_key": "min_max_uniform_quantize",
            "op_config": _op_config(report),
        }
    ]
    for suggestion in kept:
        scope = "".join(f"{name};" for name in suggestion.nodes or (suggestion.layer,))
        recipe.append(
            {
                "regex": rf"\A{re.escape(scope)}\Z",
                "operation": "*",
                "algorithm_key": "no_quantize",
            }
        )
    for end in _ends_in_float(report, kept):
        recipe.append({"regex": ".*", "operation": end, "algorithm_key": "no_quantize"})
    return recipe


def _ends_in_float(report: Report, kept: Sequence[Suggestion]) -> list[str]:
    """Which ends of the model to leave in float with these operators: INPUT, OUTPUT.

    An output, if one of them makes it. The inputs, if nothing else reads them: rounding them would
    be pure loss. If the report does not name what feeds its layers, its order stands in.
    """
    feeders = graph_of(report.layers).feeders
    left = {suggestion.layer for suggestion in kept}
    readers: dict[int, list[int]] = {}
    for place, found in enumerate(feeders):
        for feeder in found:
            readers.setdefault(feeder, []).append(place)
    activations = [p for p, layer in enumerate(report.layers) if not is_constant(layer)]
    of_inputs = [
        reader
        for place in activations
        if report.layers[place].op is None and report.layers[place].kind and not feeders[place]
        for reader in readers.get(place, [])
    ]
    ends = []
    if of_inputs and all(report.layers[reader].name in left for reader in of_inputs):
        ends.append("INPUT")
    if any(p not in readers and report.layers[p].name in left for p in activations):
        ends.append("OUTPUT")
    return ends


def _op_config(report: Report) -> dict[str, Any]:
    """How most of the report's layers are quantized, as ai-edge-quantizer writes it."""
    weights = [layer for layer in report.layers if layer.metrics and layer.kind == "weight"]
    activations = [
        layer for layer in report.layers if layer.metrics and layer.kind in ("activation", None)
    ]
    per_channel = not weights or any(layer.axis is not None for layer in weights)
    config: dict[str, Any] = {
        "weight_tensor_config": {
            "num_bits": _bits(weights, (2, 4, 8)),
            "symmetric": True,
            "granularity": "CHANNELWISE" if per_channel else "TENSORWISE",
            "dtype": "INT",
        },
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
    }
    if activations:
        bits = _bits(activations, (8, 16))
        config["activation_tensor_config"] = {
            "num_bits": bits,
            "symmetric": bits == 16,  # LiteRT's kernels support nothing else
            "granularity": "TENSORWISE",
            "dtype": "INT",
        }
    return config


def _bits(layers: Sequence[LayerReport], known: Sequence[int]) -> int:
    """The most common number of bits among `known`; 8 if no layer has one of them."""
    counts = Counter(layer.bits for layer in layers if layer.bits in known)
    return next((bits for bits, _ in counts.most_common(1) if bits is not None), 8)


def _lines_of(names: Sequence[str]) -> str:
    """A name a line."""
    return "".join(f"{printable(name)}\n" for name in names)


def _python_list(names: Sequence[str]) -> str:
    """A Python list, a name a line; ASCII, so that no name can reorder or hide what is read."""
    lines = [f"    {name!a},\n" for name in names]
    return f"[\n{''.join(lines)}]\n" if lines else "[]\n"


def _json(recipe: Sequence[Any]) -> str:
    return json.dumps(recipe, indent=2) + "\n"


FORMS = {
    "names": Form(_names, _lines_of),
    "tflite": Form(_tflite, _python_list, (".tflite", ".csv")),
    "ai-edge-quantizer": Form(_ai_edge_quantizer, _json, (".tflite", ".csv")),
    "onnxruntime": Form(_onnxruntime, _python_list, (".onnx",)),
}


def check_form(form: str, sources: Sequence[str]) -> None:
    """Check that a form suits the kind of model these sources come from.

    Raises:
        QdebugError: it is not, or there is no such form.
    """
    one_of("form", form, tuple(FORMS))
    chosen = FORMS[form]
    known = sorted({ending for each in FORMS.values() for ending in each.models})
    for source in sources:
        ending = next((e for e in known if source.lower().endswith(e)), None)
        if chosen.models and ending is not None and ending not in chosen.models:
            raise QdebugError(
                f"{printable(source)}: found a {ending} source, expected "
                f"{' or '.join(chosen.models)} for {form}"
            )


def values(form: str, report: Report, kept: Sequence[Suggestion]) -> list[Any]:
    """The operators as the reader that `form` names takes them: names, or entries of a recipe.

    Raises:
        QdebugError: the report is on another kind of model, or lacks the names that are needed.
    """
    check_form(form, report.sources)
    ops = [layer.op for layer in report.layers if layer.op]
    if form == "onnxruntime" and ops and all(op.isupper() for op in ops):
        raise QdebugError(f"found TFLite's operators ({printable(ops[0])}), expected ONNX's")
    return FORMS[form].values(report, kept)


def written(form: str, report: Report, kept: Sequence[Suggestion]) -> str:
    """The same as text.

    Raises:
        QdebugError: as `values`.
    """
    return FORMS[form].text(values(form, report, kept))
