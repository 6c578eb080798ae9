"""Correlation of predicted with measured expression per gene, vectorised over genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import TrainingError

#: Genes per block; blocks keep the float64 copies small compared to the expression of a whole slide.
_BLOCK = 512

#: A column with a smaller residual fraction is fully explained by the covariate, given float32 input.
_ROUNDING = 1e-5


class Summary(TypedDict):
    """Means over the genes that vary on the slide, with their number."""

    pcc: float
    scc: float
    n_genes: int


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Pearson correlation per column of ``a`` and ``b``.

    Parameters
    ----------
    a, b
        ``(N, G)``: spots by genes.

    Returns
    -------
    ndarray
        ``(G,)`` in [-1, 1]; NaN if a column is constant or has non-finite values, or there are fewer than two spots.
    """
    return _by_blocks(a, b, _pearson)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Spearman correlation per column: :func:`pearson` of the ranks, with average ranks for ties."""
    return _by_blocks(a, b, lambda x, y: _of_ranks(_ranks(x), _ranks(y)))


def partial_pearson(a: npt.ArrayLike, b: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    """Partial Pearson correlation per column, given a covariate.

    The least squares line on the covariate is subtracted from both columns, and the residuals are correlated. With log
    total counts as the covariate, this is the correlation of expression *given* sequencing depth.

    Parameters
    ----------
    a, b
        ``(N, G)``.
    covariate
        ``(N,)``. A constant covariate has no effect.

    Returns
    -------
    ndarray
        ``(G,)``; NaN as for :func:`pearson`, if the covariate explains a column fully, and with fewer than three spots.
    """
    z = _covariate(a, covariate)
    return _by_blocks(a, b, lambda x, y: _pearson(_residuals(x, z), _residuals(y, z)))


def partial_spearman(a: npt.ArrayLike, b: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    """Partial Spearman correlation per column: :func:`partial_pearson` of the ranks, including the covariate's."""
    z = _ranks(_covariate(a, covariate)[:, None])[:, 0]
    return _by_blocks(a, b, lambda x, y: _pearson(_residuals(_ranks(x), z), _residuals(_ranks(y), z)))


def _covariate(table: npt.ArrayLike, covariate: npt.ArrayLike) -> FloatArray:
    z = np.asarray(covariate, dtype=np.float64)
    if z.shape != np.shape(table)[:1] or not np.isfinite(z).all():
        raise TrainingError(f"A covariate needs one number per spot: {np.shape(table)[:1]}, not {z.shape} or NaN.")
    return z


def _residuals(columns: FloatArray, z: FloatArray) -> FloatArray:
    """Residuals of each column after regression on ``z``; exactly zero if only rounding errors are left."""
    if np.ptp(z) == 0:
        return columns
    direction = z - z.mean()
    direction /= np.linalg.norm(direction)
    with np.errstate(invalid="ignore"):  # columns with infinite values have no correlation
        centred = columns - columns.mean(axis=0)
        left: FloatArray = centred - np.outer(direction, direction @ centred)
        left[:, np.linalg.norm(left, axis=0) <= _ROUNDING * np.linalg.norm(centred, axis=0)] = 0.0
        left[:, np.ptp(columns, axis=0) == 0] = 0.0  # the mean of a constant need not be the constant
    return left


def _by_blocks(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    correlation: Callable[[npt.NDArray[Any], npt.NDArray[Any]], FloatArray],
    convert: bool = True,
) -> FloatArray:
    """Correlate blocks of columns, which are converted to float64 before unless ``convert`` is false."""
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 2 or first.shape != second.shape:
        raise TrainingError(f"Two tables of shapes {first.shape} and {second.shape} cannot be correlated by column.")
    result = np.full(first.shape[1], np.nan)
    if len(first) < 2:
        return result
    for start in range(0, first.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        x, y = first[:, block], second[:, block]
        result[block] = correlation(*((x.astype(np.float64), y.astype(np.float64)) if convert else (x, y)))
    return result


def _pearson(a: FloatArray, b: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):  # columns that are not usable
        (x, x_usable), (y, y_usable) = _centred(a), _centred(b)
        squares = np.einsum("ng,ng->g", x, x) * np.einsum("ng,ng->g", y, y)
        r = np.clip(np.einsum("ng,ng->g", x, y) / np.sqrt(squares), -1.0, 1.0)
    return np.asarray(np.where(x_usable & y_usable, r, np.nan))


def _centred(columns: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Centre columns and divide them by their largest value, so that squares cannot under- or overflow; which vary.

    Constant columns are recognised by their range: after centring, rounding can leave a small spread.
    """
    least, most = columns.min(axis=0), columns.max(axis=0)
    mean = columns.mean(axis=0)
    centred: FloatArray = columns - mean
    centred /= np.maximum(most - mean, mean - least)
    return centred, (most > least) & np.isfinite(least) & np.isfinite(most)


def _of_ranks(a: FloatArray, b: FloatArray) -> FloatArray:
    """Pearson correlation of ranks, whose mean is known and whose squares cannot overflow; NaN if all are the same."""
    x, y = a - (len(a) + 1) / 2, b - (len(b) + 1) / 2
    squares = np.einsum("ng,ng->g", x, x) * np.einsum("ng,ng->g", y, y)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(np.clip(np.einsum("ng,ng->g", x, y) / np.sqrt(squares), -1.0, 1.0))


def _with_ranks(columns: npt.NDArray[np.floating], ranks: npt.NDArray[np.floating]) -> FloatArray:
    """:func:`_of_ranks` of the ranks of ``columns (N, g)`` and known ``ranks``, without writing the first down.

    Predictions hardly ever have ties; their ranks are 1 to N then, and all sums are exact in any order.
    """
    values = np.ascontiguousarray(columns.T)  # faster to sort
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    plain = (ordered[:, 1:] > ordered[:, :-1]).all(axis=1) & np.isfinite(ordered[:, [0, -1]]).all(axis=1)
    n = len(columns)
    centred = ranks.T.astype(np.float64) - (n + 1) / 2
    products = np.take_along_axis(centred, order, axis=1) @ (np.arange(1.0, n + 1) - (n + 1) / 2)
    squares = n * (n**2 - 1) / 12 * np.einsum("gn,gn->g", centred, centred)
    with np.errstate(invalid="ignore"):  # 0 / 0
        result = np.asarray(np.clip(products / np.sqrt(squares), -1.0, 1.0))
    if not plain.all():
        result[~plain] = _of_ranks(_ranks(columns[:, ~plain]), ranks[:, ~plain].astype(np.float64))
    return result


def _ranks(columns: npt.NDArray[np.floating]) -> FloatArray:
    """Ranks within each column, from 1, averaged for ties; NaN for columns that are not finite."""
    values = np.ascontiguousarray(columns.T)  # faster to sort
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    ranks = np.empty(values.shape)
    if not tied.all():
        # Predictions hardly ever have ties; then the ranks are the order itself.
        np.put_along_axis(ranks, order, np.arange(1.0, values.shape[1] + 1)[None], axis=1)
    if tied.any():
        ranks[tied] = rankdata(values[tied], axis=1)
    ranks[~np.isfinite(values).all(axis=1)] = np.nan
    return ranks.T


def column_ranks(columns: npt.ArrayLike) -> Float32Array:
    """Ranks of each column of ``(N, G)``, averaged for ties; NaN for columns that are not finite. Exact in float32."""
    table = np.asarray(columns)
    ranks = np.empty(table.shape, dtype=np.float32, order="F")
    for start in range(0, table.shape[1], _BLOCK):
        ranks[:, start : start + _BLOCK] = _ranks(table[:, start : start + _BLOCK])
    return ranks


def mean_correlations(
    predicted: npt.ArrayLike, measured: npt.ArrayLike, measured_ranks: npt.ArrayLike | None = None
) -> Summary:
    """Mean PCC and SCC over the genes ``(N, G)`` that vary in both tables; NaN if there are none.

    ``measured_ranks`` are :func:`column_ranks` of measurements that many predictions are compared with.
    """
    if measured_ranks is None:
        return summarise_values(pearson(predicted, measured), spearman(predicted, measured))
    scc = _by_blocks(predicted, measured_ranks, _with_ranks, convert=False)
    return summarise_values(pearson(predicted, measured), scc)


def summarise_values(pcc: npt.ArrayLike, scc: npt.ArrayLike) -> Summary:
    """Mean of per-gene correlations ``(G,)``, omitting genes without one."""
    first, second = np.asarray(pcc, dtype=np.float64), np.asarray(scc, dtype=np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        return {"pcc": float("nan"), "scc": float("nan"), "n_genes": 0}
    return {"pcc": float(first[known].mean()), "scc": float(second[known].mean()), "n_genes": int(known.sum())}
