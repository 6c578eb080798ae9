"""Cache folder of maps with a size limit: the least recently used maps are deleted first, never one in use.

Only folders that are recognised as maps by name and content, and contain no other files, are deleted.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cpnn.mapping.map_layout import has_only_our_files, is_our_map
from napari_cpnn.storage import prune_entries, sweep

#: Name pattern of a cached map.
MAP_NAME = re.compile(r"[0-9a-f]{32}\.zarr")
_LOCK = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.lock")
#: Name pattern of temporary folders that earlier versions left when killed, and the age at which they are deleted.
_LEFT = re.compile(r"\.[0-9a-f]{32}\.zarr\.[0-9a-f]{8}")
_LEFT_AFTER_SECONDS = 24 * 3600

#: A younger mark may not be locked yet.
_NEW_MARK_SECONDS = 60


class InUse:
    """Mark a map as in use by this process, until :meth:`release` or the end of the process.

    The mark is a locked file next to the map, one per user, since several viewers may show one slide. The operating
    system releases the lock of a process that is killed.

    Parameters
    ----------
    path
        Folder of the map.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.lock"))
        self._lock.acquire(timeout=0)

    def release(self) -> None:
        """Release the mark."""
        self._lock.release()
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)


def is_in_use(path: Path) -> bool:
    """Return whether any process has a map open; deletes marks of killed processes."""
    return any(_is_held(mark) for mark in path.parent.glob(f"{path.stem}.*.lock"))


def prune(folder: Path, limit_bytes: float) -> None:
    """Delete the least recently used maps in ``folder`` until at most ``limit_bytes`` remain.

    Maps in use are kept, whatever their size, and so is everything that is not a cached map.
    """
    sweep(folder)
    used: dict[Path, float] = {}
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                changed = path.lstat().st_mtime
                age = time.time() - changed
                if _LOCK.fullmatch(path.name) and age > _NEW_MARK_SECONDS:
                    _is_held(path)
                elif _LEFT.fullmatch(path.name) and age > _LEFT_AFTER_SECONDS and has_only_our_files(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif MAP_NAME.fullmatch(path.name) and is_our_map(path):
                    used[path] = changed
    prune_entries(used, limit_bytes, _size, is_in_use, partial(shutil.rmtree, ignore_errors=True))


def _is_held(mark: Path) -> bool:
    """Return whether a process holds a mark; deletes a stale mark."""
    lock = FileLock(mark)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # no permission to lock it
        return True
    lock.release()
    with suppress(OSError):
        mark.unlink(missing_ok=True)
    return False


def _size(path: Path) -> int:
    """Size of a map in bytes; deletes temporary files of killed processes."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                facts = (Path(folder) / name).lstat()
                if name.endswith(".partial") and time.time() - facts.st_mtime > _LEFT_AFTER_SECONDS:
                    (Path(folder) / name).unlink()  # temporary file of a chunk that was being written
                else:
                    total += facts.st_size
    return total
