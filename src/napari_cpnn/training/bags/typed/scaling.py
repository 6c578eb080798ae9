"""Standardised features, and their principal components over bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class Scaling:
    """``z = (h - center) R``: features less their mean, over their standard deviation, turned to principal components.

    Parameters
    ----------
    center
        ``(F,)``.
    rotation
        ``(F, P)``; a diagonal matrix is given by ``(F,)``.
    """

    center: FloatArray
    rotation: FloatArray

    @classmethod
    def of(cls, features: npt.ArrayLike, n_components: int | None = None) -> Scaling:
        """Scale of rows ``(N, F)``: each feature has variance 1; with components, those of greatest variance.

        Features that do not vary are left out (their row of the rotation is 0).
        """
        X = np.asarray(features, dtype=np.float64)
        center = X.mean(axis=0)
        spread = X.std(axis=0)
        inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9 * (1 + np.abs(center)))
        if n_components is None:
            return cls(center, inverse)
        Z = (X - center) * inverse
        values, vectors = np.linalg.eigh(Z.T @ Z)
        keep = max(1, min(n_components, int((values > 1e-12 * max(values[-1], 1e-300)).sum())))
        # Components keep their variance: the first are penalised least.
        return cls(center, inverse[:, None] * vectors[:, ::-1][:, :keep])

    def __call__(self, features: npt.ArrayLike) -> FloatArray:
        """Scaled features ``(N, P)``."""
        centred = np.asarray(features, dtype=np.float64) - self.center
        return centred * self.rotation if self.rotation.ndim == 1 else centred @ self.rotation

    def back(self, weights: FloatArray) -> FloatArray:
        """Weights of the features ``(F, ...)``, given those of the scaled ones ``(P, ...)``."""
        if self.rotation.ndim == 1:
            return np.asarray(weights * self.rotation.reshape(-1, *[1] * (weights.ndim - 1)))
        return np.asarray(np.tensordot(self.rotation, weights, axes=1))
