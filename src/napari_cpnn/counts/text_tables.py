"""Read text tables with automatic detection of separator and compression."""

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

#: Exceptions raised for truncated or damaged text or gzip files. (Unicode errors and parser errors are ValueErrors.)
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)


WHITE_SPACE = r"\s+"
GZIP = b"\x1f\x8b"
"""Magic bytes of gzip files."""

#: Maximum bytes per line: a matrix with a million spots in its columns is below, a file without line ends above.
LONGEST_LINE = 64 * 2**20
#: Maximum bytes per row and maximum number of columns of a table of annotations.
_LONGEST_ROW, _MOST_COLUMNS = 2**20, 20_000
#: Maximum compression ratio of text, even of a table consisting almost only of zeros; short texts are exempt.
MOST_UNZIPPED = 500
_SMALL_UNZIPPED = 4 * 2**20
#: Bytes processed at once.
_PIECE = 2**18
#: Pieces whose lines are this short (bytes) with so few different ones are considered to hold no information.
_LONG_PIECE, _SHORT_LINE, _FEW_LINES = 2**16, 64, 16


class _Measured(io.RawIOBase):
    """Byte stream of a text file, decompressed if gzipped; raises ``ValueError`` for binary or endless content."""

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
        if not self._piece:  # each piece is checked once, even if it is read in parts
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
            raise ValueError("it holds NUL characters, so it is not UTF-8 text")
        if self._zipped and self._at > max(_SMALL_UNZIPPED, self._most * self._n_stored):
            raise ValueError(
                f"it decompresses to more than {self._most} times its size, which is implausible for a table"
            )
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
    """Open a text file as bytes, decompressing gzip regardless of the file name.

    Reading raises a ``ValueError`` if a line is longer than ``longest_line`` (None: unlimited), if there is a NUL
    character, or if the compression ratio exceeds ``most_unzipped``, which text never reaches.
    """
    return io.BufferedReader(_Measured(path, longest_line, most_unzipped))


def open_text(path: Path, longest_line: int | None = LONGEST_LINE, most_unzipped: int = MOST_UNZIPPED) -> IO[str]:
    """Open a file as text without a byte-order mark; otherwise as :func:`open_bytes`."""
    return io.TextIOWrapper(open_bytes(path, longest_line, most_unzipped), encoding="utf-8-sig")


def separator_of(line: str) -> str:
    """Return the separator found in ``line`` (tab, comma or semicolon), else a regular expression for white space."""
    return next((mark for mark in ("\t", ",", ";") if mark in line), WHITE_SPACE)


def read_table(path: Path, what: str, error: type[CpnnError], **options: Any) -> pd.DataFrame:
    """Read a text table with a header; ``options`` are passed to :func:`pandas.read_csv`.

    Raises
    ------
    CpnnError
        Raised as ``error``, with a one-sentence message that calls the file ``what``.
    """
    import pandas as pd

    if not path.is_file():
        raise error(f"There is no {what} {path}.")
    with reading(f"The {what} {path}", error, "is it complete?"), open_text(path, _LONGEST_ROW) as file:
        header = file.readline()
        separator = separator_of(header)
        # pandas is very slow, and needs much memory, for tables with very many columns.
        for line in (header, file.readline()):
            n_columns = len(line.split(None if separator == WHITE_SPACE else separator))
            if n_columns > _MOST_COLUMNS:
                raise error(f"The {what} {path} has {n_columns:,} columns; is it the right table?")
        file.seek(0)
        table: pd.DataFrame = pd.read_csv(file, sep=separator, **options)
    return table
