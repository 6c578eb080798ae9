"""Hierarchy of cell types: minor types, such as CD8+ T-cells, under major types, such as T-cells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import PrototypesError, SettingsError
from napari_cpnn.texts import shown
from napari_cpnn.untrusted import reading, to_path

Level = Literal["minor", "major"]
"""Level of a hierarchy: the types of the model, or the major types above them."""

LEVELS: tuple[Level, ...] = get_args(Level)

_MOST_BYTES = 10_000_000


def as_level(level: str) -> Level:
    """Return a level; raise a :class:`SettingsError` for anything else."""
    found = next((one for one in LEVELS if one == level), None)
    if found is None:
        raise SettingsError(f"The level is {' or '.join(LEVELS)}, not {level!r}.")
    return found


def hierarchy_of(cell_types: Sequence[str], stored: Any) -> dict[str, str]:
    """Return the hierarchy of cell types from what a file says; empty if it says nothing usable of them.

    Parameters
    ----------
    stored
        Major type by minor type, as far as it is known; of a file from anybody.
    """
    if not isinstance(stored, Mapping):
        return {}
    known = {name: stored.get(name) for name in cell_types}
    found = {name: shown(major, 256) for name, major in known.items() if isinstance(major, str) and major.strip()}
    return found if any(name != major for name, major in found.items()) else {}


def checked_hierarchy(cell_types: Sequence[str], hierarchy: Mapping[str, str]) -> dict[str, str]:
    """Check a hierarchy given by the user.

    Parameters
    ----------
    cell_types
        The minor types, of which each needs a major type.
    hierarchy
        Major type by minor type; names of other types are ignored.

    Raises
    ------
    PrototypesError
        If a type has no major type.

    Examples
    --------
    >>> from napari_cpnn.palette import checked_hierarchy
    >>> checked_hierarchy(["T CD4", "T CD8"], {"T CD4": "T-cells", "T CD8": "T-cells", "B": "B-cells"})
    {'T CD4': 'T-cells', 'T CD8': 'T-cells'}
    """
    missing = [name for name in cell_types if not str(hierarchy.get(name, "")).strip()]
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise PrototypesError(
            f"The hierarchy names no major type of {', '.join(missing[:5])}{more}; give one for each cell type."
        )
    return {name: str(hierarchy[name]).strip() for name in cell_types}


def read_hierarchy(path: str | Path) -> dict[str, str]:
    r"""Read a table of minor and major types: two columns, comma, semicolon or tab between them.

    A heading with the words *minor* and *major* says which column is which; without a heading the minor type is first.

    Raises
    ------
    PrototypesError
        If the file cannot be read, a row has no two names, or a type has two major types.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_cpnn.palette import read_hierarchy
    >>> _ = Path("types.csv").write_text("major,minor\nT-cells,CD4+ T\nT-cells,CD8+ T\n")
    >>> read_hierarchy("types.csv")
    {'CD4+ T': 'T-cells', 'CD8+ T': 'T-cells'}
    """
    path = to_path(path, PrototypesError)
    with reading(f"The hierarchy {path}", PrototypesError, "it must be a table of minor and major types."):
        if path.stat().st_size > _MOST_BYTES:
            raise PrototypesError(f"The hierarchy {path} is too large for a table of cell types.")
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max("\t;,", key=text.partition("\n")[0].count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    minor, major = 0, 1
    if rows:
        heads = [cell.casefold() for cell in rows[0]]
        found = [next((i for i, head in enumerate(heads) if word in head), None) for word in LEVELS]
        if found[0] is not None and found[1] is not None and found[0] != found[1]:
            minor, major, rows = found[0], found[1], rows[1:]
    result: dict[str, str] = {}
    for row in rows:
        if len(row) <= max(minor, major) or not row[minor] or not row[major]:
            raise PrototypesError(f"The hierarchy {path} has a row without a minor and a major type: {row}.")
        if result.setdefault(row[minor], row[major]) != row[major]:
            raise PrototypesError(
                f"The hierarchy {path} has {row[minor]} under {result[row[minor]]} and under {row[major]}; keep one."
            )
    if not result:
        raise PrototypesError(f"The hierarchy {path} is empty.")
    return result


def major_types(cell_types: Iterable[str], hierarchy: Mapping[str, str]) -> tuple[str, ...]:
    """Major types of cell types, in the order in which they first occur; a type without one stands for itself."""
    return tuple(dict.fromkeys(hierarchy.get(name, name) for name in cell_types))


def membership(cell_types: Sequence[str], hierarchy: Mapping[str, str]) -> Float32Array:
    """Return 1 where a minor type belongs to a major type, ``(C, M)``, else 0; shares times it are those of majors."""
    majors = {name: i for i, name in enumerate(major_types(cell_types, hierarchy))}
    matrix = np.zeros((len(cell_types), len(majors)), dtype=np.float32)
    for row, name in enumerate(cell_types):
        matrix[row, majors[hierarchy.get(name, name)]] = 1
    return matrix
