"""Decimal numbers as people and scanners write them, whatever the locale."""

from __future__ import annotations

import re

_DECIMAL = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")


def parse_decimal(text: str) -> float:
    """The number that ``text`` is, with a point or a comma before the decimals, never one between thousands.

    Raises
    ------
    ValueError
        When it is no such number; ``nan``, ``inf``, ``1_000`` and ``1,234.5`` are none.

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


def parse_whole(text: str) -> int:
    """The whole number that ``text`` is; a :class:`ValueError` for ``1_000``, ``1.5`` and what else is none.

    >>> parse_whole(" 224 "), parse_whole("1e3")
    (224, 1000)
    """
    value = parse_decimal(text)
    if not value.is_integer():
        message = f"{text!r} is not a whole number"
        raise ValueError(message)
    return int(value)
