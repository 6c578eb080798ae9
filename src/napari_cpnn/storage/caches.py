"""The user's cache: where it is, and deleting from it nothing but what the package has made.

What is kept there has the name of a hash, in a folder of its own, also where the user chooses the place. Nothing else
is ever deleted, whatever lies beside it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from napari_cpnn.storage.temporaries import sweep

#: The name of what is kept: the first half of a SHA-256.
KEY = re.compile(r"[0-9a-f]{32}")


def cache_folder() -> Path:
    """Where downloads and maps are kept: ``$NAPARI_CPNN_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("NAPARI_CPNN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-cpnn")


def folder_of(kind: str, chosen: str | os.PathLike[str] | None = None) -> Path:
    """The folder of one kind of kept things, in the user's cache or in a folder of ours inside a chosen one."""
    return (cache_folder() if chosen is None else Path(chosen).expanduser() / "napari-cpnn") / kind


def kept_in(folder: Path) -> list[tuple[float, Path]]:
    """When each of the kept folders in ``folder`` was used last, and which it is; the latest comes first."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    found.append((path.stat().st_mtime, path))
    return sorted(found, reverse=True)


def size_of(folder: Path, files: str) -> int:
    """Bytes that the files of a pattern take."""
    total = 0
    for file in folder.glob(files):
        with suppress(OSError):
            total += file.stat().st_size
    return total


def delete_kept(folder: Path, files: re.Pattern[str]) -> None:
    """Delete the files of ours in a kept folder, and the folder, unless there is something else in it."""
    sweep(folder)
    with suppress(OSError):
        for file in folder.iterdir():
            if files.fullmatch(file.name):
                with suppress(OSError):
                    file.unlink()
        folder.rmdir()


def sweep_kept(folder: Path, used: float) -> None:
    """Delete what killed programs have left in a kept folder, which is no use of it."""
    if sweep(folder):
        with suppress(OSError):
            os.utime(folder, (used, used))


def touch_kept(folder: Path) -> None:
    """Note that a kept folder is in use: the last to be deleted. Unlike ``touch``, this makes no file in its place."""
    with suppress(OSError):
        os.utime(folder)
