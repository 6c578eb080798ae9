"""Single cells from files: :func:`read_cells`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cpnn.counts import (
    counts_of,
    csr_of,
    is_mtx,
    only_matrix,
    read_10x_h5,
    read_10x_mtx,
    read_h5ad_table,
    read_table,
    symbols_beside,
    unique_names,
    why_not_counts,
)
from napari_cpnn.errors import CellsError
from napari_cpnn.prototypes.rdata_cells import read_rdata
from napari_cpnn.prototypes.statistics import rows_at_once
from napari_cpnn.storage import check_hdf5
from napari_cpnn.untrusted import reading, to_path

if TYPE_CHECKING:
    from anndata import AnnData

#: Cells by which a matrix on disk is told to hold counts.
_LOOKED_AT = 1000


def read_cells(path: str | Path, annotations: str | Path | None = None, backed: bool = False) -> AnnData:
    """Read single cells with their raw counts and annotations.

    Parameters
    ----------
    path
        One of: an ``.h5ad`` with raw counts in ``layers["counts"]``, ``raw`` or ``X``; a 10x ``.h5``; a folder with
        ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (prefixes and ``.gz`` allowed; of several such sets one
        matrix is named), or one that holds such a ``filtered_feature_bc_matrix``; an ``.RData`` with a
        SingleCellExperiment (needs ``pip install rdata``).
    annotations
        Table (``.csv``, ``.tsv``, zipped or not) whose first column is the barcode; its columns come into ``obs``.
        By default ``metadata.csv`` beside the matrix of a folder, when there is one.
    backed
        Leave the counts of an ``.h5ad`` on disk, for references that do not fit into memory. The file stays open as
        long as the table lives.

    Returns
    -------
    AnnData
        ``layers["counts"]`` and ``X`` CSR int32, names of cells and genes unique; when ``backed``, ``layers["counts"]``
        only, as it is in the file: its first rows are checked now, the others when they are read. Genes that an
        ``.h5ad`` names by Ensembl ids are named by the symbols beside them, where there are; the ids are then in
        ``var["gene_ids"]``.

    Raises
    ------
    CellsError
        When the file is missing or of no known kind, holds no raw counts, or the annotations fit no cell.
    """
    source = to_path(path, CellsError)
    if not source.exists():
        raise CellsError(f"There is no file or folder {source}.")
    with reading(source, CellsError):
        return _read(source, None if annotations is None else to_path(annotations, CellsError), backed)


def _read(source: Path, annotations: Path | None, backed: bool) -> AnnData:
    if source.is_dir():
        cells, source = _read_folder(source)
    elif backed:
        cells = _on_disk(source)
    elif is_mtx(source):
        cells = read_10x_mtx(source, CellsError)
    elif source.suffix.lower() == ".h5ad":
        cells = counts_of(read_h5ad_table(source, CellsError), str(source), CellsError)
    elif source.suffix.lower() == ".h5":
        cells = read_10x_h5(source, CellsError)
    elif source.suffix.lower() in (".rdata", ".rda"):
        cells = read_rdata(source)
    else:
        raise CellsError(f"{source} is of no known kind; give a .h5ad, a 10x .h5, a 10x matrix folder or an .RData.")
    beside = source / "metadata.csv"
    if annotations is None and source.is_dir() and beside.is_file():
        annotations = beside
    if annotations is not None:
        _annotate(cells, annotations)
    return cells


def open_cells(path: str | Path, annotations: str | Path | None = None) -> AnnData:
    """Single cells as :func:`read_cells` gives them, the counts of an ``.h5ad`` left on disk where that is possible.

    It is not when they are stored by genes (CSC): then they are read into memory.
    """
    source = to_path(path, CellsError)
    if source.suffix.lower() == ".h5ad" and source.is_file():
        check_hdf5(source, CellsError)
        with suppress(CellsError):  # what is wrong with it besides is said below
            return read_cells(source, annotations, backed=True)
    return read_cells(source, annotations)


def _on_disk(path: Path) -> AnnData:
    """Obs and var of an ``.h5ad``, with the first matrix in it that holds counts left on disk."""
    import h5py
    from anndata import AnnData as Table
    from anndata.io import read_elem, sparse_dataset

    if path.suffix.lower() != ".h5ad":
        raise CellsError(f"{path} cannot stay on disk; only the counts of an .h5ad can.")
    check_hdf5(path, CellsError)
    file = h5py.File(path, "r")
    refusals = []
    for place, genes in (("layers/counts", "var"), ("raw/X", "raw/var"), ("X", "var")):
        if place not in file:
            continue
        matrix = file[place] if isinstance(file[place], h5py.Dataset) else sparse_dataset(file[place])
        wrong = _why_not_counts(matrix, path)
        if wrong is None:
            if any(isinstance(file[part], h5py.Dataset) for part in ("obs", genes)):
                raise CellsError(f"{path} was written by an anndata before 0.7, whose counts cannot stay on disk.")
            obs, var = read_elem(file["obs"]), read_elem(file[genes])
            break
        refusals.append(f"{place}: {wrong}")
    else:
        why = "; ".join(refusals) or "there is no matrix"
        raise CellsError(f'{path} holds no raw counts ({why}); put them into layers["counts"].')
    if (len(obs), len(var)) != tuple(matrix.shape):
        raise CellsError(
            f"{path} does not fit together: {place} of {matrix.shape[0]} x {matrix.shape[1]} with {len(obs)} cells and "
            f"{len(var)} genes; is it complete?"
        )
    ids = [str(name) for name in var.index]
    symbols = symbols_beside(ids, {str(name): var[name] for name in var.columns})
    if symbols:
        var["gene_ids"] = ids
    obs.index, var.index = unique_names(obs.index), unique_names(symbols or ids)
    return Table(obs=obs, var=var, layers={"counts": matrix})


def _why_not_counts(matrix: Any, path: Path) -> str | None:
    """By the first rows of a matrix on disk; nothing is read of one that is stored by genes."""
    if len(matrix.shape) != 2:
        return f"it has {len(matrix.shape)} axes in place of two"
    if getattr(matrix, "format", "csr") != "csr":
        return "it is stored by genes (CSC), which cannot be read by cells"
    rows = rows_at_once(matrix, _LOOKED_AT)
    return why_not_counts(csr_of(matrix[:rows], str(path), CellsError).data)


def _read_folder(folder: Path) -> tuple[AnnData, Path]:
    """The cells and the folder that the matrix is in."""
    found = only_matrix(folder, CellsError)
    if found is not None and found.kind == "raw":
        raise CellsError(f"{folder} has no matrix but the raw one, of all barcodes; to read it, open {found.path}.")
    if found is None:
        raise CellsError(
            f"The count matrix is missing: {folder} has no matrix.mtx and no filtered_feature_bc_matrix.h5."
        )
    return found.read(CellsError), found.path.parent


def _annotate(cells: AnnData, path: Path) -> None:
    """Join the columns of a table to ``obs``; cells that it does not name get missing values."""
    table = read_table(path, "table of annotations", CellsError, index_col=0)
    table.index = table.index.astype(str)
    if table.index.has_duplicates:
        raise CellsError(f"{path} names a cell twice; its first column must be the barcode.")
    if not cells.obs_names.isin(table.index).any():
        raise CellsError(
            f"{path} names none of the cells: for instance {', '.join(table.index[:1])} against {cells.obs_names[0]}; "
            "its first column must be the barcode."
        )
    cells.obs = cells.obs.drop(columns=table.columns, errors="ignore").join(table)
