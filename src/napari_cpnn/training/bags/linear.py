"""Ridge regression on the mean features of bags, in closed form: the honest first baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError

#: Range of penalties, relative to the mean eigenvalue of the features' covariance over bags.
_RANGE = (-3.0, 3.0)


@dataclass(frozen=True)
class Ridge:
    """Linear map from features to targets, ``x @ coefficients + intercept``.

    Attributes
    ----------
    coefficients
        ``(F, G)``.
    intercept
        ``(G,)``.
    penalty
        Chosen penalty, on the sum of squares of the coefficients of the centred features.
    errors
        Mean squared error of each penalty on left-out groups, relative to the variance of the target.
    """

    coefficients: FloatArray
    intercept: FloatArray
    penalty: float
    errors: dict[float, float]

    def predict(self, features: npt.ArrayLike) -> FloatArray:
        """Predict targets ``(S, G)`` of features ``(S, F)``."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.coefficients + self.intercept)


def fit_ridge(features: npt.ArrayLike, targets: npt.ArrayLike, groups: npt.ArrayLike, n_penalties: int = 13) -> Ridge:
    """Fit with the penalty that predicts left-out groups best, in closed form.

    With ``H`` the matrix that maps targets to fitted values, the residuals of a group g that is left out are
    ``(I - H_gg)^-1 (y - H y)_g``; no fit is repeated.

    Parameters
    ----------
    features
        ``(S, F)`` mean features.
    targets
        ``(S, G)``.
    groups
        ``(S,)`` patients; if all are one, each row is left out by itself.

    Raises
    ------
    TrainingError
        With fewer than three rows.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.training.bags import fit_ridge
    >>> x = np.random.default_rng(0).normal(size=(30, 4))
    >>> fitted = fit_ridge(x, x @ np.ones((4, 1)), np.arange(30))
    >>> bool(np.abs(fitted.predict(x) - x.sum(axis=1, keepdims=True)).max() < 0.05)
    True
    """
    X, Y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    names = np.asarray(groups)
    if len(X) < 3:
        raise TrainingError(f"Ridge regression needs at least three bags, not {len(X)}.")
    if len(set(names.tolist())) < 2:
        names = np.arange(len(X))
    center, mean = X.mean(axis=0), Y.mean(axis=0)
    Xc, Yc = X - center, Y - mean
    values, vectors = np.linalg.eigh(Xc @ Xc.T)
    values = values.clip(min=0.0)
    rotated = vectors.T @ Yc
    scale = max(values.sum() / len(X), 1e-12)
    penalties = [float(scale * 10**e) for e in np.linspace(*_RANGE, n_penalties)]
    spread = np.maximum(Yc.var(axis=0), 1e-12)
    members = [np.flatnonzero(names == one) for one in sorted(set(names.tolist()))]
    errors = {}
    for penalty in penalties:
        shrunk = values / (values + penalty)
        residuals = Yc - vectors @ (shrunk[:, None] * rotated)
        left_out = np.empty_like(residuals)
        for rows in members:
            block = (vectors[rows] * shrunk) @ vectors[rows].T + 1 / len(X)  # of H, with its intercept
            left_out[rows] = np.linalg.lstsq(np.eye(len(rows)) - block, residuals[rows], rcond=None)[0]
        errors[penalty] = float(((left_out**2).mean(axis=0) / spread).mean())
    penalty = min(errors, key=lambda one: errors[one])
    dual = vectors @ (rotated / (values + penalty)[:, None])
    coefficients = np.asarray(Xc.T @ dual)
    return Ridge(coefficients, np.asarray(mean - center @ coefficients), penalty, errors)
