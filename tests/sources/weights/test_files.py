"""Weight files by their names: a folder of safetensors beside a GGUF file, and beside a folder."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qdebug
from qdebug.errors import QdebugError
from qdebug.sources.open import is_saved, is_weights
from tests.gguf_files import architecture, gguf, q8_0

RNG = np.random.default_rng(0)
NAME = "model.layers.0.mlp.up_proj.weight"
DTYPES = {"float16": "F16", "float32": "F32", "int32": "I32"}


def safetensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file as the format's page has it."""
    header, data = {}, b""
    for name, array in arrays.items():
        start, data = len(data), data + array.tobytes()
        entry = {"dtype": DTYPES[array.dtype.name], "shape": array.shape}
        header[name] = entry | {"data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def in_gptq(weight: NDArray[np.float32], group: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """The arrays of GPTQ's first format for int4, and what they stand for, element by element."""
    outputs, inputs = weight.shape
    scales = np.zeros((inputs // group, outputs), np.float16)
    zeros = RNG.integers(6, 10, scales.shape)
    qweight = np.zeros((inputs // 8, outputs), np.uint32)
    qzeros = np.zeros((len(scales), outputs // 8), np.uint32)
    decoded = np.zeros(weight.shape)
    for o in range(outputs):
        for g in range(len(scales)):
            scales[g, o] = np.abs(weight[o, g * group : (g + 1) * group]).max() / 5
            qzeros[g, o // 8] |= np.uint32(int(zeros[g, o] - 1) << 4 * (o % 8))
        for i in range(inputs):
            scale, zero = float(scales[i // group, o]), int(zeros[i // group, o])
            code = min(max(round(float(weight[o, i]) / scale) + zero, 0), 15)
            qweight[i // 8, o] |= np.uint32(code << 4 * (i % 8))
            decoded[o, i] = scale * (code - zero)
    prefix = NAME.removesuffix("weight")
    arrays = {"qweight": qweight.view(np.int32), "qzeros": qzeros.view(np.int32), "scales": scales}
    return {prefix + name: array for name, array in arrays.items()}, decoded


def gptq_folder(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    folder.mkdir()
    safetensors(folder / "model.safetensors", arrays)
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_quantized_folder_is_compared_with_a_float_file(tmp_path: Path) -> None:
    weight = RNG.normal(size=(16, 64)).astype(np.float32)
    arrays, decoded = in_gptq(weight, 32)
    one, other = tmp_path / "f.safetensors", gptq_folder(tmp_path / "gptq", arrays)
    safetensors(one, {NAME: weight})
    (layer,) = qdebug.analyze(str(one), other)
    assert (layer.name, layer.grid) == (NAME, "GPTQ v1 int4, groups of 32")
    assert layer.metrics is not None
    assert layer.metrics.rmse == pytest.approx(np.sqrt(((decoded - weight) ** 2).mean()), rel=1e-6)
    assert 0.8 < (layer.metrics.times_expected or 0) < 1.1
    assert len(layer.channels or ()) == 16


def test_a_float_folder_is_compared_with_its_gguf_twin(tmp_path: Path) -> None:
    weight = RNG.normal(size=(8, 64)).astype(np.float32)
    folder = tmp_path / "hf"
    folder.mkdir()
    safetensors(folder / "model.safetensors", {NAME: weight.astype(np.float16)})
    other = tmp_path / "q.gguf"
    other.write_bytes(gguf([q8_0(weight, "blk.0.ffn_up.weight")], architecture(block_count=1)))
    (layer,) = qdebug.analyze(str(folder), str(other))
    assert (layer.name, layer.grid) == ("blk.0.ffn_up.weight", "Q8_0")
    assert layer.diagnosis is not None
    assert layer.diagnosis.cause == "ok"


def test_an_index_is_a_weight_file_and_no_report(tmp_path: Path) -> None:
    index = ["model.safetensors.index.json"]
    assert is_weights(index)
    assert not is_saved(index)
    assert is_weights([str(tmp_path)])
    assert not is_weights(["report.json", "a\0b", "x" * 10_000, "https://host/a.npz"])


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(QdebugError, match=r"found no \.safetensors file in it, expected some"):
        qdebug.analyze(str(tmp_path), str(tmp_path))
