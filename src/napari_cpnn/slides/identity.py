"""Keys that tell whether a slide is the one that was seen before, for caches of maps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

_ENDS_BYTES = 64 * 1024


def file_identity(path: Path, shape: tuple[int, ...], view: str = "") -> str:
    """Hash of a file's size, time, first and last bytes and shape: cheap, and different after any rewrite.

    Parameters
    ----------
    path, shape
        The file, and the shape of its slide.
    view
        What is shown of the file, where that is not all of it as it is stored.
    """
    stat = path.stat()
    key = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {shape}{view and f' {view}'}".encode())
    with path.open("rb") as file:
        key.update(file.read(_ENDS_BYTES))
        file.seek(max(0, stat.st_size - _ENDS_BYTES))
        key.update(file.read(_ENDS_BYTES))
    return key.hexdigest()


def content_identity(facts: tuple[Any, ...], thumbnail: bytes) -> str:
    """Hash of the facts about a slide without a file, and of what it looks like from afar."""
    key = hashlib.sha256(repr(facts).encode())
    key.update(thumbnail)
    return key.hexdigest()
