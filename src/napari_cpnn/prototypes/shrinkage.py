"""Strength of the shrinkage of cell types towards the common profile, estimated for each gene (empirical Bayes).

A gene's level in a type is its level in the common profile times a factor from ``Gamma(shape k_g, mean 1)``, so that
``1 / k_g`` is the squared coefficient of variation between types: small for housekeeping genes, large for markers.
Given k, the counts of types are negative binomial of size k. The k of all genes come from one distribution on a grid,
whose weights maximise the likelihood (EM), as in adaptive shrinkage (Stephens 2017, doi:10.1093/biostatistics/kxw041).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from napari_cpnn.arrays import FloatArray

#: Grid of k: coefficients of variation between types from 0.09 to 8.
SHAPES: FloatArray = np.exp2(np.arange(-6.0, 8.0))
_EM_STEPS = 30


def estimate_shapes(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """Estimate the shape of the Gamma prior of each gene from its counts in the cell types.

    Parameters
    ----------
    counts
        ``(C, G)``, counts of each type, those of overdispersed genes scaled down to what they tell.
    expected
        ``(C, G)``, such counts under the common profile.

    Returns
    -------
    ndarray
        ``(G,)``, the reciprocal of the posterior mean of ``1 / k``.

    Examples
    --------
    >>> counts = np.array([[0.0, 95.0], [200.0, 105.0]])  # a marker, and a gene that both types have
    >>> (estimate_shapes(counts, np.full((2, 2), 100.0)) > 5).tolist()
    [False, True]
    """
    likelihood = np.stack([_log_likelihood(counts, expected, k) for k in SHAPES])
    likelihood = np.exp(likelihood - likelihood.max(axis=0))
    weights = np.full(len(SHAPES), 1 / len(SHAPES))
    for _ in range(_EM_STEPS):
        weights = _posterior(likelihood, weights).mean(axis=1)
    return np.asarray(1 / (_posterior(likelihood, weights) / SHAPES[:, None]).sum(axis=0), dtype=np.float64)


def _posterior(likelihood: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the probability of each shape, ``(K, G)``."""
    joint = likelihood * weights[:, None]
    return np.asarray(joint / joint.sum(axis=0), dtype=np.float64)


def _log_likelihood(counts: FloatArray, expected: FloatArray, shape: float) -> FloatArray:
    """Return the negative binomial log likelihood of each gene up to a constant, ``(G,)``."""
    mean = np.maximum(expected, 1e-12)
    terms = gammaln(counts + shape) - gammaln(shape) - shape * np.log1p(mean / shape)
    total: FloatArray = (terms - counts * np.log1p(shape / mean)).sum(axis=0)
    return total
