"""GPTQ: codes packed along the inputs, stored transposed; zero points perhaps minus one.

Sources: the modules that AutoGPTQ and GPTQModel write; docs/weights.md has the fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qdebug.arithmetic.grids import Decoded, affine_blocks
from qdebug.errors import FieldError
from qdebug.sources.safetensors.arrays import Array
from qdebug.sources.safetensors.layouts.module import Module, expect_shape
from qdebug.sources.safetensors.layouts.packing import bits_of, unpacked, words_for
from qdebug.sources.tensors import Files, Rows, Tensor

_FORMATS = {"gptq": 1, "gptq_v2": 2}


@dataclass(frozen=True)
class GptqTensor:
    """A weight of shape (outputs, inputs); see `tensors.Tensor`."""

    name: str
    shape: tuple[int, int]
    bits: int
    version: int
    groups: int
    qweight: Array
    qzeros: Array
    scales: Array
    g_idx: Array | None
    floats = False
    divisible = False  # the words of an output are a column of what is stored

    @property
    def encoding(self) -> str:
        """Version, bits and groups."""
        size = self.shape[1] // self.groups
        per = f"groups of {size}" if self.groups > 1 else "per channel"
        return f"GPTQ v{self.version} int{self.bits}, {per}"

    def open(self, files: Files) -> Rows:
        """Read all words; return a function that decodes rows."""
        outputs, inputs = self.shape
        words = np.ascontiguousarray(self.qweight.read(files).T)  # (outputs, words)
        scales = self.scales.read(files).T.astype(np.float32)  # (outputs, groups)
        zeros = unpacked(self.qzeros.read(files), self.bits, outputs).T
        if self.version == 1:  # in as many bits: 0 was stored as the largest code
            zeros = (zeros + np.uint8(1)) & np.uint8((1 << self.bits) - 1)
        offsets = -scales * zeros
        group = self._group_of_each_input(files)

        def rows(start: int, stop: int) -> Decoded:
            codes = unpacked(words[start:stop], self.bits, inputs)
            scale, offset = (table[start:stop][:, group] for table in (scales, offsets))
            return affine_blocks(codes, scale, offset, (0, (1 << self.bits) - 1))

        return rows

    def _group_of_each_input(self, files: Files) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Indexes of groups.

        Raises:
            FieldError: there is no such group.
        """
        inputs = self.shape[1]
        if self.g_idx is None:
            return np.arange(inputs) // (inputs // self.groups)
        found = self.g_idx.read(files).astype(np.int64)
        if found.size and not 0 <= found.min() <= found.max() < self.groups:
            least, most = found.min(), found.max()
            raise FieldError(
                "g_idx", found=f"{least} to {most}", expected=f"0 to {self.groups - 1}"
            )
        return found


def tensors(module: Module) -> Sequence[Tensor]:
    """The weight of a module with GPTQ's arrays; none for other modules.

    Raises:
        FieldError: its arrays contradict each other.
    """
    if module.method != "gptq" or "qweight" not in module.arrays:
        return []
    form = str(module.config.get("checkpoint_format") or "gptq")
    if form not in _FORMATS:
        raise FieldError("checkpoint_format", found=form, expected=" or ".join(_FORMATS))
    qweight = module.array("qweight", "I32", axes=2)
    qzeros = module.array("qzeros", "I32", axes=2)
    scales = module.array("scales", "F16", "BF16", "F32", axes=2)
    groups, outputs = scales.shape
    bits = bits_of(qzeros.shape[1], outputs, module.setting("bits"))
    if bits is None or not groups or not outputs:
        found = f"shapes {qzeros.shape} and {scales.shape} of qzeros and scales"
        raise FieldError("bits", found=found, expected="2 to 8 bits per code")
    inputs = qweight.shape[0] * 32 // bits
    expect_shape(qweight, "qweight", (words_for(inputs, bits), outputs))
    expect_shape(qzeros, "qzeros", (groups, words_for(outputs, bits)))
    g_idx = module.array("g_idx", "I32", "I64") if module.has("g_idx") else None
    if g_idx is not None:
        expect_shape(g_idx, "g_idx", (inputs,))
    elif inputs % groups:
        raise FieldError("scales", found=f"{groups} groups", expected=f"a divisor of {inputs}")
    name = module.named("weight")
    version = _FORMATS[form]
    return [
        GptqTensor(name, (outputs, inputs), bits, version, groups, qweight, qzeros, scales, g_idx)
    ]
