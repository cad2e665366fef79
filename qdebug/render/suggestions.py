"""Suggestions in the forms that people and converters take; names escaped for each of them."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qdebug.advise.suggest import Suggestion, Suggestions
from qdebug.errors import QdebugError
from qdebug.formatting import percent
from qdebug.names import printable, shorten, shown
from qdebug.report.report import LayerReport, Report

_LEAST_NAME_WIDTH = 24
_INDENT = " " * 20
_WIDTH = 100  # of the text below a table that is not fitted to a terminal

_BASES = {
    "model": "shares of the error at the model's output, traced back to where it was made",
    "local": "shares of the sum of local noise-to-signal ratios: no run of the float model is here",
    "steps": "shares of squared rmse/scale, the only figure here: nothing tells the signal's size",
}


@dataclass(frozen=True)
class Form:
    """One way to write a suggestion.

    Attributes:
        text: of the report, and of the operators chosen.
        models: endings of the models that its reader knows; empty where that does not matter.
    """

    text: Callable[[Report, Sequence[Suggestion]], str]
    models: tuple[str, ...] = ()


def table(found: Suggestions, kept: Sequence[Suggestion], width: int | None = None) -> str:
    """The operators for people: shares, name and reason; at most `width` columns wide."""
    lines = ["   share   removes  operator", "-" * 60]
    for suggestion in kept:
        op = f" ({printable(suggestion.op)})" if suggestion.op else ""
        name = printable(suggestion.layer)
        if width is not None:
            name = shorten(name, max(_LEAST_NAME_WIDTH, width - len(_INDENT) - len(op)))
        lines.append(f"{_share(suggestion.share)}  {_share(suggestion.removes)}  {name}{op}")
        lines += _lines(printable(suggestion.reason), width, _INDENT)
    kept_removes, all_remove = (sum(s.removes for s in some) for some in (kept, found.candidates))
    tail = (
        f"{len(kept)} of {len(found.candidates)} operators that help by themselves: they remove "
        f"{percent(kept_removes)} % of the error, all of them {percent(all_remove)} %. The rest is "
        "rounding and clipping of activations: it goes where neighbours are in float together, "
        "with 16-bit activations, or with better ranges (`qdebug report`: clipped)."
    )
    lines += ["", *_lines(tail, width or _WIDTH), *_lines(f"({_BASES[found.basis]})", width)]
    return "\n".join(lines) + "\n"


def _lines(text: str, width: int | None, indent: str = "") -> list[str]:
    """The text in lines of at most this width; one line where there is no width."""
    if width is None:
        return [indent + text]
    width = max(width, len(indent) + _LEAST_NAME_WIDTH)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def _share(value: float) -> str:
    return f"{percent(value):>6} %"


def _names(report: Report, kept: Sequence[Suggestion]) -> str:
    """The layers' names, a line each, as `--layer` of other commands takes them."""
    return "".join(f"{printable(suggestion.layer)}\n" for suggestion in kept)


def _tflite(report: Report, kept: Sequence[Suggestion]) -> str:
    """Output tensors' names: QuantizationDebugOptions compares them with the float model's."""
    return _python_list([name for s in kept for name in s.nodes or (s.layer,)])


def _onnxruntime(report: Report, kept: Sequence[Suggestion]) -> str:
    """Node names.

    Raises:
        QdebugError: an operator whose node's name is not known.
    """
    for suggestion in kept:
        if not suggestion.nodes:
            raise QdebugError(
                f"layer '{shown(suggestion.layer)}': its node's name is unknown, and ONNX Runtime "
                "takes no tensor's; expected a report on two ONNX models whose nodes have names"
            )
    return _python_list([name for suggestion in kept for name in suggestion.nodes])


def _python_list(names: Sequence[str]) -> str:
    """A Python list, a name a line; ASCII, so that no name can reorder or hide what is read."""
    lines = [f"    {name!a},\n" for name in dict.fromkeys(names)]
    return f"[\n{''.join(lines)}]\n" if lines else "[]\n"


def _ai_edge_quantizer(report: Report, kept: Sequence[Suggestion]) -> str:
    """A recipe: all operators as they are quantized in the report, then the exceptions.

    The last entry that fits an operator counts. An operator's scope is the names of its output
    tensors, a semicolon behind each.
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
    return json.dumps(recipe, indent=2) + "\n"


def _op_config(report: Report) -> dict[str, Any]:
    """How most of the report's layers are quantized, in ai-edge-quantizer's words."""
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
            "symmetric": bits == 16,  # LiteRT's kernels know no other
            "granularity": "TENSORWISE",
            "dtype": "INT",
        }
    return config


def _bits(layers: Sequence[LayerReport], known: Sequence[int]) -> int:
    """The number of bits that most layers have; 8 where none has one that is known."""
    counts = Counter(layer.bits for layer in layers if layer.bits in known)
    return next((bits for bits, _ in counts.most_common(1) if bits is not None), 8)


FORMS = {
    "names": Form(_names),
    "tflite": Form(_tflite, (".tflite", ".csv")),
    "ai-edge-quantizer": Form(_ai_edge_quantizer, (".tflite", ".csv")),
    "onnxruntime": Form(_onnxruntime, (".onnx",)),
}


def written(form: str, report: Report, kept: Sequence[Suggestion]) -> str:
    """The operators in the form that `form` names.

    Raises:
        QdebugError: the report is on models of another kind, or does not say what is needed.
    """
    chosen = FORMS[form]
    known = sorted({ending for each in FORMS.values() for ending in each.models})
    for source in report.sources:
        ending = next((e for e in known if source.lower().endswith(e)), None)
        if chosen.models and ending is not None and ending not in chosen.models:
            raise QdebugError(
                f"{printable(source)}: found a {ending} source, expected "
                f"{' or '.join(chosen.models)} for {form}"
            )
    ops = [layer.op for layer in report.layers if layer.op]
    if form == "onnxruntime" and ops and all(op.isupper() for op in ops):
        raise QdebugError(f"found TFLite's operators ({printable(ops[0])}), expected ONNX's")
    return chosen.text(report, kept)
