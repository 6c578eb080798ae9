"""Check the rows of a manifest and make the table of its slides; all problems are found at once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from napari_cpnn.cohort.rows import Rows
from napari_cpnn.decimals import parse_decimal
from napari_cpnn.geometry import PLAUSIBLE_MPP, is_plausible_mpp
from napari_cpnn.texts import file_name, shown

#: Headings that are understood, lower case with "_" between words; the first that a manifest has counts.
_HEADINGS: dict[str, tuple[str, ...]] = {
    "path": ("path", "slide_path", "file", "filename", "file_name", "image"),
    "name": ("name", "slide_name", "slide_id"),
    "sample": ("sample", "sample_id"),
    "patient": ("patient", "patient_id", "case", "case_id", "donor"),
    "mpp": ("mpp", "um_per_px", "pixel_size"),
    "bulk": ("bulk", "bulk_path"),
}
_MISSING = {"", "na", "n/a", "nan", "none", "null", "#n/a", "<na>"}
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_SAME_NAME = "is also the name of row {}; give each slide a name of its own in a column 'name'"
_LONGEST = 60
#: File extensions of what stands in a manifest by mistake.
_TABLES = {".csv", ".tsv", ".xlsx", ".xls", ".h5ad", ".parquet", ".json", ".geojson", ".html", ".pdf"}


def checked(rows: Rows, folder: Path, groups: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
    """Return the table of slides, the group columns, and all problems (the table is then of no use)."""
    return _Check(rows, folder).table(groups)


class _Check:
    def __init__(self, rows: Rows, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.problems = list(rows.problems)
        self.others: list[int] = []
        self._place = self._places()

    def _places(self) -> dict[str, int]:
        """Return the position of the column of each meaning; the rest are ``others``."""
        headings = [re.sub(r"[\s\-.]+", "_", name.strip().casefold()) for name in self.rows.columns]
        if "" in headings:
            self._say("a column has no heading")
        for heading in dict.fromkeys(filter(None, headings)):
            alike = [name for name, one in zip(self.rows.columns, headings, strict=True) if one == heading]
            if len(alike) > 1:
                spelt = list(dict.fromkeys(alike))
                which = _quoted(spelt[0]) if len(spelt) == 1 else " and ".join(map(_quoted, spelt[:2]))
                self._say(f"two columns are called {which}")
        found = {
            meaning: headings.index(next(n for n in names if n in headings))
            for meaning, names in _HEADINGS.items()
            if not set(names).isdisjoint(headings)
        }
        if "slide" in headings:  # the file, or the name where another column has the file
            found.setdefault("name" if "path" in found else "path", headings.index("slide"))
        self.others = [i for i in range(len(headings)) if i not in found.values()]
        return found

    def _say(self, sentence: str, row: int | None = None) -> None:
        self.problems.append(sentence if row is None else f"row {row}: {sentence}")

    def _column(self, meaning: str) -> list[str] | None:
        place = self._place.get(meaning)
        return None if place is None else [cells[place] for cells in self.rows.cells]

    def table(self, groups: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
        empty = pd.DataFrame()
        if "path" not in self._place:
            self._say(
                f"there is no column 'slide' with the files; there are {shown(', '.join(self.rows.columns), 100)}"
            )
            return empty, (), self.problems
        if not self.rows.cells:
            self._say("there are headings but no rows")
            return empty, (), self.problems
        paths = self._files("path", "slide")
        names = self._names(paths)
        samples = self._words("sample", names)
        patients = self._words("patient", samples)
        bulk = self._files("bulk", "bulk table", required=False)
        table = pd.DataFrame(
            {"path": paths, "sample": samples, "patient": patients, "mpp": self._mpp(), "bulk": bulk},
            index=pd.Index(names, name="slide", dtype=object),
        )
        for place in self.others:
            table[self.rows.columns[place]] = _values([cells[place] for cells in self.rows.cells], table.index)
        self._written_alike("sample", samples)
        self._written_alike("patient", patients)
        self._same_within(samples, patients, "sample", "patients")
        self._same_within(samples, bulk, "sample", "bulk tables")
        kept = self._groups(groups, patients)
        self.problems.sort(key=_row_of)
        return table, kept, self.problems

    def _files(self, meaning: str, what: str, *, required: bool = True) -> list[str]:
        cells = self._column(meaning)
        if cells is None:
            return [""] * len(self.rows.cells)
        found: list[str] = []
        for row, cell in zip(self.rows.numbers, cells, strict=True):
            if cell.casefold() in _MISSING:
                found.append("")
                if required:
                    self._say(f"the {what} is missing", row)
                continue
            # links are kept: the extension may be that of the link
            path = Path(os.path.abspath(self.folder / Path(cell).expanduser()))  # noqa: PTH100
            found.append(str(path))
            if reason := _why_not_readable(path, cell) or (_why_no_slide(path, cell) if required else ""):
                self._say(reason, row)
        if required:
            self._twice(
                [os.path.normcase(os.path.realpath(p)) if p else "" for p in found], cells, "is the slide of row {}"
            )
        return found

    def _names(self, paths: list[str]) -> list[str]:
        given = self._column("name")
        names = [
            shown(cell) if cell else _name_of(path)
            for cell, path in zip(given or [""] * len(paths), paths, strict=True)
        ]
        # names become names of files, on file systems that ignore case too
        self._twice([file_name(name).casefold() if name else "" for name in names], names, _SAME_NAME)
        return names

    def _twice(self, keys: list[str], words: Sequence[str], said: str) -> None:
        first: dict[str, int] = {}
        for row, key, word in zip(self.rows.numbers, keys, words, strict=True):
            before = first.setdefault(key, row)
            if key and before != row:
                self._say(f"{_quoted(word)} {said.format(before)}", row)

    def _words(self, meaning: str, instead: list[str]) -> list[str]:
        cells = self._column(meaning)
        if cells is None:
            return list(instead)
        for row, cell in zip(self.rows.numbers, cells, strict=True):
            if cell.casefold() in _MISSING:
                self._say(f"the {meaning} is missing", row)
        return [shown(cell) for cell in cells]

    def _mpp(self) -> list[float]:
        values = []
        for row, cell in zip(self.rows.numbers, self._column("mpp") or [""] * len(self.rows.cells), strict=True):
            value = math.nan
            if cell.casefold() not in _MISSING:
                try:
                    value = parse_decimal(cell)
                except ValueError:
                    self._say(f"{_quoted(cell)} is not a pixel size in um", row)
                else:
                    if not is_plausible_mpp((value, value)):
                        low, high = PLAUSIBLE_MPP
                        self._say(f"a pixel size of {cell} um is not plausible ({low:g} to {high:g})", row)
            values.append(value)
        return values

    def _groups(self, groups: Sequence[str], patients: list[str]) -> tuple[str, ...]:
        others = [self.rows.columns[i] for i in self.others]
        for name in groups:
            if name not in others:
                self._say(f"there is no column {_quoted(name)} to compare by")
        kept = [n for n in others if n in groups or n.casefold() == "group" or n.casefold().startswith("group_")]
        for name in kept:
            place = self.rows.columns.index(name)
            cells = ["" if row[place].casefold() in _MISSING else row[place] for row in self.rows.cells]
            self._same_within(patients, cells, "patient", f"values of {_quoted(name)}")
        return tuple(kept)

    def _written_alike(self, unit: str, names: Sequence[str]) -> None:
        """Say where two names differ only in case: a patient must not become two."""
        first: dict[str, tuple[int, str]] = {}
        for row, name in zip(self.rows.numbers, names, strict=True):
            row_before, before = first.setdefault(name.casefold(), (row, name))
            if name != before:
                self._say(f"{unit} {_quoted(name)} is written {_quoted(before)} in row {row_before}", row)

    def _same_within(self, units: Sequence[str], values: Iterable[str], unit: str, what: str) -> None:
        """Say where slides of one unit (sample, patient) have two values."""
        first: dict[str, tuple[int, str]] = {}
        for row, name, value in zip(self.rows.numbers, units, values, strict=True):
            row_before, before = first.setdefault(name, (row, value))
            if name and value != before:
                pair = f"{_quoted(value) if value else 'none'} here, {_quoted(before) if before else 'none'} in row"
                self._say(f"{unit} {_quoted(name)} has two {what}: {pair} {row_before}", row)


def _why_not_readable(path: Path, cell: str) -> str:
    word = shown(cell, _LONGEST)
    try:
        if not path.exists():
            hint = "; write the path with / instead of \\" if "\\" in cell and os.sep == "/" else ""
            return f"there is no file {word}{hint}"
        if not (path.is_file() or path.is_dir()):
            return f"{word} is neither a file nor a folder"
        if not os.access(path, os.R_OK):
            return f"{word} may not be read"
    except (OSError, ValueError):
        return f"{word} is not a file name"
    return ""


def _why_no_slide(path: Path, cell: str) -> str:
    """Say why a file that can be read is certainly no slide; whether it is one is known when it is opened."""
    word = shown(cell, _LONGEST)
    if path.suffix.lower() in _TABLES:
        return f"{word} is a table, not a slide"
    try:
        if path.is_file() and not path.stat().st_size:
            return f"{word} is empty"
    except OSError:
        return f"{word} may not be read"
    return ""


def _name_of(path: str) -> str:
    """Return the name of a slide as :func:`napari_cpnn.open_slide` gives it."""
    if not path:
        return ""
    file = Path(path)
    return shown((file.name if os.path.isdir(path) else file.stem).removesuffix(".ome"))  # noqa: PTH112 -- raises nothing


def _values(cells: list[str], index: pd.Index) -> pd.Series:
    """Return a column as numbers if all cells are (and none is a code such as 007), else as text, NaN where missing."""
    missing = [cell.casefold() in _MISSING for cell in cells]
    text = pd.Series([None if none else c for c, none in zip(cells, missing, strict=True)], index, dtype=object)
    if all(missing) or any(_LEADING_ZERO.match(cell) for cell in cells):
        return text
    try:
        numbers = [math.nan if none else parse_decimal(cell) for cell, none in zip(cells, missing, strict=True)]
    except ValueError:
        return text
    whole = not any(missing) and all(number.is_integer() and abs(number) < 2**53 for number in numbers)
    return pd.Series(numbers, index).astype("int64" if whole else "float64")


def _quoted(text: str) -> str:
    return f"'{shown(text, _LONGEST)}'"


def _row_of(problem: str) -> int:
    """Return the row of a problem, 0 for those of the whole table."""
    found = re.match(r"row (\d+):", problem)
    return int(found[1]) if found else 0
