"""Arrays on disk whose names carry their checksum: whole, or not there.

Each is one ``.npy`` that appears by a rename, so that a kill, or a second process that writes the same, does no harm.
A file whose bytes are not the ones that its name promises is deleted.
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

#: What the files of this module are called; and what earlier versions left when they were killed.
ARRAY_FILES = re.compile(r"\d{5}-[0-9a-f]{8}\.npy|\.\d{5}-[0-9a-f]{32}\.part")

#: Folders that could no longer be written, for which the user has been warned.
_LOST: set[Path] = set()


def write_array(folder: Path, number: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write an array into ``folder``, made here; it comes back memory-mapped.

    Raises
    ------
    TrainingError
        The folder cannot be written.
    """
    values = np.ascontiguousarray(values)
    path = folder / _name(number, values)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with staged(path, tidy=False) as part, part.open("wb") as file:
                # Written, not mapped: on a full disk a write says so, while a memory map would kill the process.
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
                file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
        except PermissionError:  # Windows: another process has it, the same, and has it open
            if not path.exists():
                raise
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def keep_array(folder: Path, scratch: Path, number: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write an array into ``folder``, or where that has become impossible into the run's ``scratch``, with a warning.

    Raises
    ------
    TrainingError
        Neither can be written.
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
    """Write an array's values at the end of an open file; :class:`TrainingError` when that is not possible."""
    # Written, not mapped: on a full disk a write says so, while a memory map would kill the process.
    try:
        file.write(np.ascontiguousarray(values).data)
    except OSError as error:
        raise TrainingError(
            f"{file.name} cannot be written ({error.strerror}); free some space or choose another folder."
        ) from error


def find_array(
    folder: Path, number: int, shape: tuple[int, ...], dtype: type[np.generic], what: str
) -> npt.NDArray[Any] | None:
    """The array with this number, memory-mapped, when it is there and whole; ``what`` it is, for the warning."""
    for path in sorted(folder.glob(f"{number:05d}-*.npy")):
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if values.shape == shape and values.dtype == dtype and path.name == _name(number, values):
                return values
            del values  # a file that is mapped cannot be deleted on Windows
        except FileNotFoundError:  # another process has found it damaged
            continue
        except (OSError, ValueError, EOFError):
            pass
        with suppress(OSError):
            path.unlink()
        warnings.warn(f"Cached {what} were damaged and are made anew.", CpnnWarning, stacklevel=5)
    return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk says into a sentence."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"The cache of patches cannot be written to {folder} ({error.strerror or error}); free some space or "
            "choose another folder (patch_cache)."
        ) from error


def _name(number: int, values: npt.NDArray[Any]) -> str:
    return f"{number:05d}-{zlib.crc32(np.ascontiguousarray(values).data):08x}.npy"
