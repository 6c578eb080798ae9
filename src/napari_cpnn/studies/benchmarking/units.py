"""Units of predictions: counts, log1p of counts per 10,000, or unknown; and their expected counts."""

from __future__ import annotations

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray

#: Smallest and largest value that a regression on log1p CP10k may give; 9.2 is a gene with all counts of a spot.
_LOWEST, _HIGHEST = -1.0, 10.0
#: Largest ratio of the mean to that of the measured values: sections of other depth differ by less.
_RATIO = 4.0


def in_log_cp10k(values: Float32Array, measured: Float32Array, share: float = 1.0) -> tuple[Float32Array, bool]:
    """Convert predictions to log1p of counts per 10,000 where their unit can be recognised.

    Whole, non-negative numbers are counts: each spot is divided by its total over these genes, and multiplied by the
    share that these genes have in all measured counts of the section. Other values are taken to be log1p CP10k if
    they lie in [-1, 10] and their mean is within a factor of four of the measured mean.

    Parameters
    ----------
    values
        ``(n, G)`` predictions; NaN is ignored.
    measured
        ``(n, G)`` measured log1p CP10k.
    share
        Share of the ``G`` genes in all counts.

    Returns
    -------
    values
        ``(n, G)``; unchanged if they are not counts.
    known
        Whether the unit was recognised.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return values, False
    low, high, mean = float(finite.min()), float(finite.max()), float(finite.mean(dtype=np.float64))
    if low >= 0 and high > 0 and np.array_equal(finite, np.rint(finite)):
        totals = np.nansum(values, axis=1, keepdims=True, dtype=np.float64)
        scale = np.divide(1e4 * share, totals, out=np.zeros_like(totals), where=totals > 0)
        return np.log1p(values * scale).astype(np.float32), True
    expected = float(measured.mean(dtype=np.float64))
    return values, low >= _LOWEST and high <= _HIGHEST and expected / _RATIO <= mean <= expected * _RATIO


def expected_counts(log_cp10k: Float32Array | FloatArray, totals: FloatArray) -> Float32Array:
    """Expected counts ``(n, G)`` of spots with these ``totals`` ``(n,)``; negative predictions become 0."""
    fractions = np.expm1(np.maximum(log_cp10k, 0)) * (totals[:, None] / 1e4)
    return np.asarray(fractions, dtype=np.float32)
