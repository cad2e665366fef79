"""Layer names: find layers by name, and show names safely. Names are untrusted data."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from qdebug.errors import QdebugError

# A spreadsheet reads a cell that begins with one of these as a formula, in full width too and
# perhaps behind spaces; a leading apostrophe makes it text. Text that already has leading
# apostrophes gets one more, so removing one restores it.
_FORMULA = re.compile("[' ]*[=+\\-@\uff1d\uff0b\uff0d\uff20]")

# Categories that a terminal interprets or does not show: controls, bidirectional and zero-width
# format characters, surrogates, private use, unassigned, line and paragraph separators.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""`text` on one line, with all `_UNPRINTABLE` characters escaped.

    >>> printable("conv\x1b[2J\n")
    'conv\\x1b[2J\\n'
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNPRINTABLE else c
        for c in text
    )


def spreadsheet_text(text: str) -> str:
    """`text` as a CSV cell: printable, and never a formula.

    >>> spreadsheet_text("=1+1")
    "'=1+1"
    """
    safe = printable(text)
    return f"'{safe}" if _FORMULA.match(safe) else safe


def from_spreadsheet(cell: str) -> str:
    """The text that `spreadsheet_text` wrote.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'quoted'"), from_spreadsheet("a'=b")
    ('=1+1', "'quoted'", "a'=b")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def shown(name: str) -> str:
    """A name for a message: printable, and cut in the middle if it is very long."""
    return shorten(printable(name), 300)


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, its middle replaced by an ellipsis.

    >>> shorten("model/activation/Relu;model/batch_normalization", 16)
    'model/ac…ization'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def shortened(names: Sequence[str], width: int) -> list[str]:
    """The names in at most `width` characters each; different names stay different.

    They are cut where that alone keeps all different; otherwise those that look alike keep the
    part in which they differ, or get a number. Widths below 8 may not suffice.

    >>> shortened(["a/block_dw/long/sub", "a/block_pw/long/sub"], 12)
    ['…dw/long/sub', '…pw/long/sub']
    >>> ends = ("query/Add_output_0", "query/MatMul_output_0")
    >>> names = [f"/encoder/layer.{i}/attention/self/{end}" for i in (0, 1) for end in ends]
    >>> for name in shortened(names, 26):
    ...     print(name)
    …layer.0…uery/Add_output_0
    …layer.0…y/MatMul_output_0
    …layer.1…uery/Add_output_0
    …layer.1…y/MatMul_output_0
    """
    different = list(dict.fromkeys(names))
    # Both ends; mostly the end; the end alone; the beginning alone.
    for head in (None, width // 4, 0, width - 1):
        short = [_cut(name, width, head) for name in different]
        if len(set(short)) == len(different):
            break
    else:
        short = _told_apart(different, width)
    found = dict(zip(different, short, strict=True))
    return [found[name] for name in names]


def _cut(name: str, width: int, head: int | None) -> str:
    """The name with its first `head` characters and its end; with both ends if `head` is None."""
    if head is None:
        return shorten(name, width)
    if len(name) <= width:
        return name
    return name[:head] + "…" + name[len(name) - (width - 1 - head) :]


def _told_apart(names: Sequence[str], width: int) -> list[str]:
    """Different names, each with the part in which it differs from those of the same end."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_cut(name, width, 0), []).append(name)
    short: dict[str, str] = {}
    for cut, group in alike.items():
        short |= zip(group, [cut] if len(group) == 1 else _differing(group, width), strict=True)
    taken: set[str] = set()
    for name in names:
        unique, number = short[name], 1
        while unique in taken:
            number += 1
            mark = f"~{number}"
            unique = f"{short[name][: max(width - len(mark), 1)]}{mark}"
        taken.add(unique)
        short[name] = unique
    return [short[name] for name in names]


# The part in which names differ is shown from where its word in a path begins to where it ends, if
# that is at most this many characters away.
_CONTEXT = 12

# Least characters of the end that are shown behind it.
_LEAST_END = 8


def _differing(names: Sequence[str], width: int) -> list[str]:
    """The names, each as the part in which it differs from the others, and as much of its end."""
    start = _in_common(names)
    end = _in_common([name[start:][::-1] for name in names])
    first = names[0]
    start = max(first.rfind("/", max(start - _CONTEXT, 0), start) + 1, start - _CONTEXT, 0)
    after = first.find("/", len(first) - end, len(first) - end + _CONTEXT)
    end = max(end - _CONTEXT, 0) if after < 0 else len(first) - after
    parts = [name[start : len(name) - end] for name in names]
    room = width - 2 - _LEAST_END  # for two ellipses, and the end
    if max(map(len, parts)) > room:
        if room < _LEAST_END or not start + end:
            return [_cut(name, width, 0) for name in names]
        parts = shortened(parts, room)
    tail = min(end, width - 2 - max(map(len, parts)))
    return [
        f"{'…' * (start > 0)}{part.removeprefix('…')}{'…' * (tail < end)}{name[len(name) - tail :]}"
        for name, part in zip(names, parts, strict=True)
    ]


def _in_common(names: Sequence[str]) -> int:
    """How many characters all begin with."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(last)))


def file_stem(name: str) -> str:
    """A file name without suffix for a layer: only letters, digits, dot, dash and underscore.

    >>> file_stem("../model/conv 1;Relu")
    'model_conv_1_Relu'
    """
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._-") or "layer"
    return stem if len(stem) <= 100 else f"{stem[:49]}__{stem[-49:]}"


def file_stems(names: Iterable[str]) -> list[str]:
    """A file name without suffix for each layer; all differ even if letter case is ignored.

    >>> file_stems(["a/b", "a_b", "A_b-2"])
    ['a_b', 'a_b-2', 'A_b-2-2']
    """
    taken: set[str] = set()
    stems = []
    for name in names:
        stem = unique = file_stem(name)
        number = 1
        while unique.lower() in taken:  # some file systems ignore case
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.lower())
        stems.append(unique)
    return stems


def matches(name: str, pattern: str) -> bool:
    """Whether `pattern` is `name` itself or a glob (``*``, ``?``, ``[abc]``) that matches it."""
    return name == pattern or fnmatchcase(name, pattern)


def find(names: Iterable[str], pattern: str, part: bool = False) -> list[str]:
    """The names that `pattern` matches, as a name or glob or, with `part`, as a unique substring.

    >>> find(["stem/conv", "head/conv"], "stem", part=True)
    ['stem/conv']

    Raises:
        QdebugError: it matches none, or is a substring of several.
    """
    known = list(dict.fromkeys(names))
    if pattern in known:
        return [pattern]
    found = [name for name in known if matches(name, pattern)]
    if not found and part:
        found = [name for name in known if pattern in name]
        if len(found) > 1:
            raise QdebugError(
                f"'{shown(pattern)}' is a part of {len(found)} layers' names: "
                f"{_listed(found[:5], 'and')}; name one, or use a glob for all: "
                f"'*{shown(pattern)}*'"
            )
    if not found:
        raise QdebugError(f"no layer '{shown(pattern)}'; {nearest(pattern, known)}")
    return found


def find_all(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that the patterns match, as names, globs or unique substrings; each once.

    Raises:
        QdebugError: a pattern matches none, or is a substring of several.
    """
    known = list(names)
    return list(dict.fromkeys(n for each in patterns for n in find(known, each, part=True)))


def select(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The names that match any of the globs; all names if there is no glob.

    Raises:
        QdebugError: a glob matches none.
    """
    if not patterns:
        return set(names)
    return {name for pattern in patterns for name in find(names, pattern)}


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the known words closest to `word`, or the first few of all.

    >>> nearest("conv2", ["conv1", "dense"])
    "did you mean 'conv1'?"
    """
    from difflib import get_close_matches  # needed only for errors

    choices = list(known)
    close = get_close_matches(word, choices, n=3, cutoff=0.5)
    if close:
        return f"did you mean {_listed(close, 'or')}?"
    if len(choices) > 5:
        return f"there are {some(choices)}"
    return f"there are {_listed(choices, 'and')}" if choices else "there are none"


def some(names: Sequence[str]) -> str:
    """The first five names, for a message, and the number of the others.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    first = ", ".join(f"'{shown(name)}'" for name in names[:5])
    return f"{first} and {len(names) - 5} more" if len(names) > 5 else first


def _listed(words: Sequence[str], conjunction: str) -> str:
    *most, last = [f"'{shown(word)}'" for word in words]
    return f"{', '.join(most)} {conjunction} {last}" if most else last
