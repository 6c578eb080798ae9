"""Files that commands write: never over another's, and never in halves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import restored
from napari_cpnn.untrusted import to_path


def refuse_existing(path: str | Path) -> None:
    """Say so when a result is there already."""
    if restored(to_path(path, CpnnError)).exists():
        raise CpnnError(f"{path} exists already; choose another name or delete it.")


def require_writable(folder: Path) -> None:
    """Make the folder and write into it, before hours of work are spent on what could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CpnnError(f"Nothing can be written to the folder {folder}: {error.strerror or error}.") from error
