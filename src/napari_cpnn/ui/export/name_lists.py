"""Lists of names, typed or in a file. No Qt here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from napari_cpnn.errors import ExportError
from napari_cpnn.untrusted import read_bytes, reading, to_path

#: Maximum size of a list of names.
_MOST_BYTES = 16 * 2**20


def read_name_list(path: str | Path) -> list[str]:
    """Read names from a text file: one a line, or separated by commas, tabs or spaces; lines with ``#`` are notes.

    Raises
    ------
    ExportError
        If it cannot be read, or there is none.
    """
    file = to_path(path, ExportError)
    with reading(file, ExportError, "it must be text with one name per line."):
        text = read_bytes(file, _MOST_BYTES, ExportError).decode("utf-8-sig")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    names = split_names("\n".join(lines), ())
    if not names:
        raise ExportError(f"{file} has no names; it must be text with one name per line.")
    return list(names)


def split_names(typed: str, known: Sequence[str]) -> tuple[str, ...]:
    """Split typed or pasted names; known names that contain spaces, such as those of cell types, are kept whole.

    Known names are found in any case; unknown names are returned unchanged.
    """
    spelling = {name.upper(): name for name in reversed(known)}
    found: list[str] = []
    for part in re.split(r"[,;\n\t]+", typed):
        words = part.split()
        whole = " ".join(words)
        pieces = [whole] if whole.upper() in spelling or " from " in whole else words
        found += [spelling.get(piece.upper(), piece) for piece in pieces]
    return tuple(dict.fromkeys(piece for piece in found if piece))
