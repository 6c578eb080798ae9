"""Area under the ROC curve with DeLong's interval, and the difference of two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError


@dataclass(frozen=True)
class Auc:
    """AUC with a 95 % interval.

    Parameters
    ----------
    value
        In [0, 1]; 0.5 is chance.
    low, high
        Interval on the logit scale, so that it stays within [0, 1].
    se
        DeLong's standard error of ``value``.
    n_positive, n_negative
        Number of patients.
    """

    value: float
    low: float
    high: float
    se: float
    n_positive: int
    n_negative: int


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike, level: float = 0.95) -> Auc:
    """AUC of scores ``(N,)`` for the patients that are ``positive`` ``(N,)``; ties count one half.

    The standard error is DeLong's (1988), by mid-ranks (Sun & Xu 2014). The interval is symmetric in ``log(v / (1 -
    v))``; where the AUC is exactly 0 or 1, the exact one-sided bound of a share of the rarer kind of patients.

    Raises
    ------
    TrainingError
        With no patient of one kind, or scores that are not finite.

    Examples
    --------
    >>> from napari_cpnn.studies import auc
    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).value
    0.75
    """
    values, _, se, (n, m) = _placements([scores], positive)
    value, spread = float(values[0]), float(se[0])
    z = float(norm.ppf(0.5 + level / 2))
    if 0 < value < 1:
        logit, width = np.log(value / (1 - value)), z * spread / (value * (1 - value))
        low, high = (1 / (1 + np.exp(-(logit + sign * width))) for sign in (-1, 1))
    else:  # separated: no variance is left to be estimated; the bound of a share of min(n, m) patients
        edge = 1 - (1 - level) ** (1 / min(n, m)) if min(n, m) else 1.0
        low, high = (1 - edge, 1.0) if value == 1 else (0.0, edge)
    return Auc(value, float(low), float(high), spread, n, m)


def auc_difference(first: npt.ArrayLike, second: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[float, float, float]:
    """Difference of two AUCs of the same patients, with its 95 % interval by DeLong's covariance: value, low, high."""
    values, covariance, _, _ = _placements([first, second], positive)
    difference = float(values[0] - values[1])
    se = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    return difference, difference - 1.96 * se, difference + 1.96 * se


def _placements(
    scores: list[npt.ArrayLike], positive: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[int, int]]:
    yes = np.asarray(positive).astype(bool)
    n, m = int(yes.sum()), int((~yes).sum())
    table = np.stack([np.asarray(one, dtype=np.float64) for one in scores])
    if table.shape[1:] != yes.shape or not np.isfinite(table).all():
        raise TrainingError("An AUC needs one finite score per patient.")
    if not n or not m:
        raise TrainingError("An AUC needs patients with and without the outcome, and all are alike.")
    of_positive, of_negative = np.empty((len(table), n)), np.empty((len(table), m))
    for k, row in enumerate(table):
        ranks = rankdata(row)
        of_positive[k] = (ranks[yes] - rankdata(row[yes])) / m
        of_negative[k] = 1 - (ranks[~yes] - rankdata(row[~yes])) / n
    covariance = _covariance(of_positive) / n + _covariance(of_negative) / m
    return of_positive.mean(axis=1), covariance, np.sqrt(np.maximum(np.diag(covariance), 0)), (n, m)


def _covariance(rows: FloatArray) -> FloatArray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T / max(rows.shape[1] - 1, 1))
