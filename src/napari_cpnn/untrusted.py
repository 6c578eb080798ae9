"""Files that come from elsewhere: checks and guards between a parser and the user.

Every door of the package (a function that opens a file somebody gives) uses these, so that whatever a library raises
on a wrong, damaged or hostile file ends as one sentence of the :class:`~napari_cpnn.errors.CpnnError` family.
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

#: Text files larger than this are not metadata; reading them whole would only fill the memory.
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
#: How much longer than its processor time a child may take by the clock, since other programs run beside it.
_CLOCK_FACTOR = 6


@contextmanager
def reading(what: object, error: type[CpnnError], advice: str = "is it complete?") -> Iterator[None]:
    """Turn whatever a parser raises into one sentence.

    Errors of the :class:`CpnnError` family pass unchanged, as do ``KeyboardInterrupt`` and ``SystemExit``.

    Parameters
    ----------
    what
        The file, as the sentence names it. A path is looked at first: nothing is read from a device, a pipe or a
        socket, where a parser would wait for ever.
    error
        Class of the error that is raised.
    advice
        How the sentence ends.

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
    """What an exception says, as a short clause on one line.

    >>> reason_of(MemoryError())
    'it needs more memory than this computer has'
    """
    if isinstance(exc, MemoryError):
        return "it needs more memory than this computer has"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if isinstance(exc, UnicodeDecodeError):
        return f"its text is not {exc.encoding.upper()}, see byte {exc.start:,}"
    text = " ".join((str(exc.args[0]) if isinstance(exc, KeyError) and exc.args else str(exc)).split())
    text = text[:200].rstrip(".") if len(text) <= 200 else text[:197] + "..."
    name = type(exc).__name__
    return f"{name}: {text}" if text and isinstance(exc, (LookupError, TypeError, AttributeError)) else text or name


def to_path(path: str | os.PathLike[str], error: type[CpnnError]) -> Path:
    """A path at which the system can at least be asked whether something is there.

    Names that no file system takes (a NUL character, hundreds of characters) and folders that may not be looked into
    otherwise raise from the first ``exists``. A path at which nothing is passes; one at which there is neither a file
    nor a folder is refused, for whoever opened it might wait for ever.
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
    with suppress(OSError, ValueError):  # said where it is opened
        odd = odd_kind(path)
    if odd is not None:
        raise error(f"{path} is {odd}, not a file; choose a file.")


def odd_kind(path: Path) -> str | None:
    """What a path is where one may neither read nor write without waiting for somebody; ``None`` for file and folder.

    Raises
    ------
    OSError
        Nothing is there, or the system does not say what.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def require_no_device(path: Path) -> None:
    """Raise an ``OSError`` for a device, a pipe or a socket, at which whoever opens it might wait for ever."""
    odd = odd_kind(path)
    if odd is not None:
        raise OSError(errno.EINVAL, f"it is {odd}, not a file")


def read_json(path: Path, error: type[CpnnError], parse_int: Callable[[str], Any] | None = None) -> Any:
    """The content of a JSON file, gzip or not, as :func:`parse_json` takes it."""
    with reading(path, error, "is it a JSON file?"):
        content = read_bytes(path, MAX_JSON_BYTES, error)
    return parse_json(content, path, error, parse_int)


def read_bytes(path: Path, limit: int, error: type[CpnnError]) -> bytes:
    """The bytes of a file, unzipped when it is gzip whatever its name says; ``error`` for more than ``limit``."""
    _refuse_device(path, error)
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:  # little text may be anything, much of it is never zipped to less
            limit = min(limit, max(_SMALL_UNZIPPED, _MOST_UNZIPPED * os.fstat(file.fileno()).st_size))
        content = (gzip.GzipFile(fileobj=file) if zipped else file).read(limit + 1)
    if len(content) > limit:
        raise error(f"{path} is too large for a file of its kind (more than {limit / 2**20:,.0f} MB).")
    return content


def parse_json(
    content: bytes | str, what: object, error: type[CpnnError], parse_int: Callable[[str], Any] | None = None
) -> Any:
    """Parsed JSON; damaged, oddly encoded or endlessly nested text ends in one sentence.

    Parameters
    ----------
    content
        UTF-8, UTF-16 or UTF-32, with or without byte-order mark.
    what
        The file, as the sentence names it.
    parse_int
        What makes a number of digits; by default ``int``, which refuses more than some thousand of them.

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
    """Bytes that this process may still use: free memory, bounded by what limits are set for it."""
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
    """Refuse what does not fit into memory before it is allocated.

    Parameters
    ----------
    n_bytes
        What the file declares that it holds, uncompressed.
    what
        The file, as the sentence names it.
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
    """Run ``code`` in a Python process of its own, where a C library may hang or crash without harm; what it prints.

    Parameters
    ----------
    code
        Python source. It finds ``arguments`` in ``sys.argv[1:]``. What it writes to stderr when it fails ends the
        sentence, so it should raise ``SystemExit("reason")``.
    seconds
        Processor time it may take, where the system knows such a limit; several times as much by the clock, so that a
        good file is not refused on a busy computer.
    memory_mb
        Address space that it may use, where the system knows such a limit.
    """
    limits = "" if os.name == "nt" else _LIMITED.format(memory=memory_mb * 2**20, seconds=math.ceil(seconds))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Packages are found where they are found here, but never in the folder that happens to be the current one.
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
