"""Sanitise text from files for display in charts and windows, for spreadsheets, file names and JSON."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

MAX_NAME = 120
"""Longer names are shortened in the middle for display; no real gene, cell type or slide name reaches this length."""

_MARKS = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf", re.ASCII | re.IGNORECASE)
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_MAX_FILE_NAME = 100


def shown(text: object, most: int = MAX_NAME) -> str:
    r"""Return ``text`` as one line of bounded length, without control characters.

    Control characters, line breaks and lone surrogates become spaces; bidirectional text marks are removed.

    >>> shown("T cells\n\x00(CD4)"), shown("x" * 50, 9)
    ('T cells (CD4)', 'xxxx…xxxx')
    """
    line = str(text)
    if not (line.isascii() and line.isprintable()):
        line = " ".join("".join(_fit(c) for c in line[: 20 * most]).split(" ")).strip()
        line = re.sub(" {2,}", " ", line)
    return shortened(line, most)


def shortened(text: str, most: int) -> str:
    """Shorten a text in the middle, keeping its beginning and end, since names may differ at either.

    >>> shortened("Cancer LumA SC", 9)
    'Canc…A SC'
    """
    if len(text) <= most:
        return text
    front = most // 2
    return f"{text[:front]}…{text[len(text) - (most - front - 1) :]}"


def counted(n: int, one: str) -> str:
    """Return a number with its noun, in the plural where needed.

    Examples
    --------
    >>> from napari_cpnn.texts import counted
    >>> counted(1, "slide"), counted(1200, "slide")
    ('1 slide', '1,200 slides')
    """
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def duration(seconds: float) -> str:
    """Describe a time, such as ``45 s``, ``12 min`` or ``2.5 h``.

    Examples
    --------
    >>> [duration(s) for s in (0.2, 45, 700, 9000)]
    ['1 s', '45 s', '12 min', '2.5 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def json_value(value: Any) -> Any:
    """Return what strict JSON can hold: paths as text, arrays and tuples as lists, numbers that are not finite as null.

    >>> import numpy as np
    >>> json_value({"path": PurePath("a.csv"), "pcc": np.float32("nan"), "shape": (2, np.int64(3)), 7: {True}})
    {'path': 'a.csv', 'pcc': None, 'shape': [2, 3], '7': [True]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(one) for key, one in value.items()}
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, PurePath) else value


def chart_text(text: object, most: int = MAX_NAME) -> str:
    r"""Sanitise as :func:`shown`, and escape dollar signs, which matplotlib would interpret as math text.

    >>> print(chart_text("$x_2$"))
    \$x_2\$
    """
    return shown(text, most).replace("$", r"\$")


def _fit(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cs", "Zl", "Zp", "Zs"):
        return " "
    return "" if kind == "Cf" and character != "\u200d" else character


def csv_text(text: object) -> str:
    """Escape a text so that no spreadsheet interprets it as a formula, by prefixing an apostrophe where needed.

    Numbers stay unchanged. :func:`text_of_csv` reverses the escaping.

    >>> csv_text("=1+1"), csv_text("-2.5"), csv_text("CD3E"), csv_text("'=1")
    ("'=1+1", '-2.5', 'CD3E', "''=1")
    """
    word = str(text)
    if not word.isascii():
        word = word.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be encoded
    bare = word.lstrip("'")
    return f"'{word}" if bare[:1] in _MARKS and bare and not (bare == word and _NUMBER.fullmatch(word)) else word


def text_of_csv(cell: str) -> str:
    """Reverse :func:`csv_text`.

    >>> text_of_csv("'=1+1"), text_of_csv("5'-UTR"), text_of_csv("''=1")
    ('=1+1', "5'-UTR", "'=1")
    """
    bare = cell.lstrip("'")
    return cell[1:] if cell[:1] == "'" and bare[:1] in _MARKS and bare else cell


def csv_texts(texts: Iterable[object]) -> list[str]:
    """Apply :func:`csv_text` to each text."""
    return [csv_text(text) for text in texts]


def file_name(text: object, instead: str = "unnamed") -> str:
    r"""Return ``text`` as a file name valid on every system: no separators or control characters, bounded length.

    >>> file_name("HLA-DRA"), file_name("a/b:c"), file_name("../.."), file_name("con"), file_name("\x00")
    ('HLA-DRA', 'a_b_c', 'unnamed', '_con', 'unnamed')
    """
    name = re.sub(r'[\\/:*?"<>|]', "_", shown(text, _MAX_FILE_NAME)).strip(". ")
    while len(name.encode("utf-8", "replace")) > 2 * _MAX_FILE_NAME:
        name = name[:-1]
    if not name.strip("._ "):
        return instead
    return f"_{name}" if _RESERVED.fullmatch(name.partition(".")[0]) else name


def allow_any_letter() -> None:
    """Silence matplotlib's warnings about glyphs missing from its font, from now on; they are drawn as boxes.

    The filter is permanent because temporary warning filters are not thread-safe, and other threads draw as well.
    """
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
