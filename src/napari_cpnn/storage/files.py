"""Atomic writing of files and folders.

All writers of the package use :func:`staged`: output has a temporary name until it is complete, interruption at any
moment leaves the old or the new version, and temporaries of killed processes are deleted by the next process that
writes into that folder (:mod:`napari_cpnn.storage.temporaries`).
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError
from napari_cpnn.storage.temporaries import old_name, remove, restored, sweep, temporary_beside
from napari_cpnn.texts import csv_text, text_of_csv
from napari_cpnn.untrusted import require_no_device, to_path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux; RENAME_SWAP of macOS has the same value


@contextmanager
def staged(path: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Context of a temporary path to write a file or folder to; it is renamed to ``path`` on success.

    Exceptions are propagated unchanged; :func:`whole_file` converts them.

    Parameters
    ----------
    path
        Destination. An existing file or folder is replaced once the new one is complete. For a symbolic link, its
        target is replaced and the link is kept.
    tidy
        Delete temporaries of killed processes in the folder; false for callers that write many files into one folder
        and do this once.

    Raises
    ------
    OSError
        If ``path`` is a device, a pipe or a socket.
    """
    path = target_of(path)
    restored(path)
    if tidy:
        sweep(path.parent)
    temporary, complete = temporary_beside(path), False
    try:
        yield temporary
        put_in_place(temporary, path)
        complete = True
    finally:  # also after Ctrl-C; on success, this is the replaced version
        remove(temporary, interrupted=not complete)


def target_of(path: Path) -> Path:
    """Resolve the destination of writing to ``path``: the end of a chain of links, or ``path`` itself.

    Raises
    ------
    OSError
        If it is a device, a pipe or a socket, or links are circular.
    """
    with suppress(FileNotFoundError):
        require_no_device(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def require_separate(
    outputs: Iterable[Path | None], inputs: Iterable[Path | None], error: type[CpnnError] = CpnnError
) -> None:
    """Refuse outputs that would overwrite an input, lie inside a Zarr input, or overwrite another output.

    Different names of one file are recognised: links, ``..``, and case if the file system ignores it.

    Parameters
    ----------
    outputs
        Files or folders to be written; ``None`` is ignored.
    inputs
        Files or folders to be read.
    error
        Exception class to raise.
    """
    results = [to_path(path, error) for path in outputs if path is not None]
    sources = [to_path(path, error) for path in inputs if path is not None]
    for number, path in enumerate(results):
        if any(_is_same(path, source) for source in sources):
            raise error(f"{path} is read by the same task; choose another name for what is written.")
        above = [Path(os.path.realpath(path)), *Path(os.path.realpath(path)).parents][1:]
        for source in sources:
            if _is_zarr(source) and any(_is_same(folder, source) for folder in above):
                raise error(f"{path} lies in {source}, which is read; choose a place outside of it.")
        for other in results[:number]:
            if _is_same(path, other):
                raise error(f"{path} is given for two results; choose a name of its own for each.")
        for other in results:
            if other is not path and any(_is_same(folder, other) for folder in above):
                raise error(f"{path} cannot be written, for {other} is to be a file; choose another name.")


def _is_same(one: Path, other: Path) -> bool:
    if os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other)):
        return True
    with suppress(OSError):  # one of them does not exist
        return one.samefile(other)
    return False


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


@contextmanager
def whole_file(path: Path, error: type[CpnnError] = CpnnError) -> Iterator[Path]:
    """Context of a temporary path to write a file to; it is renamed to ``path`` on success.

    Interruption at any moment leaves the old or the new file. The folder is created if it does not exist.

    Parameters
    ----------
    path
        Destination. The temporary name has the same extension, which some writers depend on.
    error
        Exception class raised if the disk cannot be written (missing, read-only, full) or memory is exhausted.
    """
    to_path(path, error)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with staged(path) as temporary:
            yield temporary
    except OSError as reason:
        raise error(f"{path} could not be written: {reason.strerror or reason}.") from reason
    except MemoryError as reason:
        raise error(f"{path} could not be written: it needs more memory than this computer has.") from reason


def write_csv(table: Any, path: str | Path, error: type[CpnnError] = CpnnError, *, index: bool = True) -> None:
    """Write a pandas table atomically as CSV; ``error`` as for :func:`whole_file`.

    Text that a spreadsheet would interpret as formulas is escaped by :func:`napari_cpnn.texts.csv_text`.
    """
    with whole_file(Path(path), error) as temporary:
        csv_table(table, index=index).to_csv(temporary, index=index)


def write_figure(figure: Any, path: Path, file_format: str, **options: Any) -> None:
    """Save a Matplotlib figure through memory, since Matplotlib's errors on a full disk are misleading.

    Parameters
    ----------
    figure
        A ``matplotlib.figure.Figure``.
    path
        Temporary path from :func:`staged` or similar.
    file_format
        ``png``, ``svg`` or ``pdf``.
    options
        Other arguments of ``savefig``.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file_format, **options)
    path.write_bytes(drawn.getbuffer())


def csv_table(table: Any, *, index: bool = True) -> Any:
    """Escape the names and text of a pandas table for CSV; numbers are unchanged."""
    return _with_texts(table, csv_text, index=index)


def table_of_csv(table: Any, *, index: bool = False) -> Any:
    """Invert :func:`csv_table` for a table that was read from CSV."""
    return _with_texts(table, text_of_csv, index=index)


def _with_texts(table: Any, change: Callable[[str], str], *, index: bool) -> Any:
    """Copy a table with a function applied to all text."""
    from pandas.api.types import is_numeric_dtype

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    def names(axis: Any) -> Any:
        if axis.nlevels > 1:
            axis = axis.set_levels([level.map(changed) for level in axis.levels], verify_integrity=False)
        elif not is_numeric_dtype(axis.dtype):
            axis = axis.map(changed)
        return axis.set_names([changed(name) for name in axis.names])

    table = table.copy(deep=False)
    for place, dtype in enumerate(table.dtypes):
        if not (is_numeric_dtype(dtype) or dtype.kind == "M"):
            column = table.iloc[:, place]
            table.isetitem(place, column.astype(object).map(changed))
    table.columns = names(table.columns)
    if index:
        table.index = names(table.index)
    return table


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; a replaced folder has the temporary name afterwards.

    A file is replaced by one rename. A folder cannot be renamed over another, so the two are exchanged atomically if
    the system supports it. Otherwise the old folder temporarily has a name from which
    :func:`~napari_cpnn.storage.temporaries.restored` recovers it.
    """
    is_folder = temporary.is_dir() or (path.is_dir() and not path.is_symlink())
    if not is_folder or not os.path.lexists(path):
        temporary.replace(path)
    elif not exchange(temporary, path):
        old = old_name(path)
        path.rename(old)
        try:
            temporary.replace(path)
        except BaseException:
            if not os.path.lexists(path):
                old.rename(path)
            raise
        remove(old)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths atomically; return False if the system or the file system does not support it."""
    swap = _system_exchange()
    if swap is None:
        return False
    return bool(swap(os.fsencode(one), os.fsencode(other)) == 0)


@lru_cache(maxsize=1)
def _system_exchange() -> Any:
    """Exchange function of the C library, taking two paths; None on Windows and old systems."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if platform.system() == "Linux":
            call = library.renameat2
            return lambda one, other: call(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)
        if platform.system() == "Darwin":
            call = library.renamex_np
            return lambda one, other: call(one, other, _RENAME_EXCHANGE)
    except (OSError, AttributeError, TypeError):
        pass
    return None
