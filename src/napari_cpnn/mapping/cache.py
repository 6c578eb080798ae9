"""The folder of kept maps: at most so large, the map that was used longest ago goes first, never one in use."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

#: What a program that was killed while it made a map has left is deleted when it is older.
_LEFT_AFTER_SECONDS = 24 * 3600


class InUse:
    """Marks a map as being in use by this program, until :meth:`release` or the end of the program.

    The mark is a locked file beside the map, one for each user of it, since several viewers may show one slide. The
    system takes the lock from a program that is killed.

    Parameters
    ----------
    path
        Folder of the map.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.lock"))
        self._lock.acquire(timeout=0)

    def release(self) -> None:
        """The map is no longer needed."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def is_in_use(path: Path) -> bool:
    """Whether any program has a map open; marks of programs that were killed are taken away."""
    for mark in path.parent.glob(f"{path.stem}.*.lock"):
        lock = FileLock(mark)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        mark.unlink(missing_ok=True)
    return False


def prune(folder: Path, limit_bytes: float) -> None:
    """Delete the maps in ``folder`` that were used longest ago, until the rest takes at most ``limit_bytes``.

    Maps in use stay, whatever their size.
    """
    for left in folder.glob(".*.zarr.*"):  # of a program that was killed while it made a store
        if time.time() - left.stat().st_mtime > _LEFT_AFTER_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    total = 0
    for store in sorted(folder.glob("*.zarr"), key=lambda p: p.stat().st_mtime, reverse=True):
        total += sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
        if total > limit_bytes and not is_in_use(store):
            shutil.rmtree(store, ignore_errors=True)
