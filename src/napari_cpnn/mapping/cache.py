"""The folder of kept maps: at most so large, the map that was used longest ago goes first, never one in use.

What is deleted has our naming, our mark and nothing of anybody else's in it; whatever lies beside it stays.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_cpnn.mapping.map_layout import has_only_our_files, is_our_map
from napari_cpnn.storage import sweep

#: What a kept map is called.
MAP_NAME = re.compile(r"[0-9a-f]{32}\.zarr")
_LOCK = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.lock")
#: What earlier versions left when they were killed while they made a map, and when it goes.
_LEFT = re.compile(r"\.[0-9a-f]{32}\.zarr\.[0-9a-f]{8}")
_LEFT_AFTER_SECONDS = 24 * 3600

#: A mark that is younger may be about to be locked.
_NEW_MARK_SECONDS = 60


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
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)


def is_in_use(path: Path) -> bool:
    """Whether any program has a map open; marks of programs that were killed are taken away."""
    return any(_is_held(mark) for mark in path.parent.glob(f"{path.stem}.*.lock"))


def prune(folder: Path, limit_bytes: float) -> None:
    """Delete the maps in ``folder`` that were used longest ago, until the rest takes at most ``limit_bytes``.

    Maps in use stay, whatever their size; so does all that is not a map of ours with a name of ours.
    """
    sweep(folder)
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                age = time.time() - path.lstat().st_mtime
                if _LOCK.fullmatch(path.name) and age > _NEW_MARK_SECONDS:
                    _is_held(path)
                elif _LEFT.fullmatch(path.name) and age > _LEFT_AFTER_SECONDS and has_only_our_files(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif MAP_NAME.fullmatch(path.name) and is_our_map(path):
                    found.append((age, path))
    total = 0
    for _, path in sorted(found):
        total += _size(path)
        if total > limit_bytes and not is_in_use(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_held(mark: Path) -> bool:
    """Whether a program holds a mark; one that nobody holds is deleted."""
    lock = FileLock(mark)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # not ours to lock
        return True
    lock.release()
    with suppress(OSError):
        mark.unlink(missing_ok=True)
    return False


def _size(path: Path) -> int:
    """Bytes of a map, without what kills have left in it, which is deleted."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                facts = (Path(folder) / name).lstat()
                if name.endswith(".partial") and time.time() - facts.st_mtime > _LEFT_AFTER_SECONDS:
                    (Path(folder) / name).unlink()  # of a chunk that was being written in a kill
                else:
                    total += facts.st_size
    return total
