"""Noise ceiling: the best possible correlation with the measured expression of a gene, given its noise.

The counts of a slide are split at random into two halves, as if the tissue had been sequenced twice at half the depth:
each count is assigned to either half with probability 1/2 (binomial thinning). For Poisson counts the two halves are
independent given the tissue, so that they share only signal. Their correlation ``r`` is the reliability at half depth,
and the reliability at full depth follows from the Spearman-Brown formula, ``r' = 2 r / (1 + r)``. No prediction
correlates better with the measurement than the noise ceiling ``sqrt(r')`` (attenuation; Spearman 1904).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots import counts_matrix

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


#: Number of genes whose normalised values are in memory at a time.
_BLOCK = 2048


def noise_ceilings(
    spots: AnnData, genes: Sequence[str] | None = None, n_repeats: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Compute reliability and noise ceiling of each gene over the spots of one slide.

    Parameters
    ----------
    spots
        Table with raw counts in ``layers["counts"]``, as from :func:`~napari_cpnn.read_spots`.
    genes
        Names, default all.
    n_repeats, seed
        As for :func:`split_half_reliability`.

    Returns
    -------
    DataFrame
        Index ``gene``; ``reliability`` and ``ceiling`` of log1p CP10k, and ``reliability_given_depth`` and
        ``ceiling_given_depth`` of its residuals after regression on log total counts. NaN for a gene without counts.

    Raises
    ------
    GenesError
        If a gene is not in the table.
    SpotsError
        If the table has no raw counts, or fewer than two spots with counts.
    """
    import pandas as pd

    counts = counts_matrix(spots)
    names = list(spots.var_names)
    wanted = np.arange(len(names)) if genes is None else require_genes(names, genes, "The table of spots")
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    if (totals > 0).sum() < 2:
        raise SpotsError(
            f"{int((totals > 0).sum())} of {len(totals)} spots have counts, and a noise ceiling needs two; "
            "give the spots of a whole slide."
        )
    depth = np.log(np.maximum(totals, 1))
    columns = {}
    for suffix, covariate in (("", None), ("_given_depth", depth)):
        reliability = split_half_reliability(counts, wanted, n_repeats, seed, covariate)
        columns[f"reliability{suffix}"] = reliability
        columns[f"ceiling{suffix}"] = np.sqrt(np.maximum(reliability, 0.0))
    return pd.DataFrame(columns, index=pd.Index([names[i] for i in wanted], name="gene"))


def split_half_reliability(
    counts: Any,
    genes: IntArray | None = None,
    n_repeats: int = 10,
    seed: int = 0,
    covariate: npt.ArrayLike | None = None,
) -> FloatArray:
    """Reliability of the normalised expression of each gene: its expected correlation with a repeated measurement.

    Parameters
    ----------
    counts
        ``(N, all genes)`` raw counts, sparse or dense.
    genes
        Indices of the ``G`` requested genes, default all. All genes are thinned in any case: each half is normalised by
        its own total, since a common total would be shared noise.
    n_repeats
        Number of random splits. Covariances and variances are averaged, not correlations, so that genes with so few
        counts that a half has none are included.
    seed
        Seed of the splits.
    covariate
        ``(N,)`` covariate that is regressed out of both halves, such as log total counts. Both halves of a spot have
        similar depth, and normalised values depend on depth. Without a covariate this counts as signal, as it does in
        the correlation of predictions with the normalised values of the same spots.

    Returns
    -------
    ndarray
        ``(G,)`` in [-1, 1], 1 for a perfect measurement; NaN for a gene without counts. Negative values are
        random deviations from 0, and are kept so that means over genes are unbiased.
    """
    whole = sp.csc_matrix(counts, dtype=np.int64)
    wanted = np.arange(whole.shape[1]) if genes is None else np.asarray(genes, dtype=np.intp)
    rng = np.random.default_rng(seed)
    shared, spread = np.zeros(len(wanted)), np.zeros(len(wanted))
    for _ in range(n_repeats):
        data = rng.binomial(whole.data, 0.5)
        first, second = (
            sp.csc_matrix((part, whole.indices, whole.indptr), whole.shape) for part in (data, whole.data - data)
        )
        totals = [np.asarray(half.sum(axis=1), dtype=np.float64).ravel() for half in (first, second)]
        # A half of a spot with few counts may be empty, and is then not a measurement.
        use = np.flatnonzero((totals[0] > 0) & (totals[1] > 0))
        if len(use) < 2:
            continue
        basis = _basis(len(use), None if covariate is None else np.asarray(covariate, dtype=np.float64)[use])
        for start in range(0, len(wanted), _BLOCK):
            block = slice(start, start + _BLOCK)
            halves = [
                _normalised(half[:, wanted[block]].tocsr()[use], total[use])
                for half, total in zip((first, second), totals, strict=True)
            ]
            a, b = (basis.T @ half for half in halves)
            shared[block] += _sums(halves[0], halves[1]) - (a * b).sum(axis=0)
            own = [_sums(half, half) - (c * c).sum(axis=0) for half, c in zip(halves, (a, b), strict=True)]
            spread[block] += np.maximum(own[0], 0.0) / 2 + np.maximum(own[1], 0.0) / 2
    varies = spread > 1e-9 * n_repeats
    r = np.full(len(wanted), np.nan)
    np.divide(shared, spread, out=r, where=varies)
    return spearman_brown(r)


def spearman_brown(r: npt.ArrayLike) -> FloatArray:
    """Spearman-Brown formula: reliability from the correlation ``r`` of halves, ``2 r / (1 + r)``, at least -1."""
    half = np.maximum(np.asarray(r, dtype=np.float64), -1 / 3)
    return np.asarray(2 * half / (1 + half))


def _basis(n: int, covariate: FloatArray | None) -> FloatArray:
    """Orthonormal columns ``(n, 1 or 2)`` spanning a constant and the covariate, to be regressed out."""
    columns = np.full((n, 1), 1 / np.sqrt(n))
    if covariate is None or np.ptp(covariate) == 0:
        return columns
    centred = covariate - covariate.mean()
    return np.column_stack([columns, centred / np.linalg.norm(centred)])


def _normalised(counts: sp.csr_matrix, totals: FloatArray) -> sp.csr_matrix:
    """Normalise to log1p CP10k; preserves sparsity."""
    values = sp.diags(1e4 / totals) @ counts
    return values.log1p()


def _sums(a: sp.csr_matrix, b: sp.csr_matrix) -> FloatArray:
    """Sum of products over spots, per gene."""
    return np.asarray(a.multiply(b).sum(axis=0), dtype=np.float64).ravel()
