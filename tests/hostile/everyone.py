"""All hostile files, reader by reader."""

from tests.hostile import (
    arrays,
    containers,
    gguf,
    litert_models,
    names,
    onnx_models,
    safetensors,
    samples,
    texts,
)

READERS = [
    containers.PAIRS,
    arrays.ARRAYS,
    names.NAMES,
    texts.REPORTS,
    texts.TABLES,
    texts.CONFIGS,
    samples.SAMPLES,
    onnx_models.ONNX,
    litert_models.LITERT,
    gguf.GGUF,
    safetensors.SAFETENSORS,
]
ALL = [case for reader in READERS for case in reader.all]
