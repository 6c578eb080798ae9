"""Files that commands write: never over another's, and never in halves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError


def refuse_existing(path: str | Path) -> None:
    """Say so when a result is there already."""
    if Path(path).exists():
        raise CpnnError(f"{path} exists already; choose another name or delete it.")


def require_writable(folder: Path) -> None:
    """Make the folder and write into it, before hours of work are spent on what could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CpnnError(f"Nothing can be written to the folder {folder}: {error.strerror or error}.") from error


def write_csv(table: Any, path: str | Path) -> None:
    """Write a table; a kill leaves the old file or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            table.to_csv(temporary)
            temporary.replace(path)
        finally:  # gone already when all went well
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CpnnError(f"{path} could not be written: {error.strerror or error}.") from error
