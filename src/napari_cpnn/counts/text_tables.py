"""Text tables whose separator and compression are found out."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from napari_cpnn.errors import CpnnError
from napari_cpnn.untrusted import reading, require_no_device

if TYPE_CHECKING:
    import pandas as pd

#: What a truncated or damaged text or gzip file raises. (Bad unicode and pandas' parser errors are ValueErrors.)
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)


WHITE_SPACE = r"\s+"
GZIP = b"\x1f\x8b"
"""How a file begins that is gzip."""

#: Bytes of a line: a matrix with a million spots in its columns stays below, a file without a line end does not.
LONGEST_LINE = 64 * 2**20
#: The same for a table of annotations, and its columns.
_LONGEST_ROW, _MOST_COLUMNS = 2**20, 20_000
#: Text, even a table of nearly nothing but zeros, is zipped to no less than this share; little text may be anything.
MOST_UNZIPPED = 500
_SMALL_UNZIPPED = 4 * 2**20
#: Bytes that are looked at together.
_PIECE = 2**18
#: A piece of a file in which lines are so short (bytes) and only so few differ says nothing.
_LONG_PIECE, _SHORT_LINE, _FEW_LINES = 2**16, 64, 16


class _Measured(io.RawIOBase):
    """Bytes of a text file, unzipped when it is gzip; what is no text, or endless, ends in a ``ValueError``."""

    def __init__(self, path: Path, longest_line: int | None, most_unzipped: int) -> None:
        super().__init__()
        require_no_device(path)
        self._file: IO[bytes] = path.open("rb")
        self._n_stored = os.fstat(self._file.fileno()).st_size
        self._zipped = self._file.read(2) == GZIP
        self._file.seek(0)
        self._bytes = cast("IO[bytes]", gzip.GzipFile(fileobj=self._file, mode="rb")) if self._zipped else self._file
        self._longest, self._most = longest_line, most_unzipped
        self._line = self._at = 0
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._bytes.tell() - len(self._piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._line, self._piece = 0, memoryview(b"")
        self._at = self._bytes.seek(offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not self._piece:  # a piece is measured once, however little of it is asked for
            piece = self._bytes.read(_PIECE)
            self._measure(piece)
            self._piece = memoryview(piece)
        n = min(len(view), len(self._piece))
        view[:n] = self._piece[:n]
        self._piece = self._piece[n:]
        return n

    def _measure(self, read: bytes) -> None:
        self._at += len(read)
        if b"\0" in read:
            raise ValueError("it holds NUL characters, so it is no text in UTF-8")
        if self._zipped and self._at > max(_SMALL_UNZIPPED, self._most * self._n_stored):
            raise ValueError(f"it unzips to more than {self._most} times its size, which no table does")
        if (
            len(read) >= _LONG_PIECE
            and read.count(b"\n") > len(read) // _SHORT_LINE
            and len(set(read.splitlines())) < _FEW_LINES
        ):
            raise ValueError("it repeats the same few lines thousands of times")
        if self._longest is None:
            return
        last = read.rfind(b"\n")
        self._line = self._line + len(read) if last < 0 else len(read) - last - 1
        if self._line > self._longest:
            raise ValueError(f"it has a line of more than {self._longest / 2**20:g} MB")

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
            self._file.close()
        super().close()


def open_bytes(path: Path, longest_line: int | None = LONGEST_LINE, most_unzipped: int = MOST_UNZIPPED) -> BinaryIO:
    """The bytes of a text file, unzipped when it is gzip whatever its name says.

    Reading raises a ``ValueError`` when a line is longer than ``longest_line`` (None: a line may be of any length),
    at a NUL character, and when ``most_unzipped`` times as much comes out of a zipped file, as text is never zipped.
    """
    return io.BufferedReader(_Measured(path, longest_line, most_unzipped))


def open_text(path: Path, longest_line: int | None = LONGEST_LINE, most_unzipped: int = MOST_UNZIPPED) -> IO[str]:
    """The file as text, without a byte-order mark; otherwise as :func:`open_bytes`."""
    return io.TextIOWrapper(open_bytes(path, longest_line, most_unzipped), encoding="utf-8-sig")


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
    with reading(f"The {what} {path}", error, "is it complete?"), open_text(path, _LONGEST_ROW) as file:
        header = file.readline()
        separator = separator_of(header)
        for line in (header, file.readline()):  # pandas takes minutes, and much memory, for each of very many columns
            n_columns = len(line.split(None if separator == WHITE_SPACE else separator))
            if n_columns > _MOST_COLUMNS:
                raise error(f"The {what} {path} has {n_columns:,} columns; is it another table?")
        file.seek(0)
        table: pd.DataFrame = pd.read_csv(file, sep=separator, **options)
    return table
