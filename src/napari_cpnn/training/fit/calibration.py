"""Bring predictions into the units of the measurement, gene by gene, without changing any correlation.

A model trained on correlations alone is free in scale and offset. The least squares line of measured on predicted
expression over the training spots, ``measured = slope * predicted + intercept``, has the closed form

    slope = cov(predicted, measured) / var(predicted),  intercept = mean(measured) - slope * mean(predicted).

It is found in one pass over batches, with sums about a fixed shift so that nothing cancels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray

#: A slope below this is raised to it: a gene that the model has learned nothing about (or the reverse) becomes
#: nearly its own mean, and the sign and size of its correlation stay as they were.
MIN_SLOPE = 1e-3


class LineFit:
    """Least squares line per gene, from batches of predicted and measured expression."""

    def __init__(self) -> None:
        self._n = 0
        self._shift: tuple[FloatArray, FloatArray] | None = None
        self._sums: FloatArray = np.zeros((4, 0))

    def add(self, predicted: npt.ArrayLike, measured: npt.ArrayLike) -> None:
        """Take a batch of spots, both ``(N, G)``."""
        x, y = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
        if self._shift is None:
            self._shift = x.mean(axis=0), y.mean(axis=0)
            self._sums = np.zeros((4, x.shape[1]))
        x, y = x - self._shift[0], y - self._shift[1]
        self._n += len(x)
        self._sums += np.stack([x.sum(axis=0), y.sum(axis=0), (x * x).sum(axis=0), (x * y).sum(axis=0)])

    def solve(self, min_slope: float = MIN_SLOPE) -> tuple[FloatArray, FloatArray]:
        """``(slope, intercept)``, each ``(G,)``, with slopes of at least ``min_slope``.

        Where the prediction is constant the slope is ``min_slope``; the line still passes through the means, which
        is the least squares intercept for any given slope.
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
