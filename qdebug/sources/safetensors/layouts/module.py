"""One module of a network (a linear layer) as a file stores it: arrays, and a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdebug.errors import FieldError
from qdebug.sources.safetensors.arrays import Array
from qdebug.sources.tensors import Files


@dataclass(frozen=True)
class Module:
    """The arrays whose names begin alike.

    Attributes:
        name: ``model.layers.0.self_attn.q_proj``.
        arrays: by the rest of the name: ``weight``, ``weight_scale``, ``weight.absmax``.
        config: the model's ``quantization_config``, or what stands for it.
        method: its ``quant_method``, in lower case; empty if there is none.
        files: for what must be read before the weight's shape is known.
    """

    name: str
    arrays: Mapping[str, Array]
    config: Mapping[str, Any]
    method: str
    files: Files

    def named(self, part: str) -> str:
        """The full name of a part.

        >>> Module("lm_head", {}, {}, "gptq", Files()).named("weight")
        'lm_head.weight'
        """
        return f"{self.name}.{part}" if self.name else part

    def has(self, *parts: str) -> bool:
        """Whether all these arrays are there."""
        return all(part in self.arrays for part in parts)

    def array(self, part: str, *dtypes: str, axes: int | None = None) -> Array:
        """One array of the module.

        Raises:
            FieldError: it is missing, or of another type, or has another number of axes.
        """
        found = self.arrays.get(part)
        if found is None:
            raise FieldError(part, found="no such array", expected=" or ".join(dtypes))
        if found.dtype not in dtypes:
            raise FieldError(part, found=found.dtype, expected=" or ".join(dtypes))
        if axes is not None and len(found.shape) != axes:
            raise FieldError(part, found=f"shape {found.shape}", expected=f"{axes} axes")
        return found

    def setting(self, name: str) -> int | None:
        """A whole number of the configuration.

        compressed-tensors has it in each of its ``config_groups``; if they differ, it is None.
        """
        groups = self.config.get("config_groups")
        places: list[Any] = [self.config]
        if isinstance(groups, dict):
            places += [g.get("weights") for g in groups.values() if isinstance(g, dict)]
        found = {
            place[name]
            for place in places
            if isinstance(place, dict) and type(place.get(name)) is int
        }
        return found.pop() if len(found) == 1 else None


def expect_shape(array: Array, part: str, expected: tuple[int, ...]) -> None:
    """Check an array's shape.

    Raises:
        FieldError: it is another one.
    """
    if array.shape != expected:
        raise FieldError(part, found=f"shape {array.shape}", expected=f"{expected}")
