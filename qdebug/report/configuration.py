"""Configuration: [tool.qdebug] in pyproject.toml, or qdebug.toml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdebug.errors import QdebugError
from qdebug.names import nearest, printable
from qdebug.report.limits import (
    ALL_KINDS,
    LIMIT_KINDS,
    Config,
    Limit,
    Override,
    parse_bound,
    parse_causes,
)
from qdebug.text_file import read_text

# Options that say how to read `source`: their type, and its name in messages.
_READING: dict[str, tuple[type, str]] = {
    "inputs": (str, "the name of a file (.npz or .npy)"),
    "samples": (int, "a whole number"),
    "kernels": (str, "the name of kernels"),
    "signature": (str, "the name of a signature"),
    "keys": (dict, "a table of templates, such as float = '{}_fp32'"),
}


def find_config(start: Path) -> Config:
    """The configuration in `start` or the nearest folder above it, inside the same repository.

    It is ``qdebug.toml`` or the table ``[tool.qdebug]`` of ``pyproject.toml``.
    """
    for folder in _project(start):
        for name in ("qdebug.toml", "pyproject.toml"):
            path = folder / name
            if path.is_file():
                config = read_config(path)
                if config.path is not None:
                    return config
    return Config()


def _project(start: Path) -> Sequence[Path]:
    """`start` and the folders above it up to the root of its Git repository; else `start` alone.

    A configuration sets limits and names a source to read, so one from outside the repository must
    not apply: anybody may put a file into ``/tmp``. For the same reason a ``.git`` counts only if
    it belongs to the owner of `start`.
    """
    folders = [start, *start.parents]
    try:
        owner = start.stat().st_uid
    except OSError:
        return [start]
    for number, folder in enumerate(folders, 1):
        try:
            mark = (folder / ".git").lstat()  # a folder; a file in worktrees and submodules
        except OSError:
            continue
        if mark.st_uid == owner:
            return folders[:number]
    return [start]


def read_config(path: Path) -> Config:
    """The configuration in one file; empty if a pyproject.toml has no [tool.qdebug].

    Raises:
        QdebugError: the file is not TOML, has an unknown key, or a value of the wrong type.
    """
    import tomllib

    shown = printable(str(path))
    try:
        data = tomllib.loads(read_text(path))
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise QdebugError(f"{shown}: not TOML: {error}") from None
    table = data.get("tool", {})
    table = table.get("qdebug") if isinstance(table, dict) else None
    if table is None:
        if path.name == "pyproject.toml":
            return Config()
        table = data
    where = f"{shown}: [tool.qdebug]" if table is not data else shown
    if not isinstance(table, dict):
        raise QdebugError(f"{where}: found {table!r:.60}, expected a table")
    own = ["source", *_READING, "ignore", "layer", "fail_on"]
    entries = _known(table, [*ALL_KINDS, *own], where)
    layers = entries.get("layer", [])
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise QdebugError(f"{where}: 'layer': expected tables, each headed [[tool.qdebug.layer]]")
    return Config(
        path=path,
        source=[_beside(path, name) for name in _texts(entries, "source", where)],
        reading=_reading(entries, path, where),
        limits=_limits(entries, where),
        ignore=_texts(entries, "ignore", where),
        fail_on=parse_causes(_texts(entries, "fail_on", where), f"{where}: 'fail_on'"),
        overrides=[
            override
            for i, layer in enumerate(layers)
            for override in _overrides(layer, f"{where}, layer table {i + 1}")
        ],
    )


def _beside(path: Path, name: str) -> str:
    """A file that the configuration names, relative to the configuration's own folder."""
    return name if "://" in name else str(path.parent / name)


def _reading(entries: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """The options that say how to read the source.

    Raises:
        QdebugError: a value has the wrong type.
    """
    if "source" not in entries:
        for name in _READING:
            if name in entries:
                raise QdebugError(f"{where}: '{name}': found no 'source' that it goes with")
    found: dict[str, Any] = {}
    for name, (kind, words) in _READING.items():
        value = entries.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise QdebugError(f"{where}: '{name}': found {value!r:.60}, expected {words}")
        found[name] = value
    if found.get("samples", 1) < 1:
        raise QdebugError(f"{where}: 'samples': found {found['samples']}, expected 1 or more")
    if "inputs" in found:
        found["inputs"] = _beside(path, found["inputs"])
    return found


def _overrides(layer: Mapping[str, Any], where: str) -> list[Override]:
    entries = _known(layer, [*LIMIT_KINDS, "name"], where)
    patterns = _texts(entries, "name", where)
    if not patterns:
        raise QdebugError(f"{where}: 'name': found nothing, expected a layer's name or a glob")
    return [
        Override(pattern, _limits(entries, f"{where} '{printable(pattern)}'"))
        for pattern in patterns
    ]


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> dict[str, Any]:
    """The table with its keys in one spelling (``max-clipped`` is ``max_clipped``)."""
    entries = {key.replace("-", "_"): value for key, value in table.items()}
    for key in entries:
        if key not in keys:
            raise QdebugError(f"{where}: unknown key '{printable(key)}'; {nearest(key, keys)}")
    return entries


def _texts(entries: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = entries.get(key, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise QdebugError(
            f"{where}: '{key}': found {value!r:.60}, expected text or a list of texts"
        )
    return texts


def _limits(entries: Mapping[str, Any], origin: str) -> dict[str, Limit]:
    limits = {}
    for name in ALL_KINDS:
        if name in entries:
            try:
                limits[name] = Limit(name, parse_bound(name, entries[name]), origin)
            except QdebugError as error:
                raise QdebugError(f"{origin}: '{name}': {error}") from None
    return limits
