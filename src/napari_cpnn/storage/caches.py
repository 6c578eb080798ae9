"""The user's cache: its location, and deletion of files of this package only.

Entries are named by a hash, in a separate folder, even in a location chosen by the user. Nothing else in these folders
is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.storage.temporaries import sweep

#: Name of an entry: the first half of a SHA-256.
KEY = re.compile(r"[0-9a-f]{32}")

#: Entries used more recently than this may be in use by another process and are never deleted.
_IN_USE_SECONDS = 3600.0


def key_of(facts: dict[str, Any] | Sequence[Any], *arrays: npt.ArrayLike, length: int = 32) -> str:
    """Name of a cache entry: a hash of everything that its content depends on, so that equal content is found again.

    The recipe must not change, or the caches of all users are computed anew.

    Parameters
    ----------
    facts
        What can be written as JSON. The order of a dictionary's items is irrelevant, that of a sequence's is not.
    arrays
        Arrays, of which type and shape must be among the facts if they may vary.
    length
        Number of hexadecimal digits, at most 64.

    >>> key_of({"slide": "a", "mpp": 0.5}) == key_of({"mpp": 0.5, "slide": "a"})
    True
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=isinstance(facts, dict)).encode())
    for values in arrays:
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:length]


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


def prune_entries(
    used: Mapping[Path, float],
    limit_bytes: float,
    size: Callable[[Path], int],
    is_in_use: Callable[[Path], bool],
    delete: Callable[[Path], object],
) -> None:
    """Delete the least recently used entries until at most ``limit_bytes`` remain; entries in use are always kept.

    Parameters
    ----------
    used
        Time of last use of each entry.
    limit_bytes
        Maximum total size.
    size, is_in_use, delete
        Functions of the path of an entry; ``size`` may also delete temporary files of killed processes in it.
    """
    total = 0
    for path in sorted(used, key=lambda entry: -used[entry]):
        total += size(path)
        if total > limit_bytes and not is_in_use(path):
            delete(path)


def prune_kept(folder: Path, limit_bytes: float, files: re.Pattern[str]) -> None:
    """Prune the entries in ``folder``, whose files have names that match ``files``.

    Entries that were used within the last hour may be in use by another process and are kept.
    """
    used: dict[Path, float] = {}
    for path in _files(folder, KEY):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                used[path] = path.stat().st_mtime
    prune_entries(
        used,
        limit_bytes,
        lambda entry: _tidied_size(entry, files, used[entry]),
        lambda entry: _is_recent(used[entry]),
        lambda entry: _delete(entry, files),
    )


def _is_recent(used: float) -> bool:
    return time.time() - used <= _IN_USE_SECONDS


def _tidied_size(entry: Path, files: re.Pattern[str], used: float) -> int:
    """Size of our files in an entry; deletes temporary files of killed processes, which does not count as use."""
    total, n_deleted = 0, sweep(entry)
    for file in _files(entry, files):
        with suppress(OSError):
            facts = file.stat()
            if file.name.startswith(".") and not _is_recent(facts.st_mtime):  # of an earlier version
                file.unlink()
                n_deleted += 1
            else:
                total += facts.st_size
    if n_deleted:
        with suppress(OSError):
            os.utime(entry, (used, used))
    return total


def _delete(entry: Path, files: re.Pattern[str]) -> None:
    """Delete our files in an entry, and its folder unless it contains other files."""
    for file in _files(entry, files):
        with suppress(OSError):
            file.unlink()
    with suppress(OSError):
        entry.rmdir()


def _files(folder: Path, names: re.Pattern[str]) -> list[Path]:
    with suppress(OSError):
        return [path for path in folder.iterdir() if names.fullmatch(path.name)]
    return []


def touch_kept(folder: Path) -> None:
    """Mark an entry as most recently used. Unlike ``touch``, this does not create it."""
    with suppress(OSError):
        os.utime(folder)
