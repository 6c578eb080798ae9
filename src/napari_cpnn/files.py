"""Files that are written whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError


@contextmanager
def whole_file(path: Path, error: type[CpnnError] = CpnnError) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it gets its name when all went well.

    A kill at any moment leaves the old file or the new one. The folder is made where there is none.

    Parameters
    ----------
    path
        Where the file goes. Its ending is that of the temporary name too: some writers look at it.
    error
        Raised, in one sentence, when the disk cannot be written (missing, read-only, full).
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as reason:
        raise error(f"{path} could not be written: {reason.strerror or reason}.") from reason
    finally:  # also after Ctrl-C; there is nothing left to delete when all went well
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_csv(table: Any, path: str | Path, error: type[CpnnError] = CpnnError, *, index: bool = True) -> None:
    """Write a pandas table whole, in place of one that is there; ``error`` as for :func:`whole_file`."""
    with whole_file(Path(path), error) as temporary:
        table.to_csv(temporary, index=index)
