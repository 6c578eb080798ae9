"""Correlation of predicted with measured expression, gene by gene, all genes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError

#: Genes are worked on in blocks, so that the float64 copies stay small beside a whole slide's expression.
_BLOCK = 2048

#: A column of which the covariate leaves less than this share is explained by it: values come from float32.
_ROUNDING = 1e-5


class Summary(TypedDict):
    """Means over the genes that vary on the slide, always with their number."""

    pcc: float
    scc: float
    n_genes: int


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Pearson correlation of each column of ``a`` with the same column of ``b``.

    Parameters
    ----------
    a, b
        ``(N, G)``: spots by genes.

    Returns
    -------
    ndarray
        ``(G,)`` in [-1, 1]; NaN where one of the two columns is constant, holds a value that is not finite, or
        there are fewer than two spots.
    """
    return _by_blocks(a, b, _pearson)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Spearman correlation per column: :func:`pearson` of the ranks, ties getting their average rank."""
    return _by_blocks(a, b, lambda x, y: _pearson(_ranks(x), _ranks(y)))


def partial_pearson(a: npt.ArrayLike, b: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    """Pearson correlation per column of what a covariate leaves of both tables (partial correlation).

    The least squares line on the covariate is taken from either column, and the residuals are correlated. With log
    total counts as the covariate, this is the correlation of expression *given* sequencing depth.

    Parameters
    ----------
    a, b
        ``(N, G)``.
    covariate
        ``(N,)``. A constant one takes nothing away.

    Returns
    -------
    ndarray
        ``(G,)``; NaN as for :func:`pearson`, where the covariate leaves nothing, and with fewer than three spots.
    """
    z = _covariate(a, covariate)
    return _by_blocks(a, b, lambda x, y: _pearson(_residuals(x, z), _residuals(y, z)))


def partial_spearman(a: npt.ArrayLike, b: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    """Partial Spearman correlation per column: :func:`partial_pearson` of the ranks, those of the covariate too."""
    z = _ranks(_covariate(a, covariate)[:, None])[:, 0]
    return _by_blocks(a, b, lambda x, y: _pearson(_residuals(_ranks(x), z), _residuals(_ranks(y), z)))


def _covariate(table: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    z = np.asarray(covariate, dtype=np.float64)
    if z.shape != np.shape(table)[:1] or not np.isfinite(z).all():
        raise TrainingError(f"A covariate needs one number per spot: {np.shape(table)[:1]}, not {z.shape} or NaN.")
    return z


def _residuals(columns: FloatArray, z: FloatArray) -> FloatArray:
    """What the least squares line on ``z`` leaves of each column; exactly zero where only rounding would be left."""
    if np.ptp(z) == 0:
        return columns
    direction = z - z.mean()
    direction /= np.linalg.norm(direction)
    with np.errstate(invalid="ignore"):  # a column with infinite values, which has no correlation
        centred = columns - columns.mean(axis=0)
        left: FloatArray = centred - np.outer(direction, direction @ centred)
        left[:, np.linalg.norm(left, axis=0) <= _ROUNDING * np.linalg.norm(centred, axis=0)] = 0.0
    return left


def _by_blocks(
    a: npt.ArrayLike, b: npt.ArrayLike, correlation: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 2 or first.shape != second.shape:
        raise TrainingError(f"Two tables of shapes {first.shape} and {second.shape} cannot be correlated by column.")
    result = np.full(first.shape[1], np.nan)
    if len(first) < 2:
        return result
    for start in range(0, first.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = correlation(first[:, block].astype(np.float64), second[:, block].astype(np.float64))
    return result


def _pearson(a: FloatArray, b: FloatArray) -> FloatArray:
    # A constant column is told by its range: after centring, rounding can leave a tiny spread that would correlate.
    usable = (np.ptp(a, axis=0) > 0) & (np.ptp(b, axis=0) > 0)
    usable &= np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    result = np.full(a.shape[1], np.nan)
    x, y = _unit(a[:, usable]), _unit(b[:, usable])
    result[usable] = np.clip(np.einsum("ng,ng->g", x, y), -1.0, 1.0)
    return result


def _unit(columns: FloatArray) -> FloatArray:
    """Columns centred and scaled to length one; scaled by their range first, so that no square under- or overflows."""
    centred: FloatArray = columns - columns.mean(axis=0)
    centred /= np.abs(centred).max(axis=0, initial=np.finfo(np.float64).tiny)
    centred /= np.linalg.norm(centred, axis=0)
    return centred


def _ranks(columns: FloatArray) -> FloatArray:
    ranks = np.asarray(rankdata(columns, axis=0), dtype=np.float64)
    # rankdata gives NaN and infinity a rank like any other number; such a column has no correlation.
    ranks[:, ~np.isfinite(columns).all(axis=0)] = np.nan
    return ranks


def mean_correlations(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> Summary:
    """Mean PCC and SCC over the genes ``(N, G)`` that vary in both tables; NaN when there is none."""
    return summarise_values(pearson(predicted, measured), spearman(predicted, measured))


def summarise_values(pcc: npt.ArrayLike, scc: npt.ArrayLike) -> Summary:
    """Mean of per-gene correlations ``(G,)``, genes without one left out."""
    first, second = np.asarray(pcc, dtype=np.float64), np.asarray(scc, dtype=np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        return {"pcc": float("nan"), "scc": float("nan"), "n_genes": 0}
    return {"pcc": float(first[known].mean()), "scc": float(second[known].mean()), "n_genes": int(known.sum())}
