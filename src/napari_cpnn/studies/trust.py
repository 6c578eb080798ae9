"""Calibrate how far to trust a model, from the predictions of a cross-validation.

*Intervals* are split conformal: quantiles of the residuals of spots that the model had not seen, in three groups by
predicted level (Mondrian), each slide of a patient and each patient with the same weight. Where most measurements are
0, the lower end is 0 and never missed, and the upper end takes the whole error.

*Scales*: predictions and measurements are averaged over growing neighbourhoods of spots and correlated; the finest
scale is trusted whose correlation has a lower 95 % bound above 0.3, by a bootstrap over blocks of tissue.

*Where is it high?* follows Jin and Candès (2023), Selection by prediction with conformal p-values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.spatial import cKDTree

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import pearson
from napari_cpnn.models import N_LEVELS, NO_SCALE, TAIL, Trust, expected_error

#: Coverage of the intervals.
COVERAGE = 0.9

#: A spot is high above this quantile of the measurements, and low below the opposite one.
HIGH = 0.75

#: Radii of neighbourhoods in pitches of the array; 0 is the spot itself.
RADII = (0.0, 1.1, 1.6, 2.3, 3.2, 4.5)

#: Least lower bound of the correlation at a trusted scale, and its one-sided confidence.
LEAST_PCC, CONFIDENCE = 0.3, 0.95

#: Least number of calibration spots.
LEAST_SPOTS = 20

#: Resamples of blocks, and least number of blocks on a slide.
_BOOTSTRAPS, _LEAST_BLOCKS = 200, 6


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for a slide by a model that had not seen it.

    Parameters
    ----------
    table
        As from :func:`~napari_cpnn.evaluation.predict_expression`: ``X`` predicted, ``layers["measured"]``,
        ``obsm["spatial"]`` px, ``uns["comparison"]["mpp"]``; all tested slides have the same genes.
    patient
        Whose slide it is.
    shares
        ``(n, C)`` deconvolved shares of the same spots, beside ``obsm["weights"]``; None for a model without cell
        types.
    """

    table: AnnData
    patient: str
    shares: FloatArray | None = None

    @property
    def predicted(self) -> FloatArray:
        """Predictions ``(n, Q)``, genes then cell types."""
        return self._beside(np.asarray(self.table.X), np.asarray(self.table.obsm["weights"]))

    @property
    def measured(self) -> FloatArray:
        """Measurements ``(n, Q)``."""
        return self._beside(np.asarray(self.table.layers["measured"]), self.shares)

    @property
    def places_um(self) -> FloatArray:
        """Positions ``(n, 2)`` in um."""
        mpp = np.asarray(self.table.uns["comparison"]["mpp"], dtype=np.float64)
        return np.asarray(self.table.obsm["spatial"], dtype=np.float64)[:, ::-1] * mpp

    def _beside(self, genes: FloatArray, types: FloatArray | None) -> FloatArray:
        if self.shares is None or types is None:
            return np.asarray(genes, dtype=np.float64)
        return np.concatenate([genes, types], axis=1).astype(np.float64)


def fit_trust(tested: Sequence[HeldOutPredictions]) -> Trust:
    """Fit intervals, p-values and scales to the predictions of a cross-validation.

    Raises
    ------
    TrainingError
        If there are fewer than 20 spots with finite predictions, or slides have different genes.
    """
    names = [tuple(one.table.var_names) for one in tested]
    if len(set(names)) > 1:
        raise TrainingError("The tested slides have different genes, so they cannot calibrate one model.")
    slides = [_Slide.of(one) for one in tested]
    predicted, measured, weights = _pooled(slides)
    if len(predicted) < LEAST_SPOTS:
        raise TrainingError(
            f"{len(predicted)} tested spots are too few to calibrate intervals; {LEAST_SPOTS} are needed."
        )
    trust = Trust(predicted.shape[1])
    fits = {"n_spots": np.asarray(len(predicted)), **_intervals(predicted, measured, weights)}
    fits |= _selection(predicted, measured)
    pcc, scale = _scales(slides)
    for name, values in {**fits, "pcc": pcc, "scale_um": scale}.items():
        getattr(trust, name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
    return trust


@dataclass(frozen=True)
class _Slide:
    """Spots of a tested slide with finite values: ``predicted (n, Q)``, ``measured (n, Q)``, ``places_um (n, 2)``."""

    patient: str
    predicted: FloatArray
    measured: FloatArray
    places_um: FloatArray

    @classmethod
    def of(cls, tested: HeldOutPredictions) -> _Slide:
        p, m = tested.predicted, tested.measured
        good = np.isfinite(p).all(axis=1) & np.isfinite(m).all(axis=1)
        return cls(tested.patient, p[good], m[good], tested.places_um[good])


def _pooled(slides: Sequence[_Slide]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Predictions, measurements and weights of all spots; the weights of a patient sum to 1."""
    patients = [slide.patient for slide in slides]
    weights = [np.full(len(s.predicted), 1 / max(len(s.predicted), 1) / patients.count(s.patient)) for s in slides]
    predicted, measured = [s.predicted for s in slides], [s.measured for s in slides]
    return np.concatenate(predicted), np.concatenate(measured), np.concatenate(weights)


def _intervals(predicted: FloatArray, measured: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    n_quantities = predicted.shape[1]
    edges = np.quantile(predicted, np.arange(1, N_LEVELS) / N_LEVELS, axis=0)
    errors = np.abs(measured - predicted)
    spread, floor = _spread(predicted, errors, weights), errors.mean(axis=0) / 4 + 1e-6
    lower, upper = (np.empty((N_LEVELS, n_quantities)) for _ in range(2))
    for q in range(n_quantities):
        p, m = predicted[:, q], measured[:, q]
        level = np.searchsorted(edges[:, q], p, side="right")
        expected = expected_error(p, spread[:, q], floor[q])
        for k in range(N_LEVELS):
            rows = level == k
            if not rows.any():  # a constant prediction has one level
                rows = np.ones(len(level), dtype=bool)
            lower[k, q], upper[k, q] = _ends(p[rows], m[rows], expected[rows], weights[rows])
    return {"edges": edges, "spread": spread, "floor": floor, "lower": lower, "upper": upper}


def _spread(predicted: FloatArray, errors: FloatArray, weights: FloatArray) -> FloatArray:
    """Intercept and slope ``(2, Q)`` of the weighted regression of absolute errors on predictions."""
    share = weights / weights.sum()
    mean_p, mean_e = share @ predicted, share @ errors
    away = predicted - mean_p
    variance = share @ away**2
    slope = np.where(variance > 1e-12, (share @ (away * errors)) / np.maximum(variance, 1e-12), 0.0)
    return np.stack([mean_e - slope * mean_p, slope])


def _ends(
    predicted: FloatArray, measured: FloatArray, expected: FloatArray, weights: FloatArray
) -> tuple[float, float]:
    """Ends of the central 90 % of normalised residuals, the upper one with the error that the lower one leaves."""
    residuals, miss = (measured - predicted) / expected, 1 - COVERAGE
    total = weights.sum() * (1 + 1 / len(weights))  # the new spot counts as one of them
    low = -_upper_quantile(-residuals, weights, total, 1 - miss / 2)
    missed = weights[measured < np.maximum(predicted + low * expected, 0) - 1e-9].sum() / total
    return low, _upper_quantile(residuals, weights, total, 1 - (miss - missed))


def _upper_quantile(values: FloatArray, weights: FloatArray, total: float, share: float) -> float:
    """Smallest value with at least ``share`` of ``total`` weight at or below it; the largest if there is none."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    place = int(np.searchsorted(sums, share * total - 1e-12))
    return float(values[order[min(place, len(values) - 1)]])


def _selection(predicted: FloatArray, measured: FloatArray) -> dict[str, FloatArray]:
    """Thresholds, and predictions of the spots beyond which a measurement is not high (not low)."""
    n_quantities = predicted.shape[1]
    threshold, share = np.empty((2, n_quantities)), np.empty((2, n_quantities))
    tails = np.empty((2, len(TAIL), n_quantities))
    for row, (sign, quantile) in enumerate(((1, HIGH), (-1, 1 - HIGH))):
        threshold[row] = np.quantile(measured, quantile, axis=0)
        null = sign * measured <= sign * threshold[row]
        share[row] = null.mean(axis=0)
        for q in range(n_quantities):
            tails[row, :, q] = np.quantile(sign * predicted[null[:, q], q], 1 - TAIL, method="higher")
    return {"threshold": threshold, "null_share": share, "tails": tails}


def _scales(slides: Sequence[_Slide]) -> tuple[FloatArray, FloatArray]:
    """Mean correlation over spots, and finest trusted scale in um, of each quantity."""
    slides = [slide for slide in slides if len(slide.places_um) >= 2]
    pitch = float(np.median([_pitch(slide.places_um) for slide in slides]))
    scale = np.full(slides[0].predicted.shape[1], NO_SCALE)
    for radius in RADII:
        correlations = []
        for slide in slides:
            blocks = _blocks(slide.places_um, max(2 * radius, 3) * pitch)
            if blocks.max() + 1 >= _LEAST_BLOCKS:
                mean = neighbourhoods(slide.places_um, radius * pitch)
                correlations.append(_resampled(mean @ slide.predicted, mean @ slide.measured, blocks))
        if correlations:
            low = np.quantile(np.mean(correlations, axis=0), 1 - CONFIDENCE, axis=0)
            scale[(scale == NO_SCALE) & (low > LEAST_PCC)] = max(2 * radius, 1) * pitch
    pcc = np.nan_to_num([pearson(slide.predicted, slide.measured) for slide in slides])
    return pcc.mean(axis=0), scale


def neighbourhoods(places_um: FloatArray, radius_um: float) -> sp.csr_matrix:
    """Matrix ``(n, n)`` that averages values of spots over their neighbours within a radius, themselves included."""
    pairs = cKDTree(places_um).query_pairs(radius_um, output_type="ndarray")
    n = len(places_um)
    rows = np.r_[pairs[:, 0], pairs[:, 1], np.arange(n)]
    columns = np.r_[pairs[:, 1], pairs[:, 0], np.arange(n)]
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return sp.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix


def _pitch(places_um: FloatArray) -> float:
    return float(np.median(cKDTree(places_um).query(places_um, k=2)[0][:, 1]))


def _blocks(places_um: FloatArray, side_um: float) -> IntArray:
    """Number of the square block of tissue of each spot."""
    square = np.floor((places_um - places_um.min(axis=0)) / side_um).astype(np.intp)
    return np.unique(square, axis=0, return_inverse=True)[1].ravel()


def _resampled(predicted: FloatArray, measured: FloatArray, blocks: IntArray) -> FloatArray:
    """Correlations ``(bootstraps, Q)`` over spots, with blocks drawn with replacement; 0 for a constant."""
    rng = np.random.default_rng(0)
    n_blocks = int(blocks.max()) + 1
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), _BOOTSTRAPS)
    weights = drawn[:, blocks].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    p, m = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    mean_p, mean_m = weights @ p, weights @ m
    covariance = weights @ (p * m) - mean_p * mean_m
    variance = (weights @ p**2 - mean_p**2) * (weights @ m**2 - mean_m**2)
    safe = variance > 1e-20
    return np.where(safe, covariance / np.sqrt(np.where(safe, variance, 1.0)), 0.0)
