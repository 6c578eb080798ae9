"""Fit the out-of-domain score: axes from training patches, calibrated on held-out ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.models import BODY, CPNN, N_KNOTS, Domain
from napari_cpnn.prediction import ordinary_range
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data import Inputs, SpotData

#: Number of principal axes; results on her2st hardly differ from 8 to 64 (docs/methods.md).
N_AXES = 32

#: Minimum number of training patches per axis.
_PATCHES_PER_AXIS = 8

#: Minimum number of patches for a distribution of distances.
LEAST_PATCHES = 20

#: Maximum number of patches used, of training and held-out tissue each.
_MOST_PATCHES = 10_000

#: Number of bands of neighbouring patches for cross-fitting a single slide.
_BANDS = 4

#: Maximum number of training patches whose stain and sharpness are measured.
_MOST_SHOWN = 128


def fit_domain(model: CPNN, data: SpotData, inputs: Inputs, settings: TrainingSettings) -> None:
    """Fit the ``domain`` of a trained model, and record in ``provenance["domain"]`` what it is based on.

    Distances are calibrated on the held-out patches or, if these are fewer than `LEAST_PATCHES`, on the training
    patches by cross-fitting: each slide (or each of four bands of a single slide) is measured against the others. Since
    the network was trained on these patches, scores of new tissue are then higher.

    Warns
    -----
    CpnnWarning
        If there are too few training patches for either; the model then has no domain.
    """
    train, held_out = (_sample(rows, settings.seed) for rows in (data.train, data.held_out))
    if len(train) < LEAST_PATCHES:
        warnings.warn(
            f"{len(train)} training patches are too few to tell which tissue is unlike them ({LEAST_PATCHES} are "
            "needed); this model's predictions have no out-of-domain score.",
            CpnnWarning,
            stacklevel=3,
        )
        return
    features = inputs.own_features(model, train)
    if len(held_out) >= LEAST_PATCHES:
        unseen = Axes.of(features).parts(inputs.own_features(model, held_out))
        source = data.held_out_name
    else:
        unseen = _cross_fitted(features, _folds(data.slide_of[train]))
        source = "training patches, cross-fitted"
    model.domain = calibrated(Axes.of(features), unseen)
    shown = train[np.unique(np.linspace(0, len(train) - 1, _MOST_SHOWN).astype(np.intp))]
    model.provenance["domain"] = {
        "calibrated_on": source,
        "n_train": len(train),
        "n_calibration": len(unseen),
        "appearance": ordinary_range(np.asarray(data.images[shown])),
    }


@dataclass(frozen=True)
class Axes:
    """Principal axes of features: mean ``(F,)``, orthonormal rows ``(K, F)`` and variances ``(K,)``."""

    center: FloatArray
    axes: FloatArray
    variances: FloatArray

    @classmethod
    def of(cls, features: npt.ArrayLike, most: int = N_AXES) -> Axes:
        """Compute the axes of features ``(N, F)``, at most ``most`` and at most one per eight patches."""
        values = np.asarray(features, dtype=np.float64)
        center = values.mean(axis=0)
        _, singular, axes = np.linalg.svd(values - center, full_matrices=False)
        n = max(1, min(most, len(values) // _PATCHES_PER_AXIS, values.shape[1] - 1))
        variances = singular[:n] ** 2 / max(1, len(values) - 1)
        # Constant features have no principal axes; any other features are then far away.
        return cls(center, axes[:n], np.maximum(variances, 1e-6 * variances[0] + 1e-12))

    def parts(self, features: npt.ArrayLike) -> FloatArray:
        """Squared distances ``(N, 2)`` of features: Mahalanobis along the axes, Euclidean from their plane."""
        away = np.asarray(features, dtype=np.float64) - self.center
        along = away @ self.axes.T
        rest = away - along @ self.axes
        return np.stack([(along**2 / self.variances).sum(axis=1), (rest**2).sum(axis=1)], axis=1)


def calibrated(axes: Axes, unseen: FloatArray) -> Domain:
    """Create a calibrated domain from axes and the `Axes.parts` ``(N, 2)`` of patches not used to fit them.

    Both parts are divided by their means. The resulting distances give the quantiles up to `BODY`, at plotting
    positions i / (N + 1); above, the distribution is extrapolated by an exponential with the same mean excess (peaks
    over threshold), so that the score is strictly increasing.
    """
    means = np.maximum(unseen.mean(axis=0), 1e-12)
    distances = np.sort(np.sqrt((unseen / means).sum(axis=1) / 2))
    positions = np.arange(1, len(distances) + 1) / (len(distances) + 1)
    knots = np.interp(np.linspace(0, BODY, N_KNOTS), np.r_[0.0, positions], np.r_[0.0, distances])
    excess = distances[distances > knots[-1]] - knots[-1]
    domain = Domain(axes.axes.shape[1], len(axes.axes))
    for name, values in (
        ("center", axes.center),
        ("axes", axes.axes),
        ("variances", axes.variances * means[0]),
        ("residual", means[1]),
        ("knots", knots),
        ("tail", max(float(excess.mean()) if excess.size else 0.0, 1e-3 * float(knots[-1]), 1e-6)),
    ):
        getattr(domain, name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
    return domain


def _cross_fitted(features: npt.NDArray[np.float32], folds: IntArray) -> FloatArray:
    parts = np.empty((len(features), 2))
    for fold in np.unique(folds):
        parts[folds == fold] = Axes.of(features[folds != fold]).parts(features[folds == fold])
    return parts


def _folds(slides: IntArray) -> IntArray:
    """Folds for cross-fitting: one per slide, or bands of patches if there are not enough slides."""
    _, sizes = np.unique(slides, return_counts=True)
    if len(slides) - sizes.max() >= LEAST_PATCHES:
        return slides
    return np.arange(len(slides)) * _BANDS // len(slides)


def _sample(rows: IntArray, seed: int) -> IntArray:
    if len(rows) <= _MOST_PATCHES:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, _MOST_PATCHES, replace=False))
