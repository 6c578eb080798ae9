"""Find the count matrices in a folder, and assign the other files to them.

Public archives often store the files of several runs in one folder, distinguished by a prefix (or suffix) of the
standard names: ``GSM1_A_filtered_feature_bc_matrix.h5`` with ``GSM1_A_tissue_positions_list.csv``. Barcodes are the
same in every run, so only the names tell which positions belong to which matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.counts.prefixes import SUFFIX, around, prefix_of
from napari_cpnn.counts.tenx import MTX, is_mtx, read_10x_h5, read_10x_mtx
from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.storage import open_hdf5

if TYPE_CHECKING:
    from anndata import AnnData

_USUAL = r"(?P<kind>filtered|raw)_(?P<of>feature|gene|probe)_(?P<what>bc|cell)_matri(?:x|ces)(?:_h5)?"
_H5 = re.compile(rf"(?P<prefix>.*?){_USUAL}{SUFFIX}\.h5$", re.IGNORECASE)
_FOLDER = re.compile(rf"(?P<prefix>.*?){_USUAL}{SUFFIX}$", re.IGNORECASE)
_MARKS = "_-. "
#: Words in file names that do not distinguish runs.
_OF_ANY = {"filtered", "raw", "feature", "gene", "bc", "matrix", "matrices", "count", "counts", "10x", "h5"}
#: Maximum number of files of a folder whose content is inspected.
_MOST_LOOKED_AT = 8


@dataclass(frozen=True)
class MatrixFile:
    """A count matrix in a 10x format.

    Attributes
    ----------
    path
        The ``.h5`` file, or the ``.mtx`` file of a Matrix Market matrix.
    folder
        Folder of the run, which holds the positions.
    prefix
        Text before or after the standard file name; usually empty.
    kind
        ``filtered`` or ``raw``; empty if the name does not say.
    of_cells
        Whether the rows are segmented cells of Visium HD.
    """

    path: Path
    folder: Path
    prefix: str
    kind: str = ""
    of_cells: bool = False

    @property
    def name(self) -> str:
        """Display name of the run."""
        return self.prefix or self.folder.resolve().name

    def read(self, error: type[CpnnError]) -> AnnData:
        """Read the counts."""
        return read_10x_mtx(self.path, error) if is_mtx(self.path) else read_10x_h5(self.path, error)


def matrix_at(path: Path) -> MatrixFile | None:
    """Return the matrix stored in a file, or the only one in a Matrix Market folder; None for anything else."""
    if path.is_dir():
        found = _triplets(path)
        return _of_triplet(found[0]) if len({prefix_of(MTX, file.name) for file in found}) == 1 else None
    if is_mtx(path):
        return _of_triplet(path)
    if path.suffix.lower() != ".h5":
        return None
    usual = _H5.match(path.name)
    if usual is None:
        return MatrixFile(path, path.parent, path.stem.rstrip(_MARKS))
    return MatrixFile(path, path.parent, *_said(usual))


def is_usual(path: Path) -> bool:
    """Return whether a file has Space Ranger's standard name for an ``.h5`` gene matrix, with or without a prefix."""
    usual = _H5.match(path.name)
    return usual is not None and usual["of"].lower() != "probe"


def matrices_in(folder: Path) -> list[MatrixFile]:
    """Return the matrices of all runs in a folder, preferring filtered to raw and ``.h5`` to ``.mtx``."""
    found = []
    for path in _listed(folder):
        usual = _H5.match(path.name)
        if usual and is_usual(path) and path.is_file():
            found.append(MatrixFile(path, folder, *_said(usual)))
        elif _FOLDER.match(path.name) and path.is_dir() and (inside := matrix_at(path)) is not None:
            found.append(inside)
    found += [_of_triplet(path) for path in _triplets(folder)]
    return sorted(found, key=lambda m: (m.prefix, m.kind == "raw", is_mtx(m.path), str(m.path)))


def runs_in(folder: Path, *, of_cells: bool = False) -> dict[str, MatrixFile]:
    """Return the matrix to read for each run in a folder, by prefix."""
    runs: dict[str, MatrixFile] = {}
    for matrix in matrices_in(folder):
        if matrix.of_cells == of_cells:
            runs.setdefault(matrix.prefix, matrix)
    return runs


def neighbours(matrix: MatrixFile) -> list[str]:
    """Return the prefixes of the other runs in a matrix's folder, including files with non-standard names."""
    runs = {**runs_in(matrix.folder), **runs_in(matrix.folder, of_cells=True)}
    others = [prefix for prefix in runs if prefix != matrix.prefix]
    if not matrix.prefix:
        return others
    unusual = [
        path
        for path in _listed(matrix.folder)
        if path.suffix.lower() == ".h5" and _H5.match(path.name) is None and _words(path.stem) != _words(matrix.prefix)
    ]
    return others + [path.stem for path in unusual[:_MOST_LOOKED_AT] if _is_10x(path)]


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", name.casefold()) if word and word not in _OF_ANY]


def _is_10x(path: Path) -> bool:
    """Return whether an ``.h5`` file holds a count matrix; some files of Space Ranger do not."""
    try:
        with open_hdf5(path, SpotsError) as file:
            return "barcodes" in (file.get("matrix") or ())
    except SpotsError:
        return False


def only_matrix(folder: Path, error: type[CpnnError]) -> MatrixFile | None:
    """Return the matrix to read from a folder; None if it has none.

    Raises
    ------
    CpnnError
        Raised as ``error`` if the folder holds matrices of several runs.
    """
    runs = {**runs_in(folder, of_cells=True), **runs_in(folder)}
    if len(runs) > 1:
        raise error(several_runs(folder, runs))
    return next(iter(runs.values()), None)


def several_runs(folder: Path, runs: Mapping[str, MatrixFile]) -> str:
    """Return a message that explains how to choose among the runs in a folder."""
    names = ", ".join(run.name for run in list(runs.values())[:8]) + (", ..." if len(runs) > 8 else "")
    return (
        f"{folder} holds the count matrices of {len(runs)} runs ({names}); open one of them, such as "
        f"{next(iter(runs.values())).path.name}."
    )


def _said(usual: re.Match[str]) -> tuple[str, str, bool]:
    return around(usual), usual["kind"].lower(), usual["what"].lower() == "cell"


def _triplets(folder: Path) -> list[Path]:
    """Return one Matrix Market file per prefix, preferring uncompressed files."""
    found: dict[str, Path] = {}
    for path in _listed(folder):
        if is_mtx(path) and path.is_file():
            found.setdefault(prefix_of(MTX, path.name), path)
    return list(found.values())


def _of_triplet(path: Path) -> MatrixFile:
    folder, prefix = path.parent, prefix_of(MTX, path.name)
    usual = _FOLDER.match(folder.name)
    if usual:
        outer, kind, of_cells = _said(usual)
        return MatrixFile(path, folder.parent, outer or prefix, kind, of_cells)
    return MatrixFile(path, folder, prefix)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
