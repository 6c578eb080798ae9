"""Deconvolve spots by weighted non-negative least squares, without count statistics, gene scales or priors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import nnls

#: Expression level below which a gene's error is no longer weighted relatively: one count per 10,000.
_FLOOR = 1e-4


def nnls_abundances(counts: sp.csr_matrix, profiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Abundances ``w >= 0`` that minimise ``sum_g ((y_g - sum_c w_c T_cg) / (m_g + 1e-4))^2`` for each spot.

    ``y`` is the spot's counts divided by their total, and ``m_g`` the level of gene g: the mean of its averages over
    prototypes and over spots. Errors are thus relative to the level of a gene, down to one count per 10,000; without
    weights, a few abundant genes would dominate.

    Parameters
    ----------
    counts
        ``(S, G)``; every spot has counts.
    profiles
        ``(C, G)``, T; rows sum to 1.

    Returns
    -------
    ndarray
        ``(S, C)``; a row of zeros if no positive abundance improves the fit.
    """
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    Y = sp.diags(1 / totals) @ counts
    weights = 1 / ((profiles.mean(axis=0) + np.asarray(Y.mean(axis=0)).ravel()) / 2 + _FLOOR)
    # min |A w - b| over genes has the same solution as min |R w - Q'b| over types, which is small.
    Q, R = np.linalg.qr((profiles * weights).T)
    return np.array([nnls(R, b)[0] for b in Y @ (Q * weights[:, None])])
