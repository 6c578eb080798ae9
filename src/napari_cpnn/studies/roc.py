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


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike, level: float = 0.95, folds: npt.ArrayLike | None = None) -> Auc:
    """AUC of scores ``(N,)`` for the patients that are ``positive`` ``(N,)``; ties count one half.

    The standard error is DeLong's (1988), by mid-ranks (Sun & Xu 2014). The interval is symmetric in ``log(v / (1 -
    v))``; where the AUC is exactly 0 or 1, the exact one-sided bound of a share of the rarer kind of patients.

    Held-out scores of cross-validation are compared within their ``folds`` only: those of another fold are of another
    model, whose intercept is the lower, the more of the positive patients were held out from it. Over all pairs, the
    AUC of what predicts nothing would be below one half (Parker et al. 2007, doi:10.1186/1471-2105-8-326).

    Parameters
    ----------
    scores
        ``(N,)``, or ``(R, N)`` of ``R`` repeats of a cross-validation.
    positive
        ``(N,)``.
    level
        Of the interval.
    folds
        ``(N,)`` or ``(R, N)``, fold of each patient; ``None``: all pairs count.

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
    values, _, se, (n, m) = _placements([scores], positive, folds)
    value, spread = float(values[0]), float(se[0])
    z = float(norm.ppf(0.5 + level / 2))
    if 0 < value < 1:
        logit, width = np.log(value / (1 - value)), z * spread / (value * (1 - value))
        low, high = (1 / (1 + np.exp(-(logit + sign * width))) for sign in (-1, 1))
    else:  # separated: no variance is left to be estimated; the bound of a share of min(n, m) patients
        edge = 1 - (1 - level) ** (1 / min(n, m)) if min(n, m) else 1.0
        low, high = (1 - edge, 1.0) if value == 1 else (0.0, edge)
    return Auc(value, float(low), float(high), spread, n, m)


def auc_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, positive: npt.ArrayLike, folds: npt.ArrayLike | None = None
) -> tuple[float, float, float]:
    """Difference of two AUCs of the same patients, with its 95 % interval by DeLong's covariance: value, low, high.

    Parameters are those of :func:`auc`.
    """
    values, covariance, _, _ = _placements([first, second], positive, folds)
    difference = float(values[0] - values[1])
    se = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    return difference, difference - 1.96 * se, difference + 1.96 * se


def _placements(
    scores: list[npt.ArrayLike], positive: npt.ArrayLike, folds: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[int, int]]:
    yes = np.asarray(positive).astype(bool)
    n, m = int(yes.sum()), int((~yes).sum())
    table = np.stack([np.atleast_2d(np.asarray(one, dtype=np.float64)) for one in scores])
    fold = np.zeros(table.shape[1:], dtype=np.intp) if folds is None else np.atleast_2d(np.asarray(folds))
    if table.shape[2:] != yes.shape or fold.shape != table.shape[1:] or not np.isfinite(table).all():
        raise TrainingError("An AUC needs one finite score per patient.")
    if not n or not m:
        raise TrainingError("An AUC needs patients with and without the outcome, and all are alike.")
    # For each patient, the share of those of the other kind, in the same fold, on the right side of it.
    placed = np.empty(table.shape)
    for repeat, numbers in enumerate(fold):
        for number in np.unique(numbers):
            here = numbers == number
            above, below = np.flatnonzero(here & yes), np.flatnonzero(here & ~yes)
            if not len(above) or not len(below):
                raise TrainingError("An AUC within folds needs patients with and without the outcome in each.")
            for k, row in enumerate(table[:, repeat]):
                ranks = np.empty(len(yes))
                ranks[here] = rankdata(row[here])
                placed[k, repeat, above] = (ranks[above] - rankdata(row[above])) / len(below)
                placed[k, repeat, below] = 1 - (ranks[below] - rankdata(row[below])) / len(above)
    # Repeats are of the same patients: they make an estimate steadier, but no interval narrower.
    covariances = [_covariance(one[:, yes]) / n + _covariance(one[:, ~yes]) / m for one in placed.swapaxes(0, 1)]
    covariance = np.mean(covariances, axis=0)
    return placed[..., yes].mean(axis=(1, 2)), covariance, np.sqrt(np.maximum(np.diag(covariance), 0)), (n, m)


def _covariance(rows: FloatArray) -> FloatArray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T / max(rows.shape[1] - 1, 1))
