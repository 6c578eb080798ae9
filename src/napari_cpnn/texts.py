"""Sanitise text from files for charts, windows, spreadsheets and file names."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable

MAX_NAME = 120
"""Maximum length of displayed names; longer ones, which do not occur in practice, are shortened in the middle."""

_MARKS = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf", re.ASCII | re.IGNORECASE)
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_MAX_FILE_NAME = 100


def shown(text: object, most: int = MAX_NAME) -> str:
    r"""Convert to one line of bounded length, without characters that move, hide or break other text.

    Control characters, line ends and lone surrogates become spaces; text direction marks are removed.

    >>> shown("T cells\n\x00(CD4)"), shown("x" * 50, 9)
    ('T cells (CD4)', 'xxxx…xxxx')
    """
    line = str(text)
    if not (line.isascii() and line.isprintable()):
        line = " ".join("".join(_fit(c) for c in line[: 20 * most]).split(" ")).strip()
        line = re.sub(" {2,}", " ", line)
    return shortened(line, most)


def shortened(text: str, most: int) -> str:
    """Shorten a text in the middle, since names differ at either end.

    >>> shortened("Cancer LumA SC", 9)
    'Canc…A SC'
    """
    if len(text) <= most:
        return text
    front = most // 2
    return f"{text[:front]}…{text[len(text) - (most - front - 1) :]}"


def chart_text(text: object, most: int = MAX_NAME) -> str:
    r"""Convert as :func:`shown`, and escape dollar signs, which Matplotlib would interpret as formulas.

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
    """Escape text that a spreadsheet would interpret as a formula, by a leading apostrophe.

    Text that is a number is unchanged. :func:`text_of_csv` removes the apostrophe.

    >>> csv_text("=1+1"), csv_text("-2.5"), csv_text("CD3E"), csv_text("'=1")
    ("'=1+1", '-2.5', 'CD3E', "''=1")
    """
    word = str(text)
    if not word.isascii():
        word = word.encode("utf-8", "replace").decode("utf-8")  # half a character of UTF-16 cannot be written
    bare = word.lstrip("'")
    return f"'{word}" if bare[:1] in _MARKS and bare and not (bare == word and _NUMBER.fullmatch(word)) else word


def text_of_csv(cell: str) -> str:
    """Invert :func:`csv_text`.

    >>> text_of_csv("'=1+1"), text_of_csv("5'-UTR"), text_of_csv("''=1")
    ('=1+1', "5'-UTR", "'=1")
    """
    bare = cell.lstrip("'")
    return cell[1:] if cell[:1] == "'" and bare[:1] in _MARKS and bare else cell


def csv_texts(texts: Iterable[object]) -> list[str]:
    """Apply :func:`csv_text` to each text."""
    return [csv_text(text) for text in texts]


def file_name(text: object, instead: str = "unnamed") -> str:
    r"""Convert to a file name that is valid on all systems: no separators, no control characters, bounded length.

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
    """Permanently disable Matplotlib's warnings about characters missing in its font.

    A temporary warnings filter would interfere with other threads that draw.
    """
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
