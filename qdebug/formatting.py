"""Numbers in words: how tables and messages write a figure."""


def significant(value: float) -> str:
    """Three significant digits, without an exponent where that stays short.

    >>> [significant(v) for v in (0.288675, 12.0, 123456.0, 0.00001234)]
    ['0.289', '12.0', '123456', '1.23e-05']
    """
    if 1000 <= abs(value) < 1e7:
        return f"{value:.0f}"
    text = f"{value:#.3g}"
    return text.removesuffix(".")


def percent(value: float) -> str:
    """A share as percent, without the sign; a share that is not zero does not read as zero."""
    return "0" if value == 0 else significant(100 * value)
