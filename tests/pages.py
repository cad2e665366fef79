"""Parts of the documentation that commands write: each between two comments with its name."""

import re


def rewritten(page: str, name: str, block: str) -> str:
    r"""The page with this text in the part of this name.

    >>> rewritten("<!-- counts -->\nold\n<!-- end -->", "counts", "new")
    '<!-- counts -->\n\nnew\n\n<!-- end -->'
    """
    begin, end = f"<!-- {name} -->", "<!-- end -->"
    part = re.compile(f"({re.escape(begin)}).*?({end})", re.DOTALL)
    found, times = part.subn(lambda match: f"{match[1]}\n\n{block}\n\n{match[2]}", page)
    if times != 1:
        raise ValueError(f"found {times} parts {begin} ... {end}, expected one")
    return found
