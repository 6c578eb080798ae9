"""Checks before commands write files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import restored
from napari_cpnn.untrusted import to_path


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise an error if a result exists already, unless it may be replaced (``--overwrite``)."""
    if restored(to_path(path, CpnnError)).exists() and not overwrite:
        raise CpnnError(f"{path} exists already; choose another name, or replace it with --overwrite.")


def require_writable(folder: Path) -> None:
    """Create the folder and test that it is writable, before time is spent on the computation."""
    if folder.exists() and not folder.is_dir():
        raise CpnnError(f"{folder} is a file; choose a folder for the results.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CpnnError(f"The folder {folder} is not writable: {error.strerror or error}.") from error
