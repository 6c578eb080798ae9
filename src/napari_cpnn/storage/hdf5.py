"""Validate HDF5 files from untrusted sources, and write HDF5 files safely even if the disk is full.

Reading: :func:`check_hdf5` before a file is opened. Writing: :func:`write_h5ad`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError
from napari_cpnn.untrusted import check_in_child, reading

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

_CHECK = "from napari_cpnn.storage.hdf5_headers import main; main(sys.argv[1])"
#: Minimum time limit; larger for very large files. Once started, the child sets a stricter limit itself.
_SECONDS, _BYTES_PER_SECOND = 5.0, 2 * 2**30
_MEMORY_MB = 1024
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_REMEMBERED = 64

#: Results by path, size, time and inode of a file: bytes in memory, reason for refusal, or how the child failed.
_found: dict[tuple[str, int, int, int], dict[str, Any]] = {}


def check_hdf5(path: Path, error: type[CpnnError]) -> int:
    """Refuse an HDF5 file that would hang or crash the process, exhaust memory, or read other files.

    Headers are read in a child process, and values only of small files. Results are cached as long as the file is
    unchanged.

    Parameters
    ----------
    path
        The file.
    error
        Class of the error that is raised.

    Returns
    -------
    int
        Bytes of the whole content in memory.
    """
    with reading(path, error, "is it complete?"):
        about = path.stat()
        key = (str(path.absolute()), about.st_size, about.st_mtime_ns, about.st_ino)
        if key not in _found:
            with path.open("rb") as file:
                if not _has_signature(file, about.st_size):
                    raise error(f"{path} cannot be read (it is no HDF5 file); is it complete?")
            seconds = _SECONDS + about.st_size // _BYTES_PER_SECOND
            try:
                found = json.loads(check_in_child(_CHECK, [key[0]], path, error, seconds=seconds, memory_mb=_MEMORY_MB))
            except error as failed:
                if isinstance(failed.__cause__, subprocess.TimeoutExpired):  # perhaps only the computer was busy
                    raise
                found = {"failed": str(failed)}
            if len(_found) >= _REMEMBERED:
                _found.pop(next(iter(_found)), None)
            _found[key] = found
        found = _found[key]
        if "failed" in found:
            raise error(found["failed"])
        if "refused" in found:
            raise error(f"{path} cannot be read ({found['refused'].rstrip('.')}); get the file again.")
        return int(found["bytes"])


def _has_signature(file: io.BufferedReader, size: int) -> bool:
    """Return whether the HDF5 signature is at the start, or after a user block of 512, 1024, 2048, ... bytes."""
    at = 0
    while at < size:
        file.seek(at)
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            return True
        at = max(512, 2 * at)
    return False


@contextmanager
def open_hdf5(path: Path, error: type[CpnnError]) -> Iterator[h5py.File]:
    """Open a file for reading after :func:`check_hdf5`; exceptions in the context are converted to ``error``."""
    import h5py

    check_hdf5(path, error)
    with reading(path, error), h5py.File(path, "r") as file:
        yield file


class _Recording(io.RawIOBase):
    """File object for HDF5 that records write failures instead of raising them.

    HDF5 cannot close a file after a failed write: it crashes the process. Failures are therefore hidden from it, and
    the caller checks :meth:`raise_failure`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self._failure: OSError | None = None
        self._size = 0

    def raise_failure(self) -> None:
        """Raise the first recorded failure."""
        if self._failure is not None:
            raise self._failure

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._size + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        # Data that could not be written is read as zeros.
        view = memoryview(buffer).cast("B")
        n = self._file.readinto(view) or 0
        view[n:] = bytes(len(view) - n)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        at = self._file.tell()
        self._size = max(self._size, at + len(view))
        rest = view
        while len(rest) and self._failure is None:
            try:
                n = self._file.write(rest) or 0
            except OSError as exc:
                self._failure = exc
                break
            if not n:
                self._failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[n:]
        self._file.seek(at + len(view))
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._file.tell() if size is None else size
        try:
            return self._file.truncate(self._size)
        except OSError as exc:
            self._failure = self._failure or exc
            return self._size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.close()
            except OSError as exc:
                self._failure = self._failure or exc
        super().close()


@contextmanager
def creating_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Create an HDF5 file; yields it with a function that raises any write failure so far.

    Raises
    ------
    OSError
        At the end, if a write failed. Unlike with HDF5's own file access, the process does not crash.
    """
    import h5py

    with _Recording(path) as target:
        with h5py.File(target, "w") as file:
            yield file, target.raise_failure
        target.close()
        target.raise_failure()


def write_h5ad(table: AnnData, path: Path, **packing: Any) -> None:
    """Write an AnnData like :meth:`anndata.AnnData.write_h5ad`, but raise an ``OSError`` on a full disk.

    Parameters
    ----------
    table
        Table with unique names.
    path
        The file.
    packing
        ``compression`` and ``compression_opts`` of the data sets.
    """
    with creating_hdf5(path) as (file, _):
        write_table(table, file, **packing)


def write_table(table: AnnData, file: h5py.File, **packing: Any) -> None:
    """Write an AnnData into an open file."""
    from anndata.io import write_elem

    table.strings_to_categoricals()
    if table.raw is not None:
        table.strings_to_categoricals(table.raw.var)
    write_elem(file, "/", table, dataset_kwargs=packing)
    if table.raw is None and "raw" in file:  # older versions of anndata cannot read null values
        del file["raw"]
