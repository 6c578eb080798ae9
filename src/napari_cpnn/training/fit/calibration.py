"""Calibrate predictions to the units of the measurement, gene by gene, without changing correlations.

Training on correlations alone does not determine scale and offset. The least squares line of measured on predicted
expression over the training spots, ``measured = slope * predicted + intercept``, has the closed form

    slope = cov(predicted, measured) / var(predicted),  intercept = mean(measured) - slope * mean(predicted).

It is computed in one pass over batches, with sums about a fixed shift to avoid cancellation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray

#: Minimum slope: the prediction of a gene with no (or negative) correlation becomes nearly its mean, while the sign and
#: magnitude of the correlation are unchanged.
MIN_SLOPE = 1e-3


class LineFit:
    """Least squares line per gene, accumulated over batches of predicted and measured expression."""

    def __init__(self) -> None:
        self._n = 0
        self._shift: tuple[FloatArray, FloatArray] | None = None
        self._sums: FloatArray = np.zeros((4, 0))

    def add(self, predicted: npt.ArrayLike, measured: npt.ArrayLike) -> None:
        """Add a batch of spots, both ``(N, G)``."""
        x, y = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
        if self._shift is None:
            self._shift = x.mean(axis=0), y.mean(axis=0)
            self._sums = np.zeros((4, x.shape[1]))
        x, y = x - self._shift[0], y - self._shift[1]
        self._n += len(x)
        self._sums += np.stack([x.sum(axis=0), y.sum(axis=0), (x * x).sum(axis=0), (x * y).sum(axis=0)])

    def solve(self, min_slope: float = MIN_SLOPE) -> tuple[FloatArray, FloatArray]:
        """Return ``(slope, intercept)``, each ``(G,)``, with slopes of at least ``min_slope``.

        For constant predictions the slope is ``min_slope``; the line still passes through the means, which is the
        least squares intercept for any given slope.
        """
        if self._shift is None:
            return np.zeros(0), np.zeros(0)
        sx, sy, sxx, sxy = self._sums / self._n
        variance, covariance = sxx - sx * sx, sxy - sx * sy
        spread = variance > 1e-12 * np.maximum(1.0, self._shift[0] ** 2)
        slope = np.full(len(sx), min_slope)
        np.divide(covariance, variance, out=slope, where=spread)
        slope = np.maximum(slope, min_slope)
        return slope, (self._shift[1] + sy) - slope * (self._shift[0] + sx)
