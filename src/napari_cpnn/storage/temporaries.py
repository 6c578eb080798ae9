"""Names of what is not complete yet: they tell whose it is, so that what a killed program has left can be swept.

A temporary lies beside what it will become, so that a rename makes it so, and is called
``.napari-cpnn-<computer>-<process>-<its start>-<random><ending>``. As long as that process lives it is never touched.
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

#: What a program on another computer has left (a shared disk) is swept when it is older.
OLD_SECONDS = 24 * 3600.0

_MARK = r"([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}"
_TEMPORARY = re.compile(rf"\.napari-cpnn-{_MARK}(?:\.\w{{1,12}}){{0,2}}")
_OLD = re.compile(rf"\.napari-cpnn-old-([0-9a-f]{{16}})-{_MARK}")
_ENDING = re.compile(r"(?:\.\w{1,12}){0,2}\Z", re.ASCII)

#: Two readings of one process's start differ by this much when the clock was set in between.
_SAME_START_SECONDS = 2
_REMOVALS = 10


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of ``path``; the ending is the same, since some writers look at it.

    >>> temporary_beside(Path("map.ome.zarr")).name.endswith(".ome.zarr")
    True
    """
    ending = _ENDING.search(path.name)
    return path.with_name(f".napari-cpnn-{_mark()}{ending.group() if ending else ''}")


def old_name(path: Path) -> Path:
    """Where a folder waits while another takes its name; :func:`restored` finds it there."""
    return path.with_name(f".napari-cpnn-old-{_hash(path.name)}-{_mark()}")


def sweep(folder: Path) -> int:
    """Delete the temporaries in ``folder`` whose program has ended, and count them; others' files are never touched."""
    n_swept = 0
    with suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208 -- much quicker, and names are all that is needed
        for name in names:
            if not name.startswith(".napari-cpnn-"):
                continue
            if left := _TEMPORARY.fullmatch(name):
                mark, may_go = left.groups(), True
            elif left := _OLD.fullmatch(name):
                # Without what has replaced it, it is the only one there is.
                mark, may_go = left.groups()[1:], left.group(1) in map(_hash, names)
            else:
                continue
            if may_go and not _may_live(folder / name, *mark):
                remove(folder / name)
                n_swept += 1
    return n_swept


def restored(path: Path) -> Path:
    """``path``, after what stood there has its name again, in case a program was killed while it replaced it.

    Only systems that cannot exchange two folders (see :func:`napari_cpnn.storage.files.put_in_place`) ever need this.
    """
    with suppress(OSError, ValueError):
        if os.path.lexists(path):
            return path
        for old in list(path.parent.iterdir()):
            left = _OLD.fullmatch(old.name)
            if left is None or left.group(1) != _hash(path.name):
                continue
            for _ in range(20):  # its program may be about to put the new one there
                if os.path.lexists(path) or not _may_live(old, *left.groups()[1:]):
                    break
                time.sleep(0.05)
            if not os.path.lexists(path):
                old.rename(path)
    return path


def remove(path: Path) -> None:
    """Delete a file, a link or a folder of ours; nothing is raised.

    Chunks that are still on their way to a folder make it anew, for a moment.
    """
    for _ in range(_REMOVALS):
        if not os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                time.sleep(0.1)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _mark() -> str:
    return f"{_computer()}-{os.getpid()}-{_start_of(os.getpid()):.0f}-{uuid.uuid4().hex[:8]}"


def _may_live(path: Path, computer: str, process: str, start: str) -> bool:
    """Whether the program that made a temporary may still be at it."""
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
    """Eight letters for where process numbers mean the same: this computer, and in it this container."""
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
