"""Keys that identify slides, for caches of maps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

_ENDS_BYTES = 64 * 1024


def file_identity(path: Path, shape: tuple[int, ...], view: str = "") -> str:
    """Hash the size, time, first and last bytes and shape of a file: cheap, and changed by any rewrite.

    Parameters
    ----------
    path, shape
        Path of the file, and shape of its slide.
    view
        Shown part of the file, if not all of it as stored.
    """
    stat = path.stat()
    key = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {shape}{view and f' {view}'}".encode())
    with path.open("rb") as file:
        key.update(file.read(_ENDS_BYTES))
        file.seek(max(0, stat.st_size - _ENDS_BYTES))
        key.update(file.read(_ENDS_BYTES))
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
    path = Path(path)
    size = path.stat().st_size
    key = hashlib.sha256(f"{size}".encode())
    with path.open("rb") as file:
        key.update(file.read(_ENDS_BYTES))
        file.seek(max(0, size - _ENDS_BYTES))
        key.update(file.read(_ENDS_BYTES))
    return key.hexdigest()


def content_identity(facts: tuple[Any, ...], thumbnail: bytes) -> str:
    """Hash the metadata and the thumbnail of a slide without a file."""
    key = hashlib.sha256(repr(facts).encode())
    key.update(thumbnail)
    return key.hexdigest()
