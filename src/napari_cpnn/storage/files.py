"""Files and folders that are written whole or not at all.

Every writer of the package goes through :func:`staged`: what it writes has a temporary name until it is complete, a
kill at any moment leaves the old or the new, and what a killed program has left is swept by the next one that writes
in that folder (:mod:`napari_cpnn.storage.temporaries`).
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
_RENAME_EXCHANGE = 2  # Linux; RENAME_SWAP of macOS is the same number


@contextmanager
def staged(path: Path, *, tidy: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path`` to write a file or a folder to; it gets its name when all went well.

    Errors pass as they are; :func:`whole_file` makes sentences of them.

    Parameters
    ----------
    path
        Where the result goes. What is there is replaced, and stays until the new one is complete. Of a link, what it
        points to is replaced, and the link stays.
    tidy
        Sweep what killed programs have left in the folder; false for whoever writes many files into one folder, and
        sweeps that once.

    Raises
    ------
    OSError
        Nothing takes the place of a device, a pipe or a socket.
    """
    path = target_of(path)
    restored(path)
    if tidy:
        sweep(path.parent)
    temporary = temporary_beside(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:  # also after Ctrl-C; when all went well, this is what was there before
        remove(temporary)


def target_of(path: Path) -> Path:
    """Where what is written to ``path`` goes: the end of a chain of links, or ``path`` itself.

    Raises
    ------
    OSError
        There is a device, a pipe or a socket, which no file may replace; or links go around in a circle.
    """
    with suppress(FileNotFoundError):
        require_no_device(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def require_separate(
    outputs: Iterable[Path | None], inputs: Iterable[Path | None], error: type[CpnnError] = CpnnError
) -> None:
    """Refuse, before the work, what would be written over an input, into one that is Zarr, or over another result.

    Two names of one file are found to be one: links, ``..``, upper and lower case where the disk takes them for the
    same.

    Parameters
    ----------
    outputs
        Files or folders that will be written; ``None`` stands for what is not wanted.
    inputs
        Files or folders that are read.
    error
        Class of the error that is raised.
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
    with suppress(OSError):  # one of them is not there
        return one.samefile(other)
    return False


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


@contextmanager
def whole_file(path: Path, error: type[CpnnError] = CpnnError) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it gets its name when all went well.

    A kill at any moment leaves the old file or the new one. The folder is made where there is none.

    Parameters
    ----------
    path
        Where the file goes. Its ending is that of the temporary name too: some writers look at it.
    error
        Raised, in one sentence, when the disk cannot be written (missing, read-only, full) or memory is short.
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
    """Write a pandas table whole, in place of one that is there; ``error`` as for :func:`whole_file`.

    Texts that a spreadsheet would take for formulas are written as :func:`napari_cpnn.texts.csv_text` says.
    """
    with whole_file(Path(path), error) as temporary:
        csv_table(table, index=index).to_csv(temporary, index=index)


def write_figure(figure: Any, path: Path, file_format: str, **options: Any) -> None:
    """Draw a Matplotlib figure in memory, and write it: what Matplotlib raises over a full disk is not always of it.

    Parameters
    ----------
    figure
        A ``matplotlib.figure.Figure``.
    path
        The temporary name that :func:`staged` and its like give.
    file_format
        ``png``, ``svg`` or ``pdf``.
    options
        Others of ``savefig``.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file_format, **options)
    path.write_bytes(drawn.getbuffer())


def csv_table(table: Any, *, index: bool = True) -> Any:
    """A pandas table with its names and texts as they may stand in a CSV file; numbers are as they were."""
    return _with_texts(table, csv_text, index=index)


def table_of_csv(table: Any, *, index: bool = False) -> Any:
    """What :func:`csv_table` was given, of a table that was read again."""
    return _with_texts(table, text_of_csv, index=index)


def _with_texts(table: Any, change: Callable[[str], str], *, index: bool) -> Any:
    """A copy of a table with all of its texts changed."""
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
    """Give ``temporary`` the name ``path``; of two folders, what was there has the temporary name afterwards.

    A file over a file is one rename. A folder cannot be renamed over another, so the two are exchanged in one step
    where the system can do that. Where it cannot, the old folder has for a moment a name from which
    :func:`~napari_cpnn.storage.temporaries.restored` brings it back.
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
    """Exchange two names in one step; false where the system or the disk cannot do that."""
    swap = _system_exchange()
    if swap is None:
        return False
    return bool(swap(os.fsencode(one), os.fsencode(other)) == 0)


@lru_cache(maxsize=1)
def _system_exchange() -> Any:
    """The function of the C library, taking two names; none on Windows and old systems."""
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
