"""Read single cells from files with :func:`read_cells`."""

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

#: Number of cells examined to decide whether a matrix on disk holds counts.
_LOOKED_AT = 1000


def read_cells(path: str | Path, annotations: str | Path | None = None, backed: bool = False) -> AnnData:
    """Read single cells with their raw counts and annotations.

    Parameters
    ----------
    path
        One of: an ``.h5ad`` with raw counts in ``layers["counts"]``, ``raw`` or ``X``; a 10x ``.h5``; a folder with
        ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (prefixes and ``.gz`` allowed; if there are several sets,
        name one matrix), or with a ``filtered_feature_bc_matrix`` folder of these; an ``.RData`` with a
        SingleCellExperiment (requires ``pip install rdata``).
    annotations
        Table (``.csv``, ``.tsv``, gzipped or not) with barcodes in the first column; the other columns are added to
        ``obs``. By default ``metadata.csv`` next to the matrix in a folder, if present.
    backed
        Leave the counts of an ``.h5ad`` on disk, for references that do not fit into memory. The file stays open as
        long as the table exists.

    Returns
    -------
    AnnData
        ``layers["counts"]`` and ``X`` CSR int32, unique cell and gene names. If ``backed``, only ``layers["counts"]``,
        as stored in the file: the first rows are checked now, the others when they are read. If an ``.h5ad`` names
        genes by Ensembl ids, they are renamed to their symbols where available, and the ids are in ``var["gene_ids"]``.

    Raises
    ------
    CellsError
        If the file is missing or of unknown kind, holds no raw counts, or the annotations match no cell.

    Examples
    --------
    >>> cells = nc.read_cells(folder / "cells.h5ad")
    >>> cells.shape, sorted(cells.layers)
    ((3029, 2000), ['counts'])
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
        raise CellsError(f"{source} has an unknown format; give a .h5ad, a 10x .h5, a 10x matrix folder or an .RData.")
    beside = source / "metadata.csv"
    if annotations is None and source.is_dir() and beside.is_file():
        annotations = beside
    if annotations is not None:
        _annotate(cells, annotations)
    return cells


def open_cells(path: str | Path, annotations: str | Path | None = None) -> AnnData:
    """Read single cells as :func:`read_cells`, leaving the counts of an ``.h5ad`` on disk if possible.

    Counts stored by genes (CSC) are read into memory instead.
    """
    source = to_path(path, CellsError)
    if source.suffix.lower() == ".h5ad" and source.is_file():
        check_hdf5(source, CellsError)
        with suppress(CellsError):  # other errors in the file are raised below
            return read_cells(source, annotations, backed=True)
    return read_cells(source, annotations)


def _on_disk(path: Path) -> AnnData:
    """Return obs and var of an ``.h5ad``, with the first matrix that holds counts left on disk."""
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
                raise CellsError(f"{path} was written by anndata before 0.7; its counts cannot stay on disk.")
            obs, var = read_elem(file["obs"]), read_elem(file[genes])
            break
        refusals.append(f"{place}: {wrong}")
    else:
        why = "; ".join(refusals) or "there is no matrix"
        raise CellsError(f'{path} holds no raw counts ({why}); put them into layers["counts"].')
    if (len(obs), len(var)) != tuple(matrix.shape):
        raise CellsError(
            f"{path} is inconsistent: {place} of {matrix.shape[0]} x {matrix.shape[1]} with {len(obs)} cells and "
            f"{len(var)} genes; is it complete?"
        )
    ids = [str(name) for name in var.index]
    symbols = symbols_beside(ids, {str(name): var[name] for name in var.columns})
    if symbols:
        var["gene_ids"] = ids
    obs.index, var.index = unique_names(obs.index), unique_names(symbols or ids)
    return Table(obs=obs, var=var, layers={"counts": matrix})


def _why_not_counts(matrix: Any, path: Path) -> str | None:
    """Check the first rows of a matrix on disk; matrices stored by genes are not read."""
    if len(matrix.shape) != 2:
        return f"it has {len(matrix.shape)} axes instead of two"
    if getattr(matrix, "format", "csr") != "csr":
        return "it is stored by genes (CSC), which cannot be read by cells"
    rows = rows_at_once(matrix, _LOOKED_AT)
    return why_not_counts(csr_of(matrix[:rows], str(path), CellsError).data)


def _read_folder(folder: Path) -> tuple[AnnData, Path]:
    """Return the cells, and the folder of the matrix."""
    found = only_matrix(folder, CellsError)
    if found is not None and found.kind == "raw":
        raise CellsError(f"{folder} has only the raw matrix with all barcodes; to read it, open {found.path}.")
    if found is None:
        raise CellsError(
            f"The count matrix is missing: {folder} has no matrix.mtx and no filtered_feature_bc_matrix.h5."
        )
    return found.read(CellsError), found.path.parent


def _annotate(cells: AnnData, path: Path) -> None:
    """Join the columns of a table to ``obs``; cells missing from the table get missing values."""
    table = read_table(path, "table of annotations", CellsError, index_col=0)
    table.index = table.index.astype(str)
    if table.index.has_duplicates:
        raise CellsError(f"{path} has duplicate cells; its first column must be the barcode.")
    if not cells.obs_names.isin(table.index).any():
        raise CellsError(
            f"{path} contains none of the cells: for instance {', '.join(table.index[:1])} versus "
            f"{cells.obs_names[0]}; its first column must be the barcode."
        )
    cells.obs = cells.obs.drop(columns=table.columns, errors="ignore").join(table)
