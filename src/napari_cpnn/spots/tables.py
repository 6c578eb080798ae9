"""Text tables whose separator and compression are found out."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError

if TYPE_CHECKING:
    import pandas as pd

#: What a truncated or damaged text or gzip file raises. (Bad unicode and pandas' parser errors are ValueErrors.)
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)


WHITE_SPACE = r"\s+"


def open_text(path: Path) -> IO[str]:
    """The file as text, unzipped when it is gzip whatever its name says, without a byte-order mark."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def separator_of(line: str) -> str:
    """Tab, comma or semicolon, whichever is in ``line``; else white space (as a regular expression)."""
    return next((mark for mark in ("\t", ",", ";") if mark in line), WHITE_SPACE)


def read_table(path: Path, what: str, error: type[CpnnError], **options: Any) -> pd.DataFrame:
    """A text table with a header; ``options`` go to :func:`pandas.read_csv`.

    Raises
    ------
    CpnnError
        As ``error``, in one sentence that calls the file ``what``.
    """
    import pandas as pd

    if not path.is_file():
        raise error(f"There is no {what} {path}.")
    try:
        with open_text(path) as file:
            separator = separator_of(file.readline())
            file.seek(0)
            table: pd.DataFrame = pd.read_csv(file, sep=separator, **options)
    except READ_ERRORS as exc:
        raise error(f"The {what} {path} cannot be read ({exc}).") from exc
    return table
