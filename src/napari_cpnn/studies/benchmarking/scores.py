"""Scores per gene of predictions on one section."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.evaluation import column_ranks, morans_i, noise_ceilings, partial_pearson, pearson, spearman
from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.spots import array_coordinates, fit_array
from napari_cpnn.studies.benchmarking.sections import Aligned
from napari_cpnn.studies.benchmarking.units import expected_counts

CORRELATIONS = ("pcc", "scc", "pcc_given_depth", "scc_given_depth", "pcc_residuals")
"""Correlations per gene; the ones that negative controls must bring to 0."""

METRICS = (*CORRELATIONS, "rmse", "svg_ranks")
"""All metrics; ``svg_ranks`` is one number per section."""

THETA = 100.0
"""Overdispersion of the analytic Pearson residuals (Lause et al. 2021)."""

_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured values of a section in the forms that scores need.

    Attributes
    ----------
    log, ranks, residuals
        ``(n, G)``: log1p CP10k, its ranks, and analytic Pearson residuals.
    counts
        ``(n, G)``.
    totals, depth, depth_ranks
        ``(n,)`` total counts, their log, and its ranks.
    varies
        ``(G,)`` by metric: whether the measurement varies, so that there can be a correlation.
    moran
        ``(G,)`` Moran's I, or None if it is not computed.
    """

    log: Float32Array
    ranks: Float32Array
    residuals: Float32Array
    counts: Float32Array
    totals: FloatArray
    depth: FloatArray
    depth_ranks: FloatArray
    varies: dict[str, BoolArray]
    moran: FloatArray | None


def measured_of(aligned: Aligned, settings: BenchmarkSettings) -> Measured:
    """Prepare the measured values of a section."""
    depth, log = np.log(aligned.totals), aligned.measured
    ranks, depth_ranks = column_ranks(log), rankdata(depth)
    residuals = pearson_residuals(aligned.counts, aligned.totals)
    with_itself = {
        "pcc": pearson(log, log),
        "scc": pearson(ranks, ranks),
        "pcc_given_depth": partial_pearson(log, log, depth),
        "scc_given_depth": partial_pearson(ranks, ranks, depth_ranks),
        "pcc_residuals": pearson(residuals, residuals),
    }
    varies = {metric: np.isfinite(values) for metric, values in with_itself.items()}
    moran = moran_of(aligned, log) if settings.spatial else None
    return Measured(log, ranks, residuals, aligned.counts, aligned.totals, depth, depth_ranks, varies, moran)


def correlations(
    measured: Measured, predicted: Float32Array | FloatArray, ranks: Float32Array | None = None
) -> dict[str, FloatArray]:
    """Compute :data:`CORRELATIONS`, each ``(G,)``, of predictions ``(n, G)``.

    NaN where the measurement is constant or a prediction is NaN. A constant prediction, also one that is constant once
    depth is regressed out, is uncorrelated: it counts as 0, so that a model cannot gain by it, nor by those of others.

    Parameters
    ----------
    ranks
        Ranks of the predictions, if they are known.
    """
    ranks = column_ranks(predicted) if ranks is None else ranks
    scores = {
        "pcc": pearson(predicted, measured.log),
        "scc": pearson(ranks, measured.ranks),
        "pcc_given_depth": partial_pearson(predicted, measured.log, measured.depth),
        "scc_given_depth": partial_pearson(ranks, measured.ranks, measured.depth_ranks),
        "pcc_residuals": pearson(predicted, measured.residuals),
    }
    predicts = np.isfinite(predicted).all(axis=0)
    return {m: np.where(np.isnan(r) & predicts & measured.varies[m], 0.0, r) for m, r in scores.items()}


def rmse(measured: Measured, predicted: Float32Array | FloatArray) -> FloatArray:
    """Root mean squared error ``(G,)`` of the expected counts of predictions in log1p CP10k."""
    error = expected_counts(predicted, measured.totals) - measured.counts
    return np.asarray(np.sqrt(np.mean(error * error, axis=0, dtype=np.float64)))


def pearson_residuals(counts: npt.ArrayLike, totals: FloatArray, theta: float = THETA) -> Float32Array:
    """Analytic Pearson residuals ``(n, G)`` of a negative binomial model with fixed overdispersion.

    The expected count of a gene in a spot is its share in all counts times the total of the spot. Residuals are clipped
    to the square root of the number of spots, as in Lause, Berens and Kobak, Genome Biology 22, 258 (2021).

    Parameters
    ----------
    counts
        ``(n, G)``.
    totals
        ``(n,)`` counts of all genes of each spot.
    """
    table = np.asarray(counts, dtype=np.float32)
    share = table.sum(axis=0, dtype=np.float64) / totals.sum()
    limit = np.sqrt(len(table))
    result = np.empty_like(table)
    for start in range(0, table.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        mu = np.outer(totals, share[block])
        spread = np.sqrt(mu + mu * mu / theta)
        z = np.divide(table[:, block] - mu, spread, out=np.zeros_like(mu), where=spread > 0)
        result[:, block] = np.clip(z, -limit, limit)
    return result


def moran_of(aligned: Aligned, values: Float32Array | FloatArray) -> FloatArray:
    """Moran's I ``(G,)`` of values at the compared spots, with the neighbours of their array."""
    spots = aligned.section.spots[aligned.rows]
    array = fit_array(spots.obsm["spatial"], array_coordinates(spots.obs))
    return morans_i(values, aligned.centers_um, None if array is None else array.kind)


def rank_agreement(measured: FloatArray, predicted: FloatArray) -> float:
    """Spearman correlation over the genes that have both; NaN for fewer than three."""
    both = np.isfinite(measured) & np.isfinite(predicted)
    if both.sum() < 3:
        return float("nan")
    return float(spearman(predicted[both, None], measured[both, None])[0])


def ceilings_of(aligned: Aligned, settings: BenchmarkSettings) -> dict[str, FloatArray]:
    """Noise ceilings of ``pcc`` and ``pcc_given_depth``, each ``(G,)``."""
    if not settings.ceiling_repeats:
        return {}
    spots = aligned.section.spots[aligned.rows]
    table = noise_ceilings(spots, aligned.genes, settings.ceiling_repeats, settings.seed)
    return {
        "pcc": table["ceiling"].to_numpy(dtype=np.float64),
        "pcc_given_depth": table["ceiling_given_depth"].to_numpy(dtype=np.float64),
    }


def without_squidpy(settings: BenchmarkSettings) -> BenchmarkSettings:
    """Switch off Moran's I where squidpy is not installed, with a warning."""
    if not settings.spatial:
        return settings
    try:
        morans_i(np.arange(24.0).reshape(12, 2), np.c_[np.arange(12.0), np.zeros(12)])
    except TrainingError as error:
        warnings.warn(f"Ranks of spatially variable genes are left out: {error}", CpnnWarning, stacklevel=3)
        return settings.replace(spatial=False)
    return settings
