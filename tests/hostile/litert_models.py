"""Hostile LiteRT models: the sound quantized model of the samples, changed in one place."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import FLOAT, INT8, Build, Cases
from tests.paths import SAMPLES

# Needs the extra `litert`; imported where a model is made.
LITERT = Cases(
    "LiteRT model",
    "x.tflite",
    ["report", FLOAT, "{}", "--inputs", str(SAMPLES / "digits_inputs.npz"), "--samples", "2"],
)

Change = Callable[[Any], object]


@cache
def _sound() -> bytes:
    return Path(INT8).read_bytes()


def write(path: Path, change: Change = lambda model: None) -> None:
    """The quantized model as `change` leaves it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(_sound()))
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _of_bytes(name: str, why: str, content: Callable[[], bytes], said: str) -> Build:
    def build(path: Path) -> None:
        path.write_bytes(content())

    build.__doc__, build.__name__ = why, name
    return LITERT.refused(said)(build)


_NO_MODEL = "x.tflite: found (no|a broken) TFLite model.*, expected a"
_of_bytes("empty", "Nothing in it.", lambda: b"", _NO_MODEL)
_of_bytes("magic_alone", "The magic number, and no table.", lambda: b"\0\0\0\0TFL3", _NO_MODEL)
_of_bytes("zip", "A pair file that was renamed.", lambda: b"PK\3\4TFL3" + bytes(50), _NO_MODEL)
_of_bytes(
    "root_outside",
    "The root table lies 4 GB behind the end.",
    lambda: b"\xff\xff\xff\xff" + _sound()[4:],
    _NO_MODEL,
)
_of_bytes(
    "root_in_itself",
    "The root table is the header.",
    lambda: b"\0\0\0\0" + _sound()[4:],
    _NO_MODEL,
)
for _share in (10, 50, 90, 99):
    _of_bytes(
        f"cut_at_{_share}_percent",
        "Tables point behind the end.",
        lambda share=_share: _sound()[: len(_sound()) * share // 100],
        _NO_MODEL,
    )


def _declare(name: str, why: str, change: Change, said: str) -> None:
    def build(path: Path) -> None:
        write(path, change)

    build.__doc__, build.__name__ = why, name
    (LITERT.refused(said) if said else LITERT.read())(build)


def _tensors(model: Any) -> list[Any]:
    return list(model.subgraphs[0].tensors)


def _each_tensor(**fields: Any) -> Change:
    def change(model: Any) -> None:
        for tensor in _tensors(model):
            for name, value in fields.items():
                setattr(tensor, name, value)

    return change


def _each_quantization(**fields: Any) -> Change:
    def change(model: Any) -> None:
        for tensor in _tensors(model):
            if tensor.quantization is not None and tensor.quantization.scale is not None:
                for name, value in fields.items():
                    setattr(tensor.quantization, name, value)

    return change


_declare("sound", "Nothing: the model that the others spoil.", lambda model: None, "")
for _name, _value in {"nan": np.nan, "infinity": np.inf, "below_0": -1.0, "0": 0.0}.items():
    _declare(
        f"scales_of_{_name}",
        "Scales that no quantizer has.",
        _each_quantization(scale=np.array([_value], np.float32)),
        "x.tflite: layer '.*': field 'scale': found",
    )
_declare(
    "zero_points_beyond",
    "Zero points of 62 bits.",
    _each_quantization(zeroPoint=np.array([2**62], np.int64)),
    "x.tflite: layer '.*': field 'zero_point': found",
)
_declare(
    "no_subgraph",
    "A model without a graph.",
    lambda model: model.subgraphs.clear(),
    "x.tflite: (found a broken TFLite model|its input .* has no partner)",
)
_declare(
    "names_of_no_text",
    "Names that are not UTF-8.",
    _each_tensor(name=b"\xff\xfe\x1b[2J"),
    "",
)
_declare("no_names", "Tensors without a name.", _each_tensor(name=None), "")
_declare(
    "types_unknown",
    "Tensors of a type that does not exist.",
    _each_tensor(type=99),
    "x.tflite: found no quantized tensor in either",
)
_declare(
    "buffers_beyond",
    "Data in a buffer that is not there.",
    _each_tensor(buffer=10**6),
    "x.tflite: (found a broken TFLite model|its input .* has no partner)",
)
_declare(
    "version_99",
    "Operators of a version that no runtime has.",
    lambda model: [setattr(code, "version", 99) for code in model.operatorCodes],
    "x.tflite: .*cannot be loaded by LiteRT",
)
for _name, _value in {"negative": -5, "beyond": 10**6}.items():
    _declare(
        f"operators_of_tensors_{_name}",
        "Operators that read tensors that are not there.",
        lambda model, value=_value: [
            setattr(operator, "inputs", np.full(len(operator.inputs), value, np.int32))
            for operator in model.subgraphs[0].operators
        ],
        "x.tflite: (found a broken TFLite model|its input .* has no partner)",
    )
    _declare(
        f"operator_codes_{_name}",
        "Operators of a kind that is not there.",
        lambda model, value=_value: [
            setattr(operator, "opcodeIndex", 100 + abs(value))
            for operator in model.subgraphs[0].operators
        ],
        "x.tflite: (found a broken TFLite model|its input .* has no partner)",
    )
for _name, _shape in {"negative": [-2, 8], "beyond": [2**31 - 1, 2**31 - 1]}.items():
    _declare(
        f"shapes_{_name}",
        "Tensors of lengths that cannot be.",
        _each_tensor(shape=np.array(_shape, np.int32)),
        "x.tflite: (found a broken TFLite model|its input .* has no partner)",
    )
