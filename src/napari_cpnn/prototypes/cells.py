"""Single cells from files: :func:`read_cells`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.errors import CellsError
from napari_cpnn.prototypes.rdata_cells import read_rdata
from napari_cpnn.spots.counts import counts_of, read_h5ad_table
from napari_cpnn.spots.tables import read_table
from napari_cpnn.spots.tenx import mtx_file, read_10x_h5, read_10x_mtx

if TYPE_CHECKING:
    from anndata import AnnData


def read_cells(path: str | Path, annotations: str | Path | None = None) -> AnnData:
    """Read single cells with their raw counts and annotations.

    Parameters
    ----------
    path
        One of: an ``.h5ad`` with raw counts in ``layers["counts"]``, ``raw`` or ``X``; a 10x ``.h5``; a folder with
        ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (prefixes and ``.gz`` allowed), or one that holds such a
        ``filtered_feature_bc_matrix``; an ``.RData`` with a SingleCellExperiment (needs ``pip install rdata``).
    annotations
        Table (``.csv``, ``.tsv``, zipped or not) whose first column is the barcode; its columns come into ``obs``.
        By default ``metadata.csv`` beside the matrix of a folder, when there is one.

    Returns
    -------
    AnnData
        ``layers["counts"]`` and ``X`` CSR int32, names of cells and genes unique. Genes that an ``.h5ad`` names by
        Ensembl ids are named by the symbols beside them, where there are; the ids are then in ``var["gene_ids"]``.

    Raises
    ------
    CellsError
        When the file is missing or of no known kind, holds no raw counts, or the annotations fit no cell.
    """
    source = Path(path)
    if not source.exists():
        raise CellsError(f"There is no file or folder {source}.")
    if source.is_dir():
        cells, source = _read_folder(source)
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
        _annotate(cells, Path(annotations))
    return cells


def _read_folder(folder: Path) -> tuple[AnnData, Path]:
    """The cells and the folder that the matrix is in."""
    for place in (folder, folder / "filtered_feature_bc_matrix"):
        if place.is_dir() and mtx_file(place) is not None:
            return read_10x_mtx(place, CellsError), place
    files = sorted(folder.glob("*filtered_feature_bc_matrix.h5"))
    if files:
        return read_10x_h5(files[0], CellsError), folder
    raise CellsError(f"The count matrix is missing: {folder} has no matrix.mtx and no filtered_feature_bc_matrix.h5.")


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
