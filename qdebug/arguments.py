"""Arguments: what Python callers pass, checked. A wrong one is one line that names it."""

import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.errors import QdebugError
from qdebug.names import nearest, printable


def file_name(value: Any, expected: str = "a path") -> str:
    """The name of a file, or a URL, as text.

    >>> from pathlib import Path
    >>> file_name(Path("pairs.npz"))
    'pairs.npz'

    Raises:
        QdebugError: it names none; `expected` says what would.
    """
    if not isinstance(value, str | os.PathLike):
        raise QdebugError(f"found {_words(value)}, expected {expected}")
    text = os.fsdecode(value)
    if "\0" in text:
        raise QdebugError(f"{printable(text)}: found a NUL character, expected {expected}")
    return text


def texts(name: str, value: Any) -> list[str]:
    """One text or several, as a list.

    >>> texts("layers", "conv1"), texts("layers", ("conv1", "conv2"))
    (['conv1'], ['conv1', 'conv2'])

    Raises:
        QdebugError: something else.
    """
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(each, str) for each in values):
        raise QdebugError(f"{name}: found {_words(value)}, expected text or a list of texts")
    return list(values)


def at_least_one(name: str, value: Any) -> None:
    """Check a number of things; None is not checked.

    Raises:
        QdebugError: no whole number, or less than 1.
    """
    if value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise QdebugError(f"{name}: found {value!r:.60}, expected a whole number of 1 or more")


def whole(where: str, value: Any) -> int | None:
    """A whole number, or None.

    Raises:
        QdebugError: something else; `where` is what the message calls it.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise QdebugError(f"{where}: found {value!r:.60}, expected a whole number")
    return int(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Check a word that has a meaning.

    Raises:
        QdebugError: it has none.
    """
    if value not in known:
        raise QdebugError(f"{name}: found '{printable(str(value))}'; {nearest(str(value), known)}")


def as_array(where: str, values: ArrayLike) -> NDArray[Any]:
    """An array of what is one or can become one: lists, tensors of other libraries.

    Raises:
        QdebugError: NumPy makes no array of it; `where` is what the message calls it.
    """
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        said = printable(" ".join(str(error).split()))
        raise QdebugError(f"{where}: found {_words(values)} ({said}), expected an array") from None


def _words(value: Any) -> str:
    """What a value is, without its data."""
    return f"a value of type {type(value).__name__}"
