"""Baselines that know little: mean of the training sections, sequencing depth, colours, number of nuclei.

Baselines are linear in few numbers per spot. They are fitted on the sections of other patients, or on the other
sections if there is one patient, with sums of products per section, so that no section is read twice. The numbers are
standardised within each section, since stain and depth differ between sections, and the measured expression is
centred; predictions are the mean of the training sections plus the fitted deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_cpnn.arrays import FloatArray
from napari_cpnn.spots import counts_matrix, expression
from napari_cpnn.studies.benchmarking.image_statistics import ImageStatistics
from napari_cpnn.studies.benchmarking.sections import Aligned, Section

TRAIN_MEAN, DEPTH, COLOURS, NUCLEI = "train mean", "depth oracle", "colour statistics", "nuclei count"

BASELINES = (DEPTH, COLOURS, NUCLEI, TRAIN_MEAN)
"""Names of the baselines."""

#: Penalties of the ridge regression, per spot; the middle one is used if there is one training section.
PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-3, 4))


@dataclass(frozen=True, eq=False)
class SectionSums:
    """Sums over the spots of a section, from which regressions on any set of sections follow.

    Attributes
    ----------
    genes
        All ``G`` measured genes.
    n
        Number of spots.
    mean
        ``(G,)`` mean expression, log1p CP10k.
    features
        Standardised numbers ``(N, p)`` of all spots by baseline; NaN where the image cannot be read.
    products
        By baseline ``F'F (p, p)`` and ``F'Y (p, G)``.
    """

    genes: pd.Index[str]
    n: int
    mean: FloatArray
    features: dict[str, FloatArray]
    products: dict[str, tuple[FloatArray, FloatArray]]


def sums_of(section: Section, images: ImageStatistics) -> SectionSums:
    """Sum up a section."""
    totals = np.asarray(counts_matrix(section.spots).sum(axis=1), dtype=np.float64)
    ok = images.ok
    raw = {DEPTH: np.log(totals), COLOURS: images.colours, NUCLEI: np.log1p(images.nuclei)[:, None]}
    features = {name: _standardised(np.asarray(values).reshape(len(ok), -1), ok) for name, values in raw.items()}
    values = expression(section.spots)[ok]
    centred = values - values.mean(axis=0, dtype=np.float64)
    products = {}
    for name, numbers in features.items():
        f = numbers[ok]
        products[name] = (f.T @ f, np.asarray(f.T @ centred))
    genes = pd.Index([str(gene) for gene in section.spots.var_names])
    mean = values.mean(axis=0, dtype=np.float64) if ok.any() else np.zeros(len(genes))
    return SectionSums(genes, int(ok.sum()), mean, features, products)


def _standardised(values: FloatArray, ok: np.ndarray) -> FloatArray:
    result = np.full(values.shape, np.nan)
    if ok.any():
        centred = values[ok] - values[ok].mean(axis=0)
        spread = centred.std(axis=0)
        result[ok] = centred / np.where(spread > 1e-12, spread, np.inf)
    return result


def baseline_predictions(
    aligned: Aligned, own: SectionSums, training: Sequence[SectionSums]
) -> tuple[dict[str, FloatArray], bool]:
    """Predictions ``(n, G)`` of the baselines for one section.

    Parameters
    ----------
    own
        Sums of this section, of which only the features are used.
    training
        Sums of the sections to fit on. If there are none, depth and nuclei are used as they are, which gives
        correlations but no counts, and the other two are left out.

    Returns
    -------
    predictions
        By baseline; in float64, so that what is exactly a line in depth remains one.
    fitted
        Whether there are training sections.
    """
    training = [one for one in training if one.n > 1]
    shape = aligned.measured.shape
    if not training:
        plain = {name: own.features[name][aligned.rows] for name in (DEPTH, NUCLEI)}
        return {name: np.broadcast_to(values, shape) for name, values in plain.items()}, False
    where = [one.genes.get_indexer(pd.Index(aligned.genes)) for one in training]
    n = sum(one.n for one in training)
    # A gene that is not in a training table was not detected there.
    mean = total([one.n * np.where(at >= 0, one.mean[at], 0.0) for one, at in zip(training, where, strict=True)]) / n
    predictions: dict[str, FloatArray] = {}
    for name in (DEPTH, COLOURS, NUCLEI):
        grams = [one.products[name][0] for one in training]
        targets = [
            np.where(at >= 0, one.products[name][1][:, at], 0.0) for one, at in zip(training, where, strict=True)
        ]
        penalty = 0.0 if name != COLOURS else choose_penalty(grams, targets, [one.n for one in training])
        slopes = ridge(total(grams), total(targets), penalty * n)
        predictions[name] = mean + own.features[name][aligned.rows] @ slopes
    predictions[TRAIN_MEAN] = np.broadcast_to(mean, shape)
    return predictions, True


def total(arrays: Sequence[FloatArray]) -> FloatArray:
    """Sum of arrays of one shape."""
    return np.asarray(np.sum(arrays, axis=0))


def ridge(gram: FloatArray, target: FloatArray, penalty: float) -> FloatArray:
    """Solve ``(F'F + penalty I) B = F'Y``; directions without information get 0."""
    values, vectors = np.linalg.eigh(gram)
    floor = max(float(values.max(initial=0.0)), 1.0) * 1e-10
    inverse = np.divide(1.0, values + penalty, out=np.zeros_like(values), where=values > floor)
    solution: FloatArray = vectors @ (inverse[:, None] * (vectors.T @ target))
    return solution


def choose_penalty(grams: Sequence[FloatArray], targets: Sequence[FloatArray], n_spots: Sequence[int]) -> float:
    """Penalty per spot with the least squared error when each training section is left out in turn.

    The error of slopes ``B`` on a section is ``|Y|^2 - 2 <B, F'Y> + <B, F'F B>``, so that its sums suffice.

    Parameters
    ----------
    grams, targets
        ``F'F (p, p)`` and ``F'Y (p, G)`` of each section.
    n_spots
        Number of spots of each.
    """
    if len(grams) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    gram, target, n = total(grams), total(targets), sum(n_spots)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for own, y, k in zip(grams, targets, n_spots, strict=True):
            slopes = ridge(gram - own, target - y, penalty * (n - k))
            error += float(-2 * (slopes * y).sum() + (slopes * (own @ slopes)).sum())
        errors.append(error)
    return PENALTIES[int(np.argmin(errors))]
