"""Shares of RNA and shares of cells: a type with large cells has more RNA than cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import CellsError, PrototypesError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def rna_content(cells: AnnData, cell_type: str = "celltype") -> pd.Series[float]:
    """Mean counts per cell of each type, relative to the mean over types.

    Counts measure the RNA of a cell only as well as the protocol captures it, alike for all types of one experiment.

    Parameters
    ----------
    cells
        Raw counts in ``layers["counts"]`` (:func:`read_cells`).
    cell_type
        Column of ``obs`` with the types; cells without one are left out.

    Raises
    ------
    CellsError
        If there is no such column.

    Examples
    --------
    >>> content = nc.rna_content(nc.read_cells(folder / "cells.h5ad"))
    >>> bool(abs(content.mean() - 1) < 1e-9)
    True
    """
    import pandas as pd

    if cell_type not in cells.obs:
        raise CellsError(f"The cells have no column {cell_type!r}; they have {', '.join(map(str, cells.obs.columns))}.")
    totals = np.asarray(sp.csr_matrix(cells.layers["counts"]).sum(axis=1), dtype=np.float64).ravel()
    labels = cells.obs[cell_type]
    known = labels.notna().to_numpy()
    means = pd.Series(totals[known]).groupby(labels[known].astype(str).to_numpy()).mean()
    return (means / means.mean()).rename("rna_content")


def cell_shares(shares: pd.DataFrame, content: pd.Series[float]) -> pd.DataFrame:
    """Convert shares of RNA to shares of cells: divided by the RNA content of each type, rows sum to 1.

    Parameters
    ----------
    shares
        ``(samples, cell types)`` of :func:`deconvolve`.
    content
        RNA per cell by cell type (:func:`rna_content`); only ratios matter.

    Raises
    ------
    PrototypesError
        If the content of a type is not known, or not positive.

    Examples
    --------
    >>> import pandas as pd
    >>> shares = pd.DataFrame({"large": [0.5], "small": [0.5]})
    >>> nc.cell_shares(shares, pd.Series({"large": 3.0, "small": 1.0})).to_numpy().tolist()
    [[0.25, 0.75]]
    """
    names = [str(one) for one in shares.columns]
    missing = [name for name in names if name not in content.index or not content[name] > 0]
    if missing:
        raise PrototypesError(f"The RNA content of {', '.join(missing[:5])} is not known.")
    cells = shares.div(content[names].to_numpy(), axis=1)
    result: pd.DataFrame = cells.div(cells.sum(axis=1), axis=0)
    return result
