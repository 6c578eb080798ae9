"""Correlations over spots that are drawn with replacement, all draws and genes at once.

A draw is a count per spot. With counts ``W`` (draws x spots) every mean over a draw is a row of ``W X / N``, so that
sums, squares and products of all draws come from a few matrix products instead of a loop.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Values = npt.NDArray[np.float64]

#: Genes that are worked on at a time.
_BLOCK = 512

#: Variance, as a share of that over all spots, below which a gene is constant in a draw.
_CONSTANT = 1e-10


def draws(n: int, n_draws: int, seed: int = 0) -> Values:
    """How often each of ``n`` things is drawn: ``(n_draws, n)``, rows sum to ``n``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)


def bootstrap_means(
    predicted: Mapping[str, Values], measured: Values, covariate: Values, weights: Values
) -> dict[str, dict[str, Values]]:
    """Mean correlation over genes in each draw of spots.

    Parameters
    ----------
    predicted
        ``(N, G)`` by head, each gene varying over the spots.
    measured
        ``(N, G)`` likewise.
    covariate
        ``(N,)`` what is regressed out for ``pcc_given_depth`` and ``scc_given_depth``.
    weights
        ``(B, N)`` as from :func:`draws`.

    Returns
    -------
    dict
        ``[metric][head]`` ``(B,)`` for ``pcc``, ``scc``, ``pcc_given_depth``, ``scc_given_depth``. In a draw, a gene
        counts where it varies in the measurement and in every prediction. Ranks are those over all spots of the slide:
        a draw is not ranked anew.
    """
    result = {}
    for name, ranked in (("pcc", False), ("scc", True)):
        z = _standardised(covariate[:, None], ranked)[:, 0]
        sums = {(head, given): np.zeros(len(weights)) for head in predicted for given in (False, True)}
        n_genes = {given: np.zeros(len(weights)) for given in (False, True)}
        for start in range(0, measured.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            y = _standardised(measured[:, block], ranked)
            found = {
                head: _correlations(_standardised(x[:, block], ranked), y, z, weights) for head, x in predicted.items()
            }
            for given in (False, True):
                known = np.logical_and.reduce([np.isfinite(both[given]) for both in found.values()])
                n_genes[given] += known.sum(axis=1)
                for head, both in found.items():
                    sums[head, given] += np.where(known, both[given], 0.0).sum(axis=1)
        for given, metric in ((False, name), (True, f"{name}_given_depth")):
            with np.errstate(invalid="ignore"):
                result[metric] = {head: sums[head, given] / n_genes[given] for head in predicted}
    return result


def _standardised(columns: Values, ranked: bool) -> Values:
    """Mean 0 and variance 1 over all spots, so that no sum cancels; a constant column stays 0."""
    values = np.asarray(rankdata(columns, axis=0) if ranked else columns, dtype=np.float64)
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def _correlations(x: Values, y: Values, z: Values, weights: Values) -> tuple[Values, Values]:
    """Pearson correlation ``(B, G)`` of ``x`` and ``y``, and the partial one given ``z``."""
    w = weights / len(x)

    depth = z[:, None]
    mean_x, mean_y, mean_z = w @ x, w @ y, w @ depth
    xx, yy, zz = w @ (x * x) - mean_x**2, w @ (y * y) - mean_y**2, w @ (depth * depth) - mean_z**2
    xy, xz, yz = w @ (x * y) - mean_x * mean_y, w @ (x * depth) - mean_x * mean_z, w @ (y * depth) - mean_y * mean_z
    plain = _ratio(xy, xx, yy)
    inverse = np.divide(1.0, zz, out=np.zeros_like(zz), where=zz > _CONSTANT)
    return plain, _ratio(xy - xz * yz * inverse, xx - xz * xz * inverse, yy - yz * yz * inverse)


def _ratio(covariance: Values, first: Values, second: Values) -> Values:
    """Covariance over both standard deviations; NaN where one of them is zero."""
    varies = (first > _CONSTANT) & (second > _CONSTANT)
    result = np.full(covariance.shape, np.nan)
    np.divide(covariance, np.sqrt(np.where(varies, first * second, 1.0)), out=result, where=varies)
    return np.asarray(np.clip(result, -1.0, 1.0))
