"""Write files and folders atomically."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from napari_cpnn.errors import ExportError
from napari_cpnn.storage import staged
from napari_cpnn.untrusted import read_json, to_path

#: Names of the metadata file at the root of a Zarr group, versions 3 and 2.
_ZARR_MARKS = ("zarr.json", ".zgroup")
#: Other files allowed at the root: those of version 2, and of file managers.
_ZARR_FILES = {*_ZARR_MARKS, ".zattrs", ".zmetadata", ".DS_Store", "Thumbs.db"}


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, which is renamed to it on success.

    An existing result is kept until then, and nothing new is left after a failure.

    Parameters
    ----------
    path
        Destination; its parent folder must exist.
    overwrite
        Whether to replace an existing file or Zarr folder; other folders are never replaced.

    Raises
    ------
    ExportError
        If the destination exists and may not be replaced, or the disk cannot be written (missing, read-only, full).
    """
    to_path(path, ExportError)
    if not path.parent.is_dir():
        raise ExportError(f"The folder {path.parent} does not exist; create it or choose another.")
    _refuse(path, overwrite)
    try:
        with staged(path) as temporary:
            yield temporary
    except OSError as error:
        raise ExportError(f"{path} could not be written: {_reason(error)}.") from error
    except MemoryError as error:
        raise ExportError(f"{path} could not be written: it needs more memory than this computer has.") from error


def require_space(path: Path, size_mb: float) -> None:
    """Check that the disk has space for a table before it is written.

    Raises
    ------
    ExportError
        If less than ``size_mb`` is free at the destination.
    """
    free_mb = shutil.disk_usage(path.parent).free / 2**20
    if size_mb > free_mb:
        raise ExportError(
            f"{path} needs {size_mb:,.0f} MB, but the disk has only {free_mb:,.0f} MB left; choose fewer genes or "
            "another place."
        )


def _refuse(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise ExportError(f"{path} exists already; choose another name or allow overwriting.")
    if not path.is_dir():
        return
    if not _is_zarr_group(path):
        raise ExportError(
            f"{path} is a folder that is not a Zarr group, so it is not overwritten; choose another name."
        )
    if is_saved_map(path):
        raise ExportError(f"{path} is a saved map of napari-cpnn, which an export never replaces; choose another name.")


def _is_zarr_group(path: Path) -> bool:
    """Return whether a folder is a Zarr group without other files, which must not be deleted."""
    if not any((path / mark).is_file() for mark in _ZARR_MARKS):
        return False
    return all(
        any((member / mark).is_file() for mark in (*_ZARR_MARKS, ".zarray")) or member.name in _ZARR_FILES
        for member in path.iterdir()
    )


def is_saved_map(path: Path) -> bool:
    """Return whether a folder is a map in this package's own format."""
    if not (path / "zarr.json").is_file():  # Zarr 2, or not a readable map
        return False
    try:
        return "napari_cpnn" in read_json(path / "zarr.json", ExportError).get("attributes", {})
    except (ExportError, AttributeError, TypeError):
        return False


def _reason(error: OSError) -> str:
    """Return the system's message without the multi-line text that HDF5 adds."""
    text = error.strerror or str(error)
    if "error message = '" in text:
        text = text.split("error message = '", 1)[1].split("'", 1)[0]
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
