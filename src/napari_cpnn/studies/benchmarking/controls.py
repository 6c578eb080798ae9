"""Negative controls: predictions moved to wrong places, whose scores must vanish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.evaluation import column_ranks
from napari_cpnn.studies.benchmarking.scores import CORRELATIONS, Measured, correlations
from napari_cpnn.studies.benchmarking.sections import Aligned

SHIFTED, OTHER_SECTION = "shifted", "other section"

CONTROLS = {
    SHIFTED: "predictions are shifted over the section",
    OTHER_SECTION: "predictions for another section are taken",
}
"""Negative controls, and what is done in each, for sentences."""

SURVIVES = 0.02
"""A score has survived a control if it exceeds this and what chance gives, and its interval excludes 0."""

#: Standard deviations of chance that a score for another section must exceed.
N_SD = 2.0

#: Number of other sections whose predictions are laid onto a section.
_MAX_DONORS = 4


def score_shifted(
    measured: Measured, predicted: Float32Array, places: Iterable[IntArray]
) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Correlations of predictions that are assigned to other spots.

    Parameters
    ----------
    predicted
        ``(n, G)``.
    places
        For each assignment, the row of the prediction that each spot gets. Ranks are those over all spots of the
        section and are not recomputed.

    Returns
    -------
    scores
        Mean over the assignments ``(G,)``, by metric.
    spread
        Standard deviation over the assignments of the mean over genes, by metric: what maps as smooth as these give by
        chance, once.
    """
    ranks = column_ranks(predicted)
    scores = [correlations(measured, predicted[rows], ranks[rows]) for rows in places]
    spread = {}
    for metric in CORRELATIONS:
        known = [one[metric][np.isfinite(one[metric])] for one in scores]
        spread[metric] = float(np.std([values.mean() for values in known if len(values)] or [0.0]))
    return _mean(scores), spread


def score_donors(measured: Measured, laid: Iterable[Float32Array]) -> dict[str, FloatArray]:
    """Mean correlations ``(G,)`` of the predictions ``(n, G)`` of other sections."""
    return _mean([correlations(measured, values) for values in laid])


def torus_shifts(centers_um: FloatArray, steps: int) -> list[IntArray]:
    """Rows of the predictions that each spot gets when the section is shifted on a torus.

    Positions that leave the section on one side return on the other. Each spot gets the prediction of the spot nearest
    to its shifted position. Shifts are all combinations of equal steps along the axes but the one that moves nothing:
    over all of them, patterns that are coarser than a step cancel, where random shifts would leave chance correlations.

    Parameters
    ----------
    centers_um
        ``(n, 2)``.
    steps
        Steps per axis; there are ``steps**2 - 1`` shifts.
    """
    pitch = float(np.median(cKDTree(centers_um).query(centers_um, k=2)[0][:, 1]))
    low = centers_um.min(axis=0)
    # One pitch more than the extent: opposite edges become neighbours, but do not coincide.
    size = np.maximum(np.ptp(centers_um, axis=0) + pitch, 1e-6)
    places = np.mod(centers_um - low, size)
    tree = cKDTree(places, boxsize=size)
    shifts = np.stack(np.divmod(np.arange(1, steps * steps), max(steps, 1)), axis=1) / max(steps, 1)
    return [np.asarray(tree.query(np.mod(places + shift * size, size))[1], dtype=np.intp) for shift in shifts]


def donors_of(aligned: Sequence[Aligned], index: int) -> list[Aligned]:
    """Sections whose predictions are laid onto a section: of other patients, or else other sections of this one.

    The following sections are taken, and at most half of them, so that most pairs of sections occur once: two smooth
    maps that are alike by chance are so both ways, and would count twice.
    """
    own = aligned[index].section
    others = [*aligned[index + 1 :], *aligned[:index]]
    foreign = [one for one in others if one.section.group != own.group]
    candidates = foreign or others
    return candidates[: min(_MAX_DONORS, (len(candidates) + 1) // 2)]


def laid_onto(target: Aligned, donor: Aligned, name: str) -> Float32Array:
    """Predictions ``(n, G)`` of a model for another section, stretched to the extent of this one.

    Each spot gets the prediction of the spot that lies nearest when both sections fill the unit square; NaN for genes
    that are not predicted there.
    """
    tree = cKDTree(_unit_square(donor.centers_um))
    rows = tree.query(_unit_square(target.centers_um))[1]
    at = pd.Index(donor.genes).get_indexer(pd.Index(target.genes))
    laid: Float32Array = donor.predicted[name][rows][:, at]
    laid[:, at < 0] = np.nan
    return laid


def _unit_square(places: FloatArray) -> FloatArray:
    size = np.ptp(places, axis=0)
    return np.asarray((places - places.min(axis=0)) / np.where(size > 0, size, 1.0))


def _mean(scores: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Mean of each metric over the assignments in which a gene has a score."""
    result = {}
    for metric in CORRELATIONS:
        values = np.stack([one[metric] for one in scores])
        known = np.isfinite(values)
        total, n = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
        result[metric] = np.divide(total, n, out=np.full(len(total), np.nan), where=n > 0)
    return result
