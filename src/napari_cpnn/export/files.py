"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from napari_cpnn.errors import ExportError

#: What the top of a Zarr group is called, version 3 and 2.
_ZARR_MARKS = ("zarr.json", ".zgroup")
_REMOVALS = 10


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name beside ``path`` to write a file or a folder to; it gets its name when all went well.

    What stood there stays until then, and after a failure nothing new is left.

    Parameters
    ----------
    path
        Where the result goes; its folder must be there.
    overwrite
        Whether a result that is there is replaced: a file, or a Zarr folder, never another folder.

    Raises
    ------
    ExportError
        When something is there that may not be replaced, or the disk cannot be written (missing, read-only, full).
    """
    if not path.parent.is_dir():
        raise ExportError(f"The folder {path.parent} does not exist; make it first or choose another.")
    _refuse(path, overwrite)
    token = uuid.uuid4().hex[:8]
    # The ending stays the last part of the name: some writers look at it.
    temporary, old = path.with_name(f".{token}.{path.name}"), path.with_name(f".{token}.old.{path.name}")
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be renamed over another
            path.rename(old)
        temporary.replace(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise ExportError(f"{path} could not be written: {_reason(error)}.") from error
    finally:  # also after Ctrl-C; there is nothing left to delete when all went well
        for left in (temporary, old):
            _remove(left)


def _remove(path: Path) -> None:
    """Delete a file or folder; chunks that are still on their way to a folder make it anew, for a moment."""
    for _ in range(_REMOVALS):
        if not path.exists():
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.1)
        else:
            path.unlink(missing_ok=True)


def require_space(path: Path, size_mb: float) -> None:
    """Say so when a disk has no room for a table, before the time is spent on writing what fits.

    Raises
    ------
    ExportError
        When less than ``size_mb`` is free where ``path`` will be.
    """
    free_mb = shutil.disk_usage(path.parent).free / 2**20
    if size_mb > free_mb:
        raise ExportError(
            f"{path} takes {size_mb:,.0f} MB, but the disk has only {free_mb:,.0f} MB left; choose genes or another "
            "place."
        )


def _refuse(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise ExportError(f"{path} exists already; choose another name or allow overwriting.")
    if not path.is_dir():
        return
    if not any((path / mark).is_file() for mark in _ZARR_MARKS):
        raise ExportError(
            f"{path} is a folder that is not a Zarr group, so it is not overwritten; choose another name."
        )
    if is_saved_map(path):
        raise ExportError(f"{path} holds a map of napari-cpnn, which an export never replaces; choose another name.")


def is_saved_map(path: Path) -> bool:
    """Whether a folder is a map in our own format."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
    except (OSError, ValueError, AttributeError):  # Zarr 2, or nothing that could be read as a map
        return False
    return "napari_cpnn" in attributes


def _reason(error: OSError) -> str:
    """The system's words; HDF5 wraps them in its own, over several lines."""
    text = error.strerror or str(error)
    if "error message = '" in text:
        text = text.split("error message = '", 1)[1].split("'", 1)[0]
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
