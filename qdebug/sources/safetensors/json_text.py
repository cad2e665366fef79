"""JSON objects in files that nobody vouches for: headers, indexes, configurations."""

import json
from collections.abc import Mapping
from typing import Any

from qdebug.errors import QdebugError
from qdebug.names import shown


def json_object(text: bytes, path: str) -> Mapping[str, Any]:
    """A JSON object, in which no name occurs twice.

    >>> json_object(b'{"a": 1}', "config.json")
    {'a': 1}

    Raises:
        QdebugError: the text is something else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                reason = f"'{shown(name)}': found it twice, expected different names"
                raise QdebugError(f"{shown(path)}: {reason}")
            found[name] = value
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise QdebugError(f"{shown(path)}: found JSON that is nested too deeply") from None
    except ValueError:  # no UTF-8, no JSON, or a number of thousands of digits
        raise QdebugError(f"{shown(path)}: found no JSON, expected an object of it") from None
    if not isinstance(found, dict):
        raise QdebugError(f"{shown(path)}: found {type(found).__name__}, expected a JSON object")
    return found
