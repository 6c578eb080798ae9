"""The user's cache: its location, and deletion of files of this package only.

Entries are named by a hash, in a separate folder, even in a location chosen by the user. Nothing else in these folders
is ever deleted.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from napari_cpnn.storage.temporaries import sweep

#: Name of an entry: the first half of a SHA-256.
KEY = re.compile(r"[0-9a-f]{32}")


def cache_folder() -> Path:
    """Folder of downloads and maps: ``$NAPARI_CPNN_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("NAPARI_CPNN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-cpnn")


def folder_of(kind: str, chosen: str | os.PathLike[str] | None = None) -> Path:
    """Folder of one kind of entries, in the user's cache or in a subfolder of a chosen folder."""
    return (cache_folder() if chosen is None else Path(chosen).expanduser() / "napari-cpnn") / kind


def kept_in(folder: Path) -> list[tuple[float, Path]]:
    """Time of last use and path of each entry in ``folder``, most recent first."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    found.append((path.stat().st_mtime, path))
    return sorted(found, reverse=True)


def size_of(folder: Path, files: str) -> int:
    """Total size in bytes of the files that match a pattern."""
    total = 0
    for file in folder.glob(files):
        with suppress(OSError):
            total += file.stat().st_size
    return total


def delete_kept(folder: Path, files: re.Pattern[str]) -> None:
    """Delete our files in an entry, and its folder unless it contains other files."""
    sweep(folder)
    with suppress(OSError):
        for file in folder.iterdir():
            if files.fullmatch(file.name):
                with suppress(OSError):
                    file.unlink()
        folder.rmdir()


def sweep_kept(folder: Path, used: float) -> None:
    """Delete temporary files of killed processes in an entry; this does not count as use of it."""
    if sweep(folder):
        with suppress(OSError):
            os.utime(folder, (used, used))


def touch_kept(folder: Path) -> None:
    """Mark an entry as most recently used. Unlike ``touch``, this does not create it."""
    with suppress(OSError):
        os.utime(folder)
