"""Composition of spots by weighted non-negative least squares: no statistics of counts, no gene scales, no prior."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import nnls

#: Level below which the error of a gene no longer counts as relative: one count per 10,000.
_FLOOR = 1e-4


def nnls_abundances(counts: sp.csr_matrix, profiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Abundances ``w >= 0`` that minimise ``sum_g ((y_g - sum_c w_c T_cg) / (m_g + 1e-4))^2`` for each spot.

    ``y`` is the spot's counts divided by their total and ``m_g`` the level of gene g, the mean of its average over
    prototypes and its average over spots. So errors count relative to the level of a gene, down to one count per
    10,000; unweighted, a handful of abundant genes would decide alone.

    Parameters
    ----------
    counts
        ``(S, G)``; every spot has a count.
    profiles
        ``(C, G)``, T; rows sum to 1.

    Returns
    -------
    ndarray
        ``(S, C)``; a row of zeros where nothing but zeros is best.
    """
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    Y = sp.diags(1 / totals) @ counts
    weights = 1 / ((profiles.mean(axis=0) + np.asarray(Y.mean(axis=0)).ravel()) / 2 + _FLOOR)
    # min |A w - b| over genes has the same solution as min |R w - Q'b| over types, and that one is small.
    Q, R = np.linalg.qr((profiles * weights).T)
    return np.array([nnls(R, b)[0] for b in Y @ (Q * weights[:, None])])
