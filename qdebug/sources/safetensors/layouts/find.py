"""Which layout a module is stored in; what is no quantized weight stays as it is."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdebug.errors import FieldError, LayerError
from qdebug.names import printable, shorten, shown
from qdebug.sources.safetensors.arrays import Array, PlainTensor
from qdebug.sources.safetensors.layouts import gptq, integers
from qdebug.sources.safetensors.layouts.module import Module
from qdebug.sources.safetensors.numbers import FLOATS, LEVELS
from qdebug.sources.tensors import Files, Tensor

_LAYOUTS: Sequence[Callable[[Module], Sequence[Tensor]]] = (gptq.tensors, integers.tensors)

# bitsandbytes names the arrays of a weight after it: `q_proj.weight.absmax`.
_BELOW = ".weight."

# Arrays that only a quantized module has.
_MARKS = re.compile(
    r"qweight|qzeros|scales|g_idx|SCB|weight_format|weight_(packed|scale|shape|zero_point|g_idx|global"
    r"|scale_inv|scale_2|global_scale)|weight\..+|(input|output|k|v|q)_(global_)?scale(_inv)?"
    r"|input_zero_point|pre_quant_scale|weight_quantizer\..+|.*_(blocks|scales)"
)


def tensors_of(
    arrays: Mapping[str, Array], config: Mapping[str, Any], files: Files
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """The tensors that arrays make, by name, and name and reason of each that makes none.

    Args:
        arrays: of all files of a model, by name.
        config: the model's ``quantization_config``, or what stands for it; may be empty.
        files: for what must be read before a weight's shape is known.
    """
    method = config.get("quant_method")
    method = method.lower() if isinstance(method, str) else ""
    modules: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        owner, part = _split(name)
        modules.setdefault(owner, {})[part] = array
    tensors: dict[str, Tensor] = {}
    skipped: list[tuple[str, str]] = []
    for name, parts in modules.items():
        module = Module(name, parts, config, method, files)
        found, reasons = _of_module(module)
        tensors |= {tensor.name: tensor for tensor in found}
        skipped += reasons
    return tensors, skipped


def _split(name: str) -> tuple[str, str]:
    """The module's name, and what the array is in it.

    >>> _split("h.0.weight"), _split("h.0.weight.absmax"), _split("weight")
    (('h.0', 'weight'), ('h.0', 'weight.absmax'), ('', 'weight'))
    """
    place = name.rfind(_BELOW)
    if place >= 0:
        return name[:place], name[place + 1 :]
    module, _, part = name.rpartition(".")
    return module, part


def _of_module(module: Module) -> tuple[Sequence[Tensor], Sequence[tuple[str, str]]]:
    """The tensors of one module, and what cannot be read of it."""
    try:
        found = next((found for layout in _LAYOUTS if (found := layout(module))), [])
        reason = ""
    except (FieldError, LayerError) as error:
        found, reason = [], str(error)
    marks = [part for part in module.arrays if _MARKS.fullmatch(part)]
    others = {part: array for part, array in module.arrays.items() if part not in marks}
    skipped: list[tuple[str, str]] = []
    if found:
        names = {tensor.name for tensor in found}
        others = {p: array for p, array in others.items() if module.named(p) not in names}
    elif marks and (reason or not _only_activations(marks)):
        others.pop("weight", None)
        skipped.append((module.named("weight"), reason or _unknown(module, marks)))
    tensors = list(found)
    for part, array in others.items():
        if array.dtype in FLOATS or array.dtype in LEVELS:
            tensors.append(PlainTensor(array))
        else:
            skipped.append((module.named(part), f"numbers of type {printable(array.dtype)}"))
    return tensors, skipped


def _only_activations(marks: Sequence[str]) -> bool:
    """Whether no array belongs to a weight: scales of a module's inputs, or of a cache."""
    return all(re.match(r"(input|output|[kvq])_", part) for part in marks)


def _unknown(module: Module, marks: Sequence[str]) -> str:
    arrays = shorten(", ".join(map(printable, sorted(module.arrays))), 200)
    said = f"the layout '{shown(module.method)}'" if module.method else "the layout"
    return f"{said} of its arrays {arrays} is not known"
