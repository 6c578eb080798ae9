"""A SingleCellExperiment saved by R (``.RData``) as AnnData, through the optional package ``rdata``."""

from __future__ import annotations

import lzma
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import CellsError
from napari_cpnn.spots.counts import as_counts, count_table
from napari_cpnn.spots.tables import READ_ERRORS

if TYPE_CHECKING:
    from anndata import AnnData


def read_rdata(path: Path) -> AnnData:
    """Counts and column data of the one SingleCellExperiment (or SummarizedExperiment) in ``path``."""
    try:
        import rdata
    except ImportError as exc:
        raise CellsError(f"Reading {path} needs the package rdata: run `pip install rdata`.") from exc
    try:
        with warnings.catch_warnings():
            # rdata warns about each R class that it has no Python class for; we take their slots.
            warnings.simplefilter("ignore")
            objects = rdata.read_rda(path)
    except (*READ_ERRORS, lzma.LZMAError, NotImplementedError) as exc:
        raise CellsError(f"{path} cannot be read as R data ({exc}).") from exc
    experiments = [value for value in objects.values() if hasattr(value, "assays") and hasattr(value, "colData")]
    if len(experiments) != 1:
        raise CellsError(f"{path} holds {len(experiments)} SingleCellExperiments in place of one.")
    try:
        return _table(experiments[0], path)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise CellsError(f"{path} holds a SingleCellExperiment of an unknown layout ({exc}).") from exc


def _table(experiment: Any, path: Path) -> AnnData:
    counts = experiment.assays.data.listData["counts"]
    # dgCMatrix: compressed columns of genes x cells, which are compressed rows of cells x genes.
    parts = (np.asarray(counts.x), np.asarray(counts.i), np.asarray(counts.p))
    n_genes, n_cells = (int(n) for n in counts.Dim)
    matrix = sp.csr_matrix(parts, shape=(n_cells, n_genes))
    columns = experiment.colData
    cells = count_table(
        as_counts(matrix, f"The matrix of {path}", CellsError),
        [str(name) for name in columns.rownames],
        [str(name) for name in experiment.rowRanges.partitioning.NAMES],
    )
    for name, values in columns.listData.items():
        if len(values) == cells.n_obs:
            cells.obs[str(name)] = np.asarray(values)
    return cells
