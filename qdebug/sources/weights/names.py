"""The names of a Hugging Face model's tensors in GGUF, and the order of their rows there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qdebug.arithmetic.grids import Decoded
from qdebug.errors import MissingExtraError
from qdebug.names import shown
from qdebug.sources.tensors import Files, Rows, Tensor, Weights

# llama.cpp's converter reorders these rows for models of Llama's kind, so that the two halves of a
# rotary embedding alternate: rows 0, 64, 1, 65, ... of a head of 128.
_REORDERED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}

# The squared error falls to less than this share of what it was, if rows are in the right order.
_CLEARLY = 0.5

# The table of names has an entry for each block of a model.
_MOST_BLOCKS = 1 << 12


def as_gguf(floats: Weights, quantized: Weights) -> Weights:
    """The float model under the names, and in the order of rows, of its GGUF twin.

    Names are those of the `gguf` package's table for the GGUF file's architecture. Tensors without
    a name there keep their own. Whether rows are reordered is found by trying on the first tensor
    for which it matters.

    Raises:
        MissingExtraError: the `gguf` package is not installed.
    """
    new_names = _names(floats, quantized.facts)
    tensors: dict[str, Tensor] = {}
    reordered: dict[str, Moved] = {}
    for name, tensor in floats.tensors.items():
        new = new_names.get(name, name)
        tensors[new] = Moved(tensor, new)
        heads = _heads(new, quantized.facts)
        if heads and tensor.shape and not tensor.shape[0] % (2 * heads):
            reordered[new] = Moved(tensor, new, heads)
    skipped = [(new_names.get(name, name), reason) for name, reason in floats.skipped]
    notes = list(floats.notes)
    if _is_reordered(tensors, reordered, quantized.tensors):
        tensors |= reordered
        notes.append(
            f"the rows of {len(reordered)} query and key tensors are in the order of llama.cpp's "
            f"converter; those of {shown(floats.files[0])} are compared in that order"
        )
    return replace(floats, tensors=tensors, skipped=skipped, notes=notes)


def _names(floats: Weights, facts: Mapping[str, str | int]) -> dict[str, str]:
    """The names in GGUF of those tensors that have one."""
    try:
        from gguf.constants import MODEL_ARCH_NAMES
        from gguf.tensor_mapping import get_tensor_name_map
    except ImportError:
        raise MissingExtraError(
            f"{shown(floats.files[0])}: comparing it with a .gguf file needs", "gguf"
        ) from None
    known = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}
    architecture, blocks = known.get(str(facts.get("architecture"))), facts.get("num_hidden_layers")
    if architecture is None or not isinstance(blocks, int) or not 0 <= blocks <= _MOST_BLOCKS:
        return {}
    table = get_tensor_name_map(architecture, blocks)
    found = ((name, table.get_name(name, (".weight", ".bias"))) for name in floats.tensors)
    return {name: new for name, new in found if new is not None}


def _heads(name: str, facts: Mapping[str, str | int]) -> int:
    """The number of heads of a query or key tensor; 0 for others, or if it is not known."""
    for part in name.split("."):
        if part in _REORDERED:
            number = facts.get(_REORDERED[part], facts.get("num_attention_heads"))
            return number if isinstance(number, int) and number > 0 else 0
    return 0


def _is_reordered(
    tensors: Mapping[str, Tensor], others: Mapping[str, "Moved"], codes: Mapping[str, Tensor]
) -> bool:
    """Whether the rows of the first query or key tensor agree clearly better in the other order."""
    with Files() as files:
        for name, other in others.items():
            if name not in codes or codes[name].shape != other.shape or len(other.shape) != 2:
                continue
            rows = other.shape[0] // other.heads
            values = codes[name].open(files)(0, rows).values.astype(np.float64)
            plain, moved = (
                np.nansum((each.open(files)(0, rows).values - values) ** 2)
                for each in (tensors[name], other)
            )
            return bool(moved < _CLEARLY * plain)
    return False


@dataclass(frozen=True)
class Moved:
    """A tensor under another name; with `heads`, in the order of rows of llama.cpp's converter.

    Row 2 i + j of a head there is row i + j half of it here, half being half of its rows.
    """

    tensor: Tensor
    name: str
    heads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """As it was."""
        return self.tensor.shape

    @property
    def encoding(self) -> str:
        """As it was."""
        return self.tensor.encoding

    @property
    def floats(self) -> bool:
        """As it was."""
        return self.tensor.floats

    @property
    def divisible(self) -> bool:
        """As it was."""
        return self.tensor.divisible

    def open(self, files: Files) -> Rows:
        """A function that reads rows, and the whole heads that they are from."""
        rows = self.tensor.open(files)
        if not self.heads:
            return rows
        head = self.shape[0] // self.heads
        order = np.arange(head).reshape(2, head // 2).T.ravel()

        def reordered(start: int, stop: int) -> Decoded:
            first, last = start // head, -(-stop // head)
            places = (np.arange(first, last)[:, None] * head + order).ravel()
            wanted = places[start - first * head : stop - first * head] - first * head
            return rows(first * head, last * head).mapped(lambda array: array[wanted])

        return reordered
