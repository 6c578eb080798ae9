"""Checks and error handling for files from untrusted sources.

All functions that open user-provided files use these, so that any exception of a library on a wrong, damaged or
malicious file is converted to a :class:`~napari_cpnn.errors.CpnnError` with a message of one sentence.
"""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError

#: Maximum size of text files with metadata; larger files are not read.
MAX_JSON_BYTES = 512 * 2**20

_SMALL_UNZIPPED, _MOST_UNZIPPED = 64 * 2**20, 20
_MEMORY_SHARE = 0.8
_LIMITED = """
import resource, sys
def limit(kind, value):
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    except (ValueError, OSError):  # macOS knows no limit of address space
        pass
limit(resource.RLIMIT_CORE, 0)
limit(resource.RLIMIT_AS, {memory})
limit(resource.RLIMIT_CPU, {seconds})
"""
#: Ratio of wall time limit to CPU time limit of a child, since other programs run concurrently.
_CLOCK_FACTOR = 6


@contextmanager
def reading(what: object, error: type[CpnnError], advice: str = "is it complete?") -> Iterator[None]:
    """Convert exceptions of a parser to ``error``, with a message of one sentence.

    Errors of the :class:`CpnnError` family pass unchanged, as do ``KeyboardInterrupt`` and ``SystemExit``.

    Parameters
    ----------
    what
        Name of the file in the message. A path is checked first: devices, pipes and sockets are refused, since a parser
        might block forever.
    error
        Exception class to raise.
    advice
        End of the message.

    Examples
    --------
    >>> from napari_cpnn.errors import SpotsError
    >>> with reading("spots.json", SpotsError):
    ...     raise KeyError("tissue_hires_scalef")
    Traceback (most recent call last):
    napari_cpnn.errors.SpotsError: spots.json cannot be read (KeyError: tissue_hires_scalef); is it complete?
    """
    if isinstance(what, Path):
        _refuse_device(what, error)
    try:
        yield
    except CpnnError:
        raise
    except Exception as exc:
        raise error(f"{what} cannot be read ({reason_of(exc)}); {advice}") from exc


def reason_of(exc: BaseException) -> str:
    """Describe an exception as a short clause on one line.

    >>> reason_of(MemoryError())
    'it needs more memory than this computer has'
    """
    if isinstance(exc, MemoryError):
        return "it needs more memory than this computer has"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if isinstance(exc, TimeoutError) and not str(exc):
        return "it took too long"
    if isinstance(exc, UnicodeDecodeError):
        return f"its text is not {exc.encoding.upper()}, see byte {exc.start:,}"
    text = " ".join((str(exc.args[0]) if isinstance(exc, KeyError) and exc.args else str(exc)).split())
    text = text[:200].rstrip(".") if len(text) <= 200 else text[:197] + "..."
    name = type(exc).__name__
    return f"{name}: {text}" if text and isinstance(exc, (LookupError, TypeError, AttributeError)) else text or name


def to_path(path: str | os.PathLike[str], error: type[CpnnError]) -> Path:
    """Convert to a path whose existence can be checked without errors.

    Names that no file system accepts (a NUL character, hundreds of characters) and folders without read permission
    would otherwise raise from ``exists``. A nonexistent path is accepted; one that is neither a file nor a folder is
    refused, since opening it might block forever.
    """
    found = Path(path)
    try:
        os.stat(found)  # noqa: PTH116 -- Path.exists hides some of the errors that are asked for here
    except (FileNotFoundError, NotADirectoryError):
        return found
    except ValueError as exc:
        raise error(f"{str(found)[:80]!r} is not a file name ({exc}).") from exc
    except OSError as exc:
        name = str(found) if len(str(found)) <= 200 else f"{str(found)[:120]}..."
        raise error(f"{name} cannot be opened: {exc.strerror or exc}.") from exc
    _refuse_device(found, error)
    return found


def _refuse_device(path: Path, error: type[CpnnError]) -> None:
    odd = None
    with suppress(OSError, ValueError):  # reported when it is opened
        odd = odd_kind(path)
    if odd is not None:
        raise error(f"{path} is {odd}, not a file; choose a file.")


def odd_kind(path: Path) -> str | None:
    """Kind of a path that may block on reading or writing (device, pipe, socket); ``None`` for file and folder.

    Raises
    ------
    OSError
        If nothing is there, or it cannot be determined.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def require_no_device(path: Path) -> None:
    """Raise an ``OSError`` for a device, a pipe or a socket, since opening it might block forever."""
    odd = odd_kind(path)
    if odd is not None:
        raise OSError(errno.EINVAL, f"it is {odd}, not a file")


def read_json(path: Path, error: type[CpnnError], parse_int: Callable[[str], Any] | None = None) -> Any:
    """Read a JSON file, gzip-compressed or not; arguments as for :func:`parse_json`."""
    with reading(path, error, "is it a JSON file?"):
        content = read_bytes(path, MAX_JSON_BYTES, error)
    return parse_json(content, path, error, parse_int)


def read_bytes(path: Path, limit: int, error: type[CpnnError]) -> bytes:
    """Read the bytes of a file, decompressed if it is gzip by content; ``error`` if longer than ``limit``."""
    _refuse_device(path, error)
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:  # small text may compress to any ratio, large text never beyond this
            limit = min(limit, max(_SMALL_UNZIPPED, _MOST_UNZIPPED * os.fstat(file.fileno()).st_size))
        content = (gzip.GzipFile(fileobj=file) if zipped else file).read(limit + 1)
    if len(content) > limit:
        raise error(f"{path} is too large for a file of its kind (more than {limit / 2**20:,.0f} MB).")
    return content


def is_end_of_program(error: BaseException) -> bool:
    """Return whether a thread failed only because Python is ending while it works; nobody needs to be told.

    >>> is_end_of_program(RuntimeError("cannot schedule new futures after interpreter shutdown"))
    True
    """
    return isinstance(error, RuntimeError) and "cannot schedule new futures after" in str(error)


def parse_json(
    content: bytes | str, what: object, error: type[CpnnError], parse_int: Callable[[str], Any] | None = None
) -> Any:
    """Parse JSON; raise ``error`` for damaged, wrongly encoded or too deeply nested text.

    Parameters
    ----------
    content
        UTF-8, UTF-16 or UTF-32, with or without byte-order mark.
    what
        Name of the file in the message.
    parse_int
        Converter of integers; by default ``int``, which refuses more than some thousand digits.

    Examples
    --------
    >>> from napari_cpnn.errors import SpotsError
    >>> parse_json(b"[" * 100_000, "a.json", SpotsError)
    Traceback (most recent call last):
    napari_cpnn.errors.SpotsError: a.json cannot be read (it is nested too deeply); is it a JSON file?
    """
    with reading(what, error, "is it a JSON file?"):
        if isinstance(content, bytes):
            content = content.decode(json.detect_encoding(content))
        return json.loads(content, parse_int=parse_int)


def available_memory() -> int:
    """Memory in bytes that this process may still use: free memory, bounded by resource limits."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        import resource
    except ImportError:  # Windows
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - int(psutil.Process().memory_info().vms)))


def require_memory(n_bytes: float, what: object, error: type[CpnnError]) -> None:
    """Raise ``error`` before allocating data that does not fit into memory.

    Parameters
    ----------
    n_bytes
        Uncompressed size declared by the file.
    what
        Name of the file in the message.
    """
    if n_bytes > _MEMORY_SHARE * available_memory():
        raise error(
            f"{what} says that it holds {n_bytes / 2**30:,.1f} GB, more than this computer has memory for; is the "
            "file damaged?"
        )


def check_in_child(
    code: str,
    arguments: Sequence[str],
    what: object,
    error: type[CpnnError],
    *,
    seconds: float = 5,
    memory_mb: int = 2048,
) -> str:
    """Run ``code`` in a child process, where a C library may safely hang or crash; return its output.

    Parameters
    ----------
    code
        Python source; ``arguments`` are in ``sys.argv[1:]``. Its stderr output on failure becomes part of the message,
        so it should raise ``SystemExit("reason")``.
    seconds
        Limit of CPU time, if supported by the system; the limit of wall time is several times larger, so that valid
        files are not refused on a busy computer.
    memory_mb
        Limit of address space, if supported by the system.
    """
    limits = "" if os.name == "nt" else _LIMITED.format(memory=memory_mb * 2**20, seconds=math.ceil(seconds))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Use the import path of this process, but never the current directory.
    places = f"import sys\nsys.path[:] = {[place for place in sys.path if place]!r}\n"
    too_slow = f"{what} cannot be read: its headers could not be made out in {seconds:g} s; it is damaged."
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter and code; only the file's name comes from outside
            [sys.executable, "-I", "-c", places + limits + code, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds * (1 if os.name == "nt" else _CLOCK_FACTOR),
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as exc:
        raise error(too_slow) from exc
    if done.returncode == -getattr(signal, "SIGXCPU", math.inf):
        raise error(too_slow)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1][:200] if said and done.returncode > 0 else "reading its headers ended the process"
        raise error(f"{what} cannot be read ({reason}); it is damaged.")
    return done.stdout
