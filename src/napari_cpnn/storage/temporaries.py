"""Temporary names that identify their process, so that temporaries of killed processes can be deleted.

A temporary is in the folder of its destination, so that it can be renamed, and is called
``.napari-cpnn-<computer>-<process>-<its start>-<random><ending>``. It is never touched while that process is running.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

#: Age at which temporaries of another computer (on a shared disk) are deleted.
OLD_SECONDS = 24 * 3600.0

_MARK = r"([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}"
_TEMPORARY = re.compile(rf"\.napari-cpnn-{_MARK}(?:\.\w{{1,12}}){{0,2}}")
_OLD = re.compile(rf"\.napari-cpnn-old-([0-9a-f]{{16}})-{_MARK}")
_ENDING = re.compile(r"(?:\.\w{1,12}){0,2}\Z", re.ASCII)

#: Tolerance of a process's start time, in case the clock was adjusted.
_SAME_START_SECONDS = 2
_REMOVALS = 10
_LATE_WRITE_SECONDS = 0.1


def temporary_beside(path: Path) -> Path:
    """Create a temporary name in the folder of ``path``, with the same extension, which some writers depend on.

    >>> temporary_beside(Path("map.ome.zarr")).name.endswith(".ome.zarr")
    True
    """
    ending = _ENDING.search(path.name)
    return path.with_name(f".napari-cpnn-{_mark()}{ending.group() if ending else ''}")


def old_name(path: Path) -> Path:
    """Name of a folder while it is being replaced; :func:`restored` recovers it from there."""
    return path.with_name(f".napari-cpnn-old-{_hash(path.name)}-{_mark()}")


def sweep(folder: Path) -> int:
    """Delete temporaries of ended processes in ``folder`` and return their number; other files are never touched."""
    n_swept = 0
    with suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208 -- much quicker, and names are all that is needed
        for name in names:
            if not name.startswith(".napari-cpnn-"):
                continue
            if left := _TEMPORARY.fullmatch(name):
                mark, may_go = left.groups(), True
            elif left := _OLD.fullmatch(name):
                # If its replacement is missing, it is the only copy.
                mark, may_go = left.groups()[1:], left.group(1) in map(_hash, names)
            else:
                continue
            if may_go and not _may_live(folder / name, *mark):
                remove(folder / name)
                n_swept += 1
    return n_swept


def restored(path: Path) -> Path:
    """Return ``path`` after recovering its content, in case a process was killed while replacing it.

    Needed only on systems that cannot exchange two folders (see :func:`napari_cpnn.storage.files.put_in_place`).
    """
    with suppress(OSError, ValueError):
        if os.path.lexists(path):
            return path
        for old in list(path.parent.iterdir()):
            left = _OLD.fullmatch(old.name)
            if left is None or left.group(1) != _hash(path.name):
                continue
            for _ in range(20):  # its process may be about to put the new one in place
                if os.path.lexists(path) or not _may_live(old, *left.groups()[1:]):
                    break
                time.sleep(0.05)
            if not os.path.lexists(path):
                old.rename(path)
    return path


def remove(path: Path, *, interrupted: bool = False) -> None:
    """Delete a file, link or folder of ours; never raises.

    Parameters
    ----------
    path
        What to delete; it may be missing.
    interrupted
        Whether its writing was interrupted. Threads that write chunks are not reached by an interruption, and may
        recreate a folder even after it was gone; so it is looked for once more after a while.
    """
    for _ in range(_REMOVALS):
        if not os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
            if interrupted:
                time.sleep(_LATE_WRITE_SECONDS)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _mark() -> str:
    return f"{_computer()}-{os.getpid()}-{_start_of(os.getpid()):.0f}-{uuid.uuid4().hex[:8]}"


def _may_live(path: Path, computer: str, process: str, start: str) -> bool:
    """Return whether the process of a temporary may still be running."""
    if computer != _computer():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime < OLD_SECONDS
        return True
    if int(process) == os.getpid():
        return True
    import psutil

    try:
        return bool(abs(psutil.Process(int(process)).create_time() - int(start)) <= _SAME_START_SECONDS)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError, OverflowError, ValueError):
        return True


@lru_cache(maxsize=1)
def _computer() -> str:
    """Eight characters that identify the process ID namespace: this computer and container."""
    namespace = ""
    with suppress(OSError):
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116 -- not a file of anybody
    return _hash(f"{platform.node()} {namespace}")[:8]


@lru_cache(maxsize=8)
def _start_of(process: int) -> float:
    import psutil

    return float(psutil.Process(process).create_time())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
