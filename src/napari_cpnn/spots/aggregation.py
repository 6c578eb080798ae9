"""Runs joined by ``spaceranger aggr``, whose barcodes end in the number of the library in ``aggregation.csv``.

The images and scale factors of each library are in ``spatial/<library>``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.counts import MatrixFile
from napari_cpnn.errors import SpotsError
from napari_cpnn.untrusted import read_bytes, reading

_MOST_BYTES = 2**20
_NUMBERED = re.compile(r"-(\d{1,6})$")


def libraries_of_folder(folder: Path) -> list[str]:
    """Return the names of the libraries in ``aggregation.csv``, in numerical order; empty without such a file."""
    path = folder / "aggregation.csv"
    if not path.is_file():
        return []
    text = read_bytes(path, _MOST_BYTES, SpotsError).decode("utf-8-sig", errors="replace")
    with reading(f"{path}", SpotsError, "it must be a table of libraries."):
        rows = [[field.strip() for field in row] for row in csv.reader(text.splitlines()) if any(row)]
    header = [name.casefold() for name in rows[0]] if rows else []
    at = next((header.index(name) for name in ("library_id", "sample_id") if name in header), None)
    if at is None:
        raise SpotsError(f"{path} has no column library_id, so the libraries of the run have no names.")
    names = [row[at] if at < len(row) else "" for row in rows[1:]]
    if len(set(names)) < len(names) or "" in names:
        raise SpotsError(f"{path} has a duplicate or missing library name; give each library its own library_id.")
    return names


def library_of_each(barcodes: Sequence[str], folder: Path) -> np.ndarray[Any, Any] | None:
    """Return the library of each barcode as text ``(N,)``; ``None`` if all belong to one.

    Parameters
    ----------
    barcodes
        Barcodes from the matrix of the run.
    folder
        Folder of the run.
    """
    found = [_NUMBERED.search(barcode) for barcode in barcodes]
    numbers = np.array([0 if one is None else int(one[1]) for one in found], dtype=int)
    present = np.unique(numbers)
    names = libraries_of_folder(folder)
    if len(present) < 2 and len(names) < 2:
        return None
    if names and not (present.min() >= 1 and present.max() <= len(names)):
        raise SpotsError(
            f"{folder / 'aggregation.csv'} names {len(names)} libraries, and barcodes of the matrix end in "
            f"-{present.max()}; are they from the same run?"
        )
    called = {number: names[number - 1] if names else str(number) for number in present.tolist()}
    return np.array([called[number] for number in numbers.tolist()], dtype=object)


def run_of_library(matrix: MatrixFile, library: str) -> MatrixFile | None:
    """Return the matrix with the folder of a library's images and scale factors; None if there is no such folder."""
    folder = matrix.folder / "spatial" / library
    is_inside = Path(library).name == library and library not in (".", "..")
    return replace(matrix, folder=folder, prefix="") if is_inside and folder.is_dir() else None
