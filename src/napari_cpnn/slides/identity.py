"""Keys that identify slides, for caches of maps."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cpnn.slides.backends.zarr_places import METADATA

_ENDS_BYTES = 64 * 1024
_MOST_FILES = 64


def file_identity(path: Path, shape: tuple[int, ...], view: str = "") -> str:
    """Hash the size, time, first and last bytes and shape of a file: cheap, and changed by any rewrite.

    Parameters
    ----------
    path, shape
        Path of the file, and shape of its slide.
    view
        Shown part of the file, if not all of it as stored.
    """
    key = hashlib.sha256()
    for file in _files_of(path):
        stat = file.stat()
        key.update(f"{stat.st_size} {stat.st_mtime_ns} {shape}{view and f' {view}'}".encode())
        _add_ends(key, file)
    return key.hexdigest()


def copy_identity(path: str | Path) -> str:
    """Hash the size, first and last bytes of a file: the same for its copies, wherever and whenever they were made.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import shutil
    >>> from napari_cpnn.slides import copy_identity
    >>> copy = shutil.copy(slide.path, "copy.tiff")
    >>> copy_identity(copy) == copy_identity(slide.path)
    True
    """
    key = hashlib.sha256()
    for file in _files_of(Path(path)):
        key.update(f"{file.stat().st_size}".encode())
        _add_ends(key, file)
    return key.hexdigest()


def _files_of(path: Path) -> list[Path]:
    """Return the file itself; of an OME-Zarr folder, its metadata and the first files of its smallest level."""
    if not path.is_dir():
        return [path]
    levels = sorted(p for p in path.iterdir() if p.is_dir() and p.name != "labels")  # added later, by segmentation
    metadata = [p / name for p in (path, *levels) for name in METADATA if (p / name).is_file()]
    held = itertools.chain.from_iterable(_chunks(p) for p in levels[-1:])
    return [*metadata, *itertools.islice(held, _MOST_FILES)]


def _chunks(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder in the order of their names, without listing all of a million."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file()) for entry in entries)
    for name, is_folder, is_file in names:
        if is_folder:
            yield from _chunks(folder / name)
        elif is_file and name not in METADATA:
            yield folder / name


def _add_ends(key: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        key.update(file.read(_ENDS_BYTES))
        file.seek(max(0, size - _ENDS_BYTES))
        key.update(file.read(_ENDS_BYTES))


def content_identity(facts: tuple[Any, ...], thumbnail: bytes) -> str:
    """Hash the metadata and the thumbnail of a slide without a file."""
    key = hashlib.sha256(repr(facts).encode())
    key.update(thumbnail)
    return key.hexdigest()
