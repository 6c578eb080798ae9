"""Parse decimal numbers as people and scanners write them, independent of the locale."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DECIMAL = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
#: Matches numbers with a thousands separator, but also decimals that happen to have three digits.
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}")
_PLAIN = re.compile(r"[+-]?\d+")


def parse_decimal(text: str) -> float:
    """Parse a number with a decimal point or comma, rejecting thousands separators.

    Raises
    ------
    ValueError
        If ``text`` is not such a number; ``nan``, ``inf``, ``1_000`` and ``1,234.5`` are rejected.

    Examples
    --------
    >>> parse_decimal("0,4990"), parse_decimal(" 0.4990 ")
    (0.499, 0.499)
    >>> parse_decimal("1,234.5")
    Traceback (most recent call last):
    ValueError: '1,234.5' is not a decimal number
    """
    stripped = text.strip()
    if not stripped.isascii() or _DECIMAL.fullmatch(stripped) is None:
        message = f"{text!r} is not a decimal number"
        raise ValueError(message)
    return float(stripped.replace(",", "."))


def fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with a true minus sign; what rounds to 0 has no sign.

    >>> fixed(-0.004, 2), fixed(-0.26, 1), fixed(0.26, 1, signed=True), fixed(-0.4, 0, signed=True)
    ('0.00', '−0.3', '+0.3', '0')
    """
    text = f"{value:z.{decimals}f}"
    plus = "+" if signed and value > 0 and text.strip("0.") else ""
    return plus + text.replace("-", "−")


def parse_whole(text: str) -> int:
    """Parse a whole number; raise :class:`ValueError` for ``1_000``, ``1.5`` and anything else.

    >>> parse_whole(" 224 "), parse_whole("1e3")
    (224, 1000)
    """
    value = parse_decimal(text)
    if not value.is_integer():
        message = f"{text!r} is not a whole number"
        raise ValueError(message)
    return int(value)


def perhaps_thousands(texts: Iterable[str]) -> str | None:
    """Return the first number of a column that may contain a thousands separator; None if there is none.

    The numbers of a column are assumed to be written alike. A mark that is always followed by exactly three digits
    separates thousands if other numbers have no mark at all. A column in which every number has a comma is ambiguous,
    too; one in which every number has a point holds decimals, as programs write them.

    >>> perhaps_thousands(["300", "1,100", "1,300"]), perhaps_thousands(["300", "1,125", "1,5"])
    ('1,100', None)
    >>> perhaps_thousands(["1.100", "1.300"]) is None
    True
    """
    first, mark, n_plain = None, "", 0
    for text in texts:
        if _PLAIN.fullmatch(text):
            n_plain += 1
            continue
        found = _GROUPED.fullmatch(text)
        if found is None or mark not in ("", found[1]):
            return None
        first, mark = first or text, found[1]
    return first if first is not None and (n_plain or mark == ",") else None
