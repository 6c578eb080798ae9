"""Bootstrap correlations over spots, vectorised over draws and genes.

A bootstrap draw is a count per spot. With counts ``W`` (draws x spots), means over draws are rows of ``W X / N``, so
that moments of all draws are computed by a few matrix products instead of a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from napari_cpnn.arrays import FloatArray

#: Genes per block.
_BLOCK = 512

#: Variance, as a fraction of that over all spots, below which a gene is constant in a draw.
_CONSTANT = 1e-10


def draws(n: int, n_draws: int, seed: int = 0) -> FloatArray:
    """Bootstrap counts ``(n_draws, n)`` of ``n`` items drawn with replacement; rows sum to ``n``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)


def bootstrap_means(
    predicted: Mapping[str, FloatArray], measured: FloatArray, covariate: FloatArray, weights: FloatArray
) -> dict[str, dict[str, FloatArray]]:
    """Mean correlation over genes in each draw of spots.

    Parameters
    ----------
    predicted
        ``(N, G)`` by head, each gene varying over the spots.
    measured
        ``(N, G)`` likewise.
    covariate
        ``(N,)`` covariate of ``pcc_given_depth`` and ``scc_given_depth``.
    weights
        ``(B, N)`` as from :func:`draws`.

    Returns
    -------
    dict
        ``[metric][head]`` ``(B,)`` for ``pcc``, ``scc``, ``pcc_given_depth``, ``scc_given_depth``. In a draw, genes are
        included that vary in the measurement and in every prediction. Ranks are those over all spots of the slide, and
        are not recomputed per draw.
    """
    result = {}
    w = weights / len(measured)
    for name, ranked in (("pcc", False), ("scc", True)):
        depth = _standardised(covariate[:, None], ranked)
        z = _moments(depth, depth[:, 0], w)
        sums = {(head, given): np.zeros(len(weights)) for head in predicted for given in (False, True)}
        n_genes = {given: np.zeros(len(weights)) for given in (False, True)}
        for start in range(0, measured.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            y = _moments(_standardised(measured[:, block], ranked), depth[:, 0], w)
            found = {}
            for head, values in predicted.items():
                x = _moments(_standardised(values[:, block], ranked), depth[:, 0], w)
                found[head] = _correlations(x, y, z, w)
            for given in (False, True):
                known = np.logical_and.reduce([np.isfinite(both[given]) for both in found.values()])
                n_genes[given] += known.sum(axis=1)
                for head, both in found.items():
                    sums[head, given] += np.where(known, both[given], 0.0).sum(axis=1)
        for given, metric in ((False, name), (True, f"{name}_given_depth")):
            with np.errstate(invalid="ignore"):
                result[metric] = {head: sums[head, given] / n_genes[given] for head in predicted}
    return result


def _standardised(columns: FloatArray, ranked: bool) -> FloatArray:
    """Standardise columns over all spots, to avoid cancellation in sums; constant columns become 0."""
    values = np.asarray(rankdata(columns, axis=0) if ranked else columns, dtype=np.float64)
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True)
class _Moments:
    """Moments ``(B, G)`` of columns ``(N, G)`` in each draw: mean, variance, covariance with the covariate."""

    columns: FloatArray
    mean: FloatArray
    variance: FloatArray
    with_covariate: FloatArray


def _moments(columns: FloatArray, z: FloatArray, w: FloatArray) -> _Moments:
    mean, depth = w @ columns, z[:, None]
    with_covariate = w @ (columns * depth) - mean * (w @ depth)
    return _Moments(columns, mean, w @ (columns * columns) - mean**2, with_covariate)


def _correlations(x: _Moments, y: _Moments, z: _Moments, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pearson correlation ``(B, G)`` of ``x`` and ``y``, and the partial one given ``z``."""
    xy = w @ (x.columns * y.columns) - x.mean * y.mean
    plain = _ratio(xy, x.variance, y.variance)
    inverse = np.divide(1.0, z.variance, out=np.zeros_like(z.variance), where=z.variance > _CONSTANT)
    xz, yz = x.with_covariate, y.with_covariate
    return plain, _ratio(xy - xz * yz * inverse, x.variance - xz * xz * inverse, y.variance - yz * yz * inverse)


def _ratio(covariance: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Covariance divided by both standard deviations; NaN if one of them is zero."""
    varies = (first > _CONSTANT) & (second > _CONSTANT)
    result = np.full(covariance.shape, np.nan)
    np.divide(covariance, np.sqrt(np.where(varies, first * second, 1.0)), out=result, where=varies)
    return np.asarray(np.clip(result, -1.0, 1.0))
