"""The count matrices in a folder, and which other files belong to each.

A public archive leaves the files of several runs in one folder, told apart by what stands before (or behind) their
usual names: ``GSM1_A_filtered_feature_bc_matrix.h5`` with ``GSM1_A_tissue_positions_list.csv``. Barcodes are the same
in every run, so nothing but the names tells which positions are those of a matrix.
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
#: Words that do not tell runs apart.
_OF_ANY = {"filtered", "raw", "feature", "gene", "bc", "matrix", "matrices", "count", "counts", "10x", "h5"}
#: More files of one folder are not looked into.
_MOST_LOOKED_AT = 8


@dataclass(frozen=True)
class MatrixFile:
    """A count matrix in a 10x format.

    Attributes
    ----------
    path
        The ``.h5``, or the ``.mtx`` of the three files of a Matrix Market matrix.
    folder
        Of the run, where the positions are.
    prefix
        What stands before or behind the usual name; empty for most.
    kind
        ``filtered`` or ``raw``; empty where the name does not say.
    of_cells
        Whether its rows are cells of Visium HD.
    """

    path: Path
    folder: Path
    prefix: str
    kind: str = ""
    of_cells: bool = False

    @property
    def name(self) -> str:
        """What to call its run."""
        return self.prefix or self.folder.resolve().name

    def read(self, error: type[CpnnError]) -> AnnData:
        """Its counts."""
        return read_10x_mtx(self.path, error) if is_mtx(self.path) else read_10x_h5(self.path, error)


def matrix_at(path: Path) -> MatrixFile | None:
    """The matrix that a file is, or that alone is in a folder of a Matrix Market matrix; None for anything else."""
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
    """Whether a file is named as Space Ranger names its ``.h5`` of genes, with a prefix or without."""
    usual = _H5.match(path.name)
    return usual is not None and usual["of"].lower() != "probe"


def matrices_in(folder: Path) -> list[MatrixFile]:
    """The matrices of the runs of a folder: of each run the filtered before the raw one, ``.h5`` before ``.mtx``."""
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
    """For each run of a folder, by its prefix, the matrix to read."""
    runs: dict[str, MatrixFile] = {}
    for matrix in matrices_in(folder):
        if matrix.of_cells == of_cells:
            runs.setdefault(matrix.prefix, matrix)
    return runs


def neighbours(matrix: MatrixFile) -> list[str]:
    """Prefixes of the other runs in the folder of a matrix, of other names than usual as well."""
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
    """Whether an ``.h5`` holds a count matrix; Space Ranger leaves others that do not."""
    try:
        with open_hdf5(path, SpotsError) as file:
            return "barcodes" in (file.get("matrix") or ())
    except SpotsError:
        return False


def only_matrix(folder: Path, error: type[CpnnError]) -> MatrixFile | None:
    """The matrix to read of a folder; None where there is none.

    Raises
    ------
    CpnnError
        As ``error``, when there are those of several runs.
    """
    runs = {**runs_in(folder, of_cells=True), **runs_in(folder)}
    if len(runs) > 1:
        raise error(several_runs(folder, runs))
    return next(iter(runs.values()), None)


def several_runs(folder: Path, runs: Mapping[str, MatrixFile]) -> str:
    """What to do with a folder of several runs."""
    names = ", ".join(run.name for run in list(runs.values())[:8]) + (", ..." if len(runs) > 8 else "")
    return (
        f"{folder} holds the count matrices of {len(runs)} runs ({names}); open one of them, such as "
        f"{next(iter(runs.values())).path.name}."
    )


def _said(usual: re.Match[str]) -> tuple[str, str, bool]:
    return around(usual), usual["kind"].lower(), usual["what"].lower() == "cell"


def _triplets(folder: Path) -> list[Path]:
    """Matrix Market files, one of each prefix, the unzipped first."""
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
