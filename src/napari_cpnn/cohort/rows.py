"""Read manifests as tables of text, with the number of each row: CSV, TSV, Excel, and the obs of an h5ad."""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CohortError
from napari_cpnn.storage import open_hdf5
from napari_cpnn.untrusted import read_bytes, reading, require_memory

#: Largest manifest, and most columns of one: 100,000 slides with 100 columns are below.
_MAX_BYTES, _MOST_COLUMNS = 64 * 2**20, 2000
_SEPARATORS = ("\t", ";", ",")
_EXCEL = (".xlsx", ".xlsm")
_OLD_EXCEL = (".xls", ".xlsb", ".ods")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Rows:
    """The cells of a manifest as text.

    Attributes
    ----------
    columns
        Headings, as they are written.
    numbers
        Number of each row as the program that wrote the file shows it; the headings are row 1.
    cells
        One tuple per row, as long as ``columns``.
    problems
        What is wrong with single rows.
    """

    columns: tuple[str, ...]
    numbers: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...] = ()


def read_rows(path: Path) -> Rows:
    """Read a manifest by its file extension; :class:`CohortError` if it cannot be read at all."""
    if not path.is_file():
        what = "is a folder, not a table" if path.is_dir() else "does not exist"
        raise CohortError(f"The manifest {path} {what}; give a CSV, TSV, Excel or h5ad file with one row per slide.")
    suffix = path.suffix.lower()
    if suffix in _OLD_EXCEL:
        raise CohortError(f"{path} is of a format that is not read; save the table as .xlsx or as CSV UTF-8.")
    if suffix in _EXCEL:
        return _of_excel(path)
    if suffix in (".h5ad", ".h5"):
        return _of_h5ad(path)
    return _of_text(path)


def _of_text(path: Path) -> Rows:
    with reading(f"The manifest {path}", CohortError, "is it a text table?"):
        content = read_bytes(path, _MAX_BYTES, CohortError)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CohortError(
            f"{path} is not UTF-8 text (row {line}); save it again as 'CSV UTF-8', so that names with accents are kept."
        ) from error
    if "\0" in text:
        raise CohortError(f"{path} is not a text table; give a CSV, TSV, Excel or h5ad file with one row per slide.")
    with reading(f"The manifest {path}", CohortError, "is a quotation mark missing?"):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
        numbered, start = [], 1
        for cells in lines:
            numbered.append((start, cells))
            start = lines.line_num + 1
    return _rows(numbered, path)


def _separator(text: str) -> str:
    """Return the mark that is most frequent in the first line that is not empty, outside quotation marks."""
    heading = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(heading.split('"')[::2])
    return max(_SEPARATORS, key=bare.count) if any(mark in bare for mark in _SEPARATORS) else ","


def _of_excel(path: Path) -> Rows:
    try:
        import openpyxl  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise CohortError(
            f"Reading {path.name} needs openpyxl; pip install openpyxl, or save it as CSV UTF-8."
        ) from error
    with reading(f"The manifest {path}", CohortError, "is it an Excel table?"):
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            if (sheet.max_column or 0) > _MOST_COLUMNS:
                raise CohortError(f"{path} has {sheet.max_column:,} columns; is it the right table?")
            numbered = [
                (i, [_text(cell) for cell in row]) for i, row in enumerate(sheet.iter_rows(values_only=True), 1)
            ]
        finally:
            book.close()
    return _rows(numbered, path)


def _of_h5ad(path: Path) -> Rows:
    with open_hdf5(path, CohortError) as file, reading(f"The manifest {path}", CohortError, "is it a complete .h5ad?"):
        from anndata.io import read_elem

        if "obs" not in file:
            raise CohortError(f"{path} has no table obs; is it an .h5ad?")
        require_memory(
            float(sum(part.size * 16 for part in file["obs"].values() if hasattr(part, "size"))), path, CohortError
        )
        obs = read_elem(file["obs"])
        columns = [str(name) for name in obs.columns]
        cells = [[_text(cell) for cell in row] for row in obs.itertuples(index=False, name=None)]
        if not any(_is_name(name) for name in columns):
            columns, cells = ["name", *columns], [[str(n), *row] for n, row in zip(obs.index, cells, strict=True)]
    return _rows([(1, columns), *((i, row) for i, row in enumerate(cells, 2))], path)


def _is_name(column: str) -> bool:
    return column.strip().casefold() == "name"


def _text(value: Any) -> str:
    """Return a cell of a table as one would type it."""
    if value is None or value != value:  # noqa: PLR0124 -- NaN
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(" ")
    return str(value)


def _rows(numbered: Iterable[tuple[int, Sequence[str]]], path: Path) -> Rows:
    """Drop empty rows and columns, and check that each row is as long as the headings."""
    full = [(number, [str(cell).strip() for cell in cells]) for number, cells in numbered]
    full = [(number, cells) for number, cells in full if any(cells)]
    if not full:
        raise CohortError(f"{path} is empty; give a table with headings and one row per slide.")
    columns, rows, problems = full[0][1], [], []
    while columns and not columns[-1]:
        columns.pop()
    if len(columns) > _MOST_COLUMNS:
        raise CohortError(f"{path} has {len(columns):,} columns; is it the right table?")
    for number, cells in full[1:]:
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if len(cells) > len(columns):
            count = f"{len(cells)} cells, but there are {len(columns)} headings"
            problems.append(f"row {number}: {count}; is a heading or a quotation mark missing?")
        rows.append((number, tuple([*cells, *[""] * len(columns)][: len(columns)])))
    keep = [i for i, name in enumerate(columns) if name or any(cells[i] for _, cells in rows)]
    return Rows(
        tuple(columns[i] for i in keep),
        tuple(number for number, _ in rows),
        tuple(tuple(cells[i] for i in keep) for _, cells in rows),
        tuple(problems),
    )
