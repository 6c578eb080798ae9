"""Raw counts: validation, lookup in an AnnData, and conversion to count tables.

Used for both spots and single cells; ``error`` is the exception class to raise.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.counts.genes import symbols_beside
from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import check_hdf5
from napari_cpnn.untrusted import reading, require_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from anndata import AnnData

_log = logging.getLogger(__name__)

#: Non-integer data with a maximum below this is assumed to be log-transformed.
_LOG_LIMIT = 20.0


def as_counts(matrix: Any, owner: str, error: type[CpnnError]) -> sp.csr_matrix:
    """Convert a matrix of raw counts to int32 CSR without explicit zeros.

    Parameters
    ----------
    matrix
        Dense or sparse, any number type, ``(observations, genes)``.
    owner
        Description of the matrix for error messages, such as ``"The matrix of C4.h5ad"``.
    error
        Exception class raised if a value is NaN, negative or not a whole number.
    """
    csr = csr_of(matrix, owner, error)
    wrong = why_not_counts(csr.data)
    if wrong:
        raise error(f"{owner} does not hold raw counts ({wrong}); provide unnormalised counts.")
    total = csr.data.sum(dtype=np.float64)  # exact for whole numbers
    csr = csr.astype(np.int32)
    csr.sum_duplicates()
    if csr.data.sum(dtype=np.float64) != total:  # int32 overflow
        raise error(f"{owner} has duplicate entries whose sum is too large for a count; get the file again.")
    csr.eliminate_zeros()
    return csr


def csr_of(matrix: Any, owner: str, error: type[CpnnError]) -> sp.csr_matrix:
    """Convert to CSR after validating the indices, which scipy trusts: an invalid one crashes the process."""
    with reading(owner, error, "it is damaged or not numeric; get the file again."):
        require_sound(matrix, owner, error)
        return sp.csr_matrix(matrix)


def require_sound(matrix: Any, owner: str, error: type[CpnnError]) -> None:
    """Raise ``error`` if the indices of a compressed sparse matrix are invalid; other matrices pass.

    scipy's own ``check_format`` accepts a matrix whose last pointer is 0.
    """
    if not sp.issparse(matrix) or matrix.format not in ("csr", "csc"):
        return
    pointers, indices = np.asarray(matrix.indptr), np.asarray(matrix.indices)
    across = matrix.shape[1 if matrix.format == "csr" else 0]
    if (
        pointers.size == 0
        or pointers[0] != 0
        or pointers[-1] != indices.size
        or indices.size != np.size(matrix.data)
        or (pointers[1:] < pointers[:-1]).any()
    ):
        raise error(f"{owner} is damaged (its index pointers do not match its values); get the file again.")
    if indices.size and (indices.min() < 0 or indices.max() >= across):
        raise error(f"{owner} is damaged (an index is outside its range of {across:,}); get the file again.")


def why_not_counts(values: np.ndarray[Any, Any]) -> str | None:
    """Describe why ``values`` are not counts, as the end of a sentence; None if they are counts."""
    if values.dtype.kind == "b" or values.size == 0:
        return None
    if values.dtype.kind not in "iuf":
        return f"values of type {values.dtype}"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "there are missing or infinite values"
    if values.min() < 0:
        return f"the smallest value is {values.min():g}"
    if values.dtype.kind == "f":
        fractional = values[values != np.rint(values)]
        if fractional.size:
            # log1p of counts per 10,000 is at most 9.2, of counts per million 13.8; scaled counts are much larger.
            kind = "log-transformed" if 1 < values.max() < _LOG_LIMIT else "normalised"
            return f"it has fractional values, such as {fractional[0]:.4g}, up to {values.max():.4g}, so it is {kind}"
    return f"the largest value is {values.max()}" if values.max() > np.iinfo(np.int32).max else None


def counts_of(adata: AnnData, owner: str, error: type[CpnnError]) -> AnnData:
    """Return a new AnnData with the raw counts of ``adata`` in ``layers["counts"]`` and ``X``.

    ``layers["counts"]`` is used if present (and must then hold counts); otherwise the first of ``raw`` and ``X`` that
    holds whole numbers. ``obs``, ``obsm`` and ``uns`` are kept, and ``var`` is that of the chosen matrix. Genes named
    by Ensembl ids are renamed to their symbols where available, with the ids in ``var["gene_ids"]``.
    """
    refusals = []
    for place, matrix, var in _candidates(adata):
        wrong = why_not_counts(csr_of(matrix, owner, error).data)
        if wrong is None:
            ids = [str(name) for name in var.index]
            symbols = symbols_beside(ids, {str(name): var[name] for name in var.columns})
            found = count_table(as_counts(matrix, owner, error), list(adata.obs_names), symbols or ids)
            found.var = var.set_axis(found.var_names, axis=0)
            if symbols:
                found.var["gene_ids"] = ids
                _log.info("%s: genes are named by Ensembl ids; the symbols stored with them are used", owner)
            found.obs = adata.obs.set_axis(found.obs_names, axis=0)
            found.uns = dict(adata.uns)
            for name, values in adata.obsm.items():
                found.obsm[name] = values
            return found
        refusals.append(f"{place}: {wrong}")
        if place == 'layers["counts"]':
            break
    seen = "; ".join(refusals) or "there is no matrix"
    raise error(f'{owner} holds no raw counts ({seen}); put them into layers["counts"].')


def _candidates(adata: AnnData) -> Iterator[tuple[str, Any, Any]]:
    if "counts" in adata.layers:
        yield 'layers["counts"]', adata.layers["counts"], adata.var
    if adata.raw is not None:
        yield "raw", adata.raw.X, adata.raw.var
    if adata.X is not None:
        yield "X", adata.X, adata.var


def count_table(
    counts: sp.csr_matrix, names: Sequence[str], genes: Sequence[str], gene_ids: Sequence[str] | None = None
) -> AnnData:
    """Return an AnnData of raw counts in ``X`` and ``layers["counts"]``, with unique names."""
    import pandas as pd
    from anndata import AnnData as Table

    var = pd.DataFrame(index=unique_names(genes))
    if gene_ids is not None:
        var["gene_ids"] = list(gene_ids)
    obs = pd.DataFrame(index=unique_names(names))
    return Table(X=counts, obs=obs, var=var, layers={"counts": counts.copy()})


def unique_names(names: Sequence[str]) -> pd.Index[str]:
    """Return names as an index without duplicates.

    The first of equal names is kept and the others get ``-1``, ``-2``, ... as in scanpy. Two gene ids may share a
    symbol (ten do in every 10x human reference); summing their counts would hide that.
    """
    import pandas as pd
    from anndata.utils import make_index_unique

    index = pd.Index([str(name) for name in names], dtype=object)
    twice = int(index.duplicated().sum())
    if not twice:
        return index
    _log.info(
        "%d names occur more than once, such as %s; the later ones got -1, -2, ...", twice, index[index.duplicated()][0]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # about names that already end in such a suffix
        unique: pd.Index[str] = make_index_unique(index)
    return unique


def read_h5ad_table(path: Path, error: type[CpnnError]) -> AnnData:
    """Read an ``.h5ad`` unchanged after validating its sparse matrices; names may not be unique."""
    require_memory(check_hdf5(path, error), path, error)
    with reading(path, error, "is it a complete .h5ad?"):
        from anndata import AnnData as Table
        from anndata import OldFormatWarning, read_h5ad

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)
            warnings.filterwarnings("ignore", category=OldFormatWarning)
            table = read_h5ad(path)
        if not isinstance(table, Table):
            raise error(f"{path} does not hold an AnnData but a {type(table).__name__}; is it a complete .h5ad?")
        parts = {"X": table.X, "raw": None if table.raw is None else table.raw.X}
        for name, matrix in parts.items():
            require_sound(matrix, f"{name} of {path}", error)
        for place in ("layers", "obsm", "varm", "obsp", "varp"):
            for name, matrix in getattr(table, place).items():
                require_sound(matrix, f"{place}[{name!r}] of {path}", error)
        return table
