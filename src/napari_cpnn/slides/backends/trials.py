"""Try files in a child process first, for libraries that a damaged file may make abort or hang."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from napari_cpnn.errors import SlideError
from napari_cpnn.untrusted import check_in_child

_SECONDS = 8.0


def require_readable(code: str, path: Path, *arguments: str, memory_mb: int = 1536) -> None:
    """Raise an error for a file with which a library aborts or hangs.

    Parameters
    ----------
    code
        Python source that opens ``sys.argv[1]`` and reads the corner and the middle of each level. An unchanged file is
        tried once.
    arguments
        Further ``sys.argv`` of the code.
    memory_mb
        Limit of its address space.

    Raises
    ------
    SlideError
        If the code fails.
    """
    stat = path.stat()
    _tried(code, str(path), arguments, memory_mb, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _tried(code: str, path: str, arguments: tuple[str, ...], memory_mb: int, _size: int, _mtime_ns: int) -> None:
    check_in_child(code, [path, *arguments], path, SlideError, seconds=_SECONDS, memory_mb=memory_mb)
