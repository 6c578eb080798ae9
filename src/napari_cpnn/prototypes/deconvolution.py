"""Composition of measured spots, in terms of prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls

from napari_cpnn.genes import positions, shared_genes
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.spots.quality import counts_matrix

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Level below which the error of a gene no longer counts as relative: one count per 10,000.
_FLOOR = 1e-4


def deconvolve(spots: AnnData, protos: Prototypes) -> pd.DataFrame:
    """Shares of cell types in each spot, by weighted non-negative least squares.

    With ``y_i`` the counts of a spot over the shared genes divided by their total, and ``T`` the prototypes over the
    same genes, ``w_i >= 0`` minimises ``sum_g ((y_ig - sum_c w_ic T_cg) / (m_g + 1e-4))^2`` and is then scaled to
    sum 1. ``m_g`` is the level of gene g, the mean of its average over prototypes and its average over spots. So
    errors count relative to the level of a gene, down to one count per 10,000; unweighted, a handful of abundant
    genes would decide alone. The level is taken over all spots of the table, so a table deconvolved in parts gives
    slightly other shares than as a whole.

    Parameters
    ----------
    spots
        Raw counts in ``layers["counts"]``.
    protos
        Prototypes over genes of which some are in the table.

    Returns
    -------
    DataFrame
        ``(spots, cell types)``, rows sum to 1; a row is NaN where a spot has no counts in genes of the prototypes.

    Raises
    ------
    GenesError
        When no gene is shared.
    PrototypesError
        When a cell type has no expression in the shared genes.
    """
    import pandas as pd

    names = list(spots.var_names)
    genes = shared_genes(protos.genes, names, ("The prototypes", "the table of spots"))
    counts = counts_matrix(spots)[:, positions(names, genes)].astype(np.float64)
    T = protos.select(genes).profiles.astype(np.float64)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    counted = np.flatnonzero(totals > 0)
    shares = np.full((counts.shape[0], len(T)), np.nan)
    if counted.size:
        Y = sp.diags(1 / totals[counted]) @ counts[counted]
        weights = 1 / ((T.mean(axis=0) + np.asarray(Y.mean(axis=0)).ravel()) / 2 + _FLOOR)
        # min |A w - b| over genes has the same solution as min |R w - Q'b| over types, and that one is small.
        Q, R = np.linalg.qr((T * weights).T)
        for i, b in zip(counted, Y @ (Q * weights[:, None]), strict=True):
            w = nnls(R, b)[0]
            if w.sum() > 0:
                shares[i] = w / w.sum()
    return pd.DataFrame(shares, index=spots.obs_names.copy(), columns=pd.Index(protos.cell_types, name="cell_type"))
