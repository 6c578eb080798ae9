"""The 10x Genomics count formats: feature-barcode matrices as HDF5 and as a Matrix Market folder.

Formats: https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs (version 3 of the matrix,
Cell Ranger >= 3 and all Space Ranger) and the older one of Cell Ranger 2 (``genes`` in place of ``features``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import CpnnError
from napari_cpnn.spots.counts import as_counts, count_table
from napari_cpnn.spots.tables import READ_ERRORS, open_text

if TYPE_CHECKING:
    from anndata import AnnData

GENES = "Gene Expression"


def read_10x_h5(path: Path, error: type[CpnnError]) -> AnnData:
    """Counts of a ``*_feature_bc_matrix.h5``, ``(barcodes, genes)``; features other than genes are left out."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = _matrix_group(file, path, error)
            n_features, n_barcodes = (int(n) for n in group["shape"][:])
            parts = (group["data"][:], group["indices"][:], group["indptr"][:])
            # CSC of genes x barcodes is CSR of barcodes x genes. scipy trusts indices: a wrong one ends the process.
            matrix = sp.csr_matrix(parts, shape=(n_barcodes, n_features))
            matrix.check_format(full_check=True)
            barcodes = _texts(group["barcodes"])
            if "features" in group:
                features = group["features"]
                ids, names = _texts(features["id"]), _texts(features["name"])
                types = _texts(features["feature_type"]) if "feature_type" in features else None
            else:
                ids, names, types = _texts(group["genes"]), _texts(group["gene_names"]), None
    except (OSError, KeyError, ValueError, RuntimeError) as exc:
        raise error(f"{path} cannot be read as a 10x feature-barcode matrix ({exc}); is it complete?") from exc
    return _table(matrix, barcodes, (ids, names, types), path, error)


def _matrix_group(file: Any, path: Path, error: type[CpnnError]) -> Any:
    import h5py

    if "matrix" in file:
        return file["matrix"]
    genomes = [name for name, item in file.items() if isinstance(item, h5py.Group) and "gene_names" in item]
    if len(genomes) != 1:
        why = f"it has {len(genomes)} genomes" if genomes else "it has no group 'matrix'"
        raise error(f"{path} is not a 10x feature-barcode matrix of one genome: {why}.")
    return file[genomes[0]]


def _texts(dataset: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in dataset[:]]


def mtx_file(folder: Path) -> Path | None:
    """The one Matrix Market file of a folder, or None."""
    found = sorted([*folder.glob("*.mtx"), *folder.glob("*.mtx.gz")])
    return found[0] if found else None


def read_10x_mtx(folder: Path, error: type[CpnnError]) -> AnnData:
    """Counts of a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``), zipped or not.

    File names may carry a prefix, as those of GEO do.
    """
    import scipy.io

    matrix_path = mtx_file(folder)
    if matrix_path is None:
        raise error(f"The count matrix is missing: {folder} has no matrix.mtx or matrix.mtx.gz.")
    barcodes_path = _beside(folder, ("barcodes.tsv",), error)
    features_path = _beside(folder, ("features.tsv", "genes.tsv"), error)
    try:
        matrix = sp.csr_matrix(scipy.io.mmread(matrix_path).T)
        barcodes = [row[0] for row in _rows(barcodes_path)]
        features = _rows(features_path)
    except READ_ERRORS as exc:
        raise error(f"{folder} cannot be read as a 10x matrix folder ({exc}); is it complete?") from exc
    ids = [row[0] for row in features]
    names = [row[1] if len(row) > 1 else row[0] for row in features]
    types = [row[2] for row in features] if all(len(row) > 2 for row in features) else None
    return _table(matrix, barcodes, (ids, names, types), folder, error)


def _beside(folder: Path, names: tuple[str, ...], error: type[CpnnError]) -> Path:
    for name in names:
        found = sorted([*folder.glob(f"*{name}"), *folder.glob(f"*{name}.gz")])
        if found:
            return found[0]
    raise error(f"{folder} has a matrix but no {' or '.join(names)} beside it.")


def _rows(path: Path) -> list[list[str]]:
    """Tab-separated fields of each line, without surrounding quotes."""
    with open_text(path) as file:
        return [[field.strip('"') for field in line.rstrip("\r\n").split("\t")] for line in file if line.strip()]


def _table(
    matrix: sp.csr_matrix,
    barcodes: list[str],
    features: tuple[list[str], list[str], list[str] | None],
    path: Path,
    error: type[CpnnError],
) -> AnnData:
    ids, names, types = features
    if matrix.shape != (len(barcodes), len(ids)):
        raise error(
            f"{path} does not fit together: a matrix of {matrix.shape[0]} x {matrix.shape[1]} with "
            f"{len(barcodes)} barcodes and {len(ids)} features."
        )
    if types is not None and GENES in types:
        keep = np.array([t == GENES for t in types])
        matrix = matrix[:, keep]
        ids = [i for i, k in zip(ids, keep, strict=True) if k]
        names = [n for n, k in zip(names, keep, strict=True) if k]
    return count_table(as_counts(matrix, f"The matrix of {path}", error), barcodes, names, ids)
