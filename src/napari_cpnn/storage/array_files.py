"""Arrays on disk with their checksum in the file name, written atomically.

Each array is one ``.npy`` file that is created by renaming, so that interruption and concurrent writers are harmless.
Files that do not match their checksum are deleted.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.storage.files import staged

#: File names of this module, and of temporary files that earlier versions left when killed.
ARRAY_FILES = re.compile(r"\d{5}-[0-9a-f]{8}\.npy|\.\d{5}-[0-9a-f]{32}\.part")

#: Folders that could not be written and for which a warning was issued.
_LOST: set[Path] = set()


def write_array(folder: Path, number: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write an array into ``folder``, which is created if needed; return it memory-mapped.

    Raises
    ------
    TrainingError
        If the folder cannot be written.
    """
    values = np.ascontiguousarray(values)
    path = folder / _name(number, values)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with staged(path, tidy=False) as part, part.open("wb") as file:
                # Write instead of memory-mapping: on a full disk, a write raises, while a memory map kills the process.
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
                file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
        except PermissionError:  # Windows: another process has the same file open
            if not path.exists():
                raise
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def keep_array(folder: Path, scratch: Path, number: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write an array into ``folder``, or with a warning into ``scratch`` if that is no longer possible.

    Raises
    ------
    TrainingError
        If neither can be written.
    """
    try:
        return write_array(folder, number, values)
    except TrainingError as error:
        if scratch == folder.parent:
            raise
        written = write_array(scratch / folder.name, number, values)
        if folder.parent not in _LOST:
            _LOST.add(folder.parent)
            warnings.warn(f"The run goes on without its cache: {error}", CpnnWarning, stacklevel=3)
        return written


def append_to(file: BinaryIO, values: npt.NDArray[Any]) -> None:
    """Append the values of an array to an open file; raise a :class:`TrainingError` on failure."""
    # Write instead of memory-mapping: on a full disk, a write raises, while a memory map kills the process.
    try:
        file.write(np.ascontiguousarray(values).data)
    except OSError as error:
        raise TrainingError(
            f"{file.name} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from error


def find_array(
    folder: Path, number: int, shape: tuple[int, ...], dtype: type[np.generic], what: str
) -> npt.NDArray[Any] | None:
    """Memory-map the array with this number, or return None if missing or damaged; ``what`` is for the warning."""
    for path in sorted(folder.glob(f"{number:05d}-*.npy")):
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if values.shape == shape and values.dtype == dtype and path.name == _name(number, values):
                return values
            del values  # a memory-mapped file cannot be deleted on Windows
        except FileNotFoundError:  # already deleted by another process
            continue
        except (OSError, ValueError, EOFError):
            pass
        with suppress(OSError):
            path.unlink()
        warnings.warn(f"Cached {what} were damaged and are made anew.", CpnnWarning, stacklevel=5)
    return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert an ``OSError`` to a :class:`TrainingError`."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"The cache of patches cannot be written to {folder} ({error.strerror or error}); free some space or "
            "choose another folder (patch_cache)."
        ) from error


def _name(number: int, values: npt.NDArray[Any]) -> str:
    return f"{number:05d}-{zlib.crc32(np.ascontiguousarray(values).data):08x}.npy"
