"""Composition of measured spots, in terms of prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from napari_cpnn.genes import positions, shared_genes
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.spots.quality import counts_matrix

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def deconvolve(spots: AnnData, protos: Prototypes) -> pd.DataFrame:
    """Shares of cell types in each spot, by weighted non-negative least squares.

    Parameters
    ----------
    spots
        Raw counts in ``layers["counts"]``.
    protos
        Prototypes over genes of which some are in the table.

    Returns
    -------
    DataFrame
        ``(spots, cell types)``, rows sum to 1; a row is NaN where a spot has no counts in the shared genes.

    Raises
    ------
    GenesError
        When no gene is shared.
    """
    import pandas as pd

    genes = shared_genes(protos.genes, list(spots.var_names), ("the prototypes", "the table of spots"))
    counts = counts_matrix(spots)[:, positions(list(spots.var_names), genes)].toarray().astype(np.float64)
    T = protos.select(genes).profiles.astype(np.float64)
    shares = np.full((len(counts), len(T)), np.nan)
    scale = 1 / np.sqrt(T.mean(axis=0) + 1e-6)
    design = (T * scale).T
    for i in np.flatnonzero(counts.sum(axis=1) > 0):
        w = nnls(design, counts[i] / counts[i].sum() * scale)[0]
        if w.sum() > 0:
            shares[i] = w / w.sum()
    return pd.DataFrame(shares, index=spots.obs_names, columns=list(protos.cell_types))
