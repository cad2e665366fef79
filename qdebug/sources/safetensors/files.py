"""The tensors of safetensors files: a single one, or the shards of a model in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdebug.errors import QdebugError
from qdebug.names import printable, shown
from qdebug.sources.safetensors.arrays import Array
from qdebug.sources.safetensors.header import read_header
from qdebug.sources.safetensors.json_text import json_object
from qdebug.sources.safetensors.layouts.find import tensors_of
from qdebug.sources.storage import absolute, is_url, open_file
from qdebug.sources.tensors import Files, Span, Weights

_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"

# Bytes of an index or a configuration that are read.
_LONGEST_TEXT = 64 << 20

# Files that say how a model is quantized, the first one that is there counts; and where in them.
_CONFIGS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("config.json", "quantization_config", {}),
    ("config.json", "compression_config", {"quant_method": "compressed-tensors"}),
    ("quantize_config.json", "", {"quant_method": "gptq"}),
    ("quant_config.json", "", {"quant_method": "awq"}),
    ("hf_quant_config.json", "quantization", {"quant_method": "modelopt"}),
)

# What a model says of itself, and the name for it here.
_FACTS = {
    "model_type": "architecture",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
}


def open_safetensors(names: Sequence[str]) -> Weights:
    """The tensors of one model.

    Args:
        names: files, a folder, or an index (``model.safetensors.index.json``). What ``config.json``
            beside the first one says is taken into account.

    Raises:
        QdebugError: no file can be read.
    """
    files: list[str] = []
    problems: list[str] = []
    skipped: list[tuple[str, str]] = []
    arrays: dict[str, Array] = {}
    shards, indexed = _shards(names)
    for path in shards:
        try:
            with open_file(path) as file:
                entries = read_header(file, path)
        except OSError as error:
            problems.append(f"{shown(path)}: {printable(str(error.strerror or error))}")
            continue
        except QdebugError as error:
            problems.append(str(error))
            continue
        files.append(path)
        for entry in entries:
            if entry.name in arrays:
                other = shown(arrays[entry.name].span.path)
                skipped.append((entry.name, f"{shown(path)} has it, and so does {other}"))
                continue
            span = Span(path, absolute(path), entry.start, entry.size)
            arrays[entry.name] = Array(entry.name, entry.dtype, entry.shape, span)
    if not files:
        raise QdebugError("; ".join(problems))
    skipped += [
        (name, f"{shown(shard)} has no such tensor, though the index says so")
        for name, shard in indexed.items()
        if shard in files and name not in arrays
    ]
    config, facts, notes = _settings(_folder(names[0]))
    with Files() as opened:
        tensors, left_out = tensors_of(arrays, config, opened)
    return Weights(files, tensors, [*skipped, *left_out], problems, notes, facts)


def _shards(names: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """The files of a model, and the file of each tensor, if there is an index.

    Raises:
        QdebugError: a folder without any, or an index that is none.
    """
    shards: list[str] = []
    indexed: dict[str, str] = {}
    for name in names:
        if name.lower().endswith(_INDEX):
            indexed |= _weight_map(name)
        elif name.lower().endswith(_SUFFIX):
            shards.append(name)
        else:
            found = _in_folder(name)
            if isinstance(found, str):
                indexed |= _weight_map(found)
            else:
                shards += found
    return list(dict.fromkeys([*shards, *indexed.values()])), indexed


def _in_folder(folder: str) -> str | Sequence[str]:
    """The index of a folder, or else all its files.

    Raises:
        QdebugError: it has none.
    """
    if is_url(folder):  # not every URL can be listed
        return _joined(folder, f"model{_INDEX}")
    try:
        names = sorted(path.name for path in Path(folder).iterdir())
    except OSError as error:
        raise QdebugError(f"{shown(folder)}: {printable(str(error.strerror))}") from None
    for ending in (_INDEX, _SUFFIX):
        found = [_joined(folder, name) for name in names if name.lower().endswith(ending)]
        if found:
            return found[0] if ending == _INDEX and len(found) == 1 else found
    raise QdebugError(f"{shown(folder)}: found no {_SUFFIX} file in it, expected some")


def _weight_map(index: str) -> dict[str, str]:
    """The file of each tensor.

    Raises:
        QdebugError: the index cannot be read, or says no such thing.
    """
    try:
        found = json_object(_text(index), index).get("weight_map")
    except OSError as error:
        raise QdebugError(f"{shown(index)}: {printable(str(error.strerror or error))}") from None
    if not isinstance(found, dict) or not found:
        raise QdebugError(
            f"{shown(index)}: found no 'weight_map', expected the file of each tensor"
        )
    folder = _folder(index)
    for name, shard in found.items():
        if not isinstance(shard, str) or not shard.endswith(_SUFFIX) or set(shard) & set("/\\:"):
            raise QdebugError(
                f"{shown(index)}: tensor '{shown(name)}': found {shown(repr(shard))}, expected a "
                f"{_SUFFIX} file beside the index"
            )
    return {name: _joined(folder, shard) for name, shard in found.items()}


def _settings(
    folder: str,
) -> tuple[Mapping[str, Any], Mapping[str, str | int], Sequence[str]]:
    """How the model in a folder is quantized, facts of it, and what the user should know."""
    known: dict[str, Mapping[str, Any]] = {}
    notes = []
    for file in dict.fromkeys(file for file, _, _ in _CONFIGS):
        path = _joined(folder, file)
        try:
            known[file] = json_object(_text(path), path)
        except OSError:
            continue
        except QdebugError as error:
            notes.append(str(error))
    model = known.get("config.json", {})
    facts: dict[str, str | int] = {}
    for name, fact in _FACTS.items():
        value = model.get(name)
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            facts[fact] = value
    for file, field, implied in _CONFIGS:
        config = known.get(file, {})
        found = config.get(field) if field else config
        if isinstance(found, dict) and found:
            return {**implied, **found}, facts, notes
    return {}, facts, notes


def _text(path: str) -> bytes:
    """The bytes of a text.

    Raises:
        QdebugError: it is too long.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        found = file.read(_LONGEST_TEXT + 1)
    if len(found) > _LONGEST_TEXT:
        raise QdebugError(f"{shown(path)}: found more than {_LONGEST_TEXT >> 20} MB of text")
    return found


def _folder(name: str) -> str:
    """The folder that a name stands for, or in which its file is."""
    if not name.lower().endswith((_INDEX, _SUFFIX)):
        return name
    head, slash, _ = name.rpartition("/") if is_url(name) else (str(Path(name).parent), "/", "")
    return head if slash else "."


def _joined(folder: str, file: str) -> str:
    return f"{folder.rstrip('/')}/{file}" if is_url(folder) else str(Path(folder) / file)
