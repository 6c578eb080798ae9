"""Calibrate how far to trust a model, from spots that it has not seen.

*Intervals* are split conformal: quantiles of residuals, divided by the error that is expected at a prediction, in three
groups by predicted level (Mondrian); each patient has the same weight. Where most measurements are 0, the lower end is
0 and never missed, and the upper end takes the whole error.

*Scales*: predictions and measurements are averaged over growing neighbourhoods of spots and correlated; the finest
scale is trusted whose correlation has a lower 95 % bound above 0.3, by a bootstrap over blocks of tissue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from napari_cpnn.arrays import BoolArray, FloatArray, IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.metrics import pearson
from napari_cpnn.evaluation.neighbourhoods import RADII, blocks_at, neighbourhoods, pitch_of, scale_of
from napari_cpnn.evaluation.selection import combined_rates, group_of, known_elsewhere, section_rates
from napari_cpnn.models import N_LEVELS, NO_SCALE, NOT_TESTED, OPEN, Trust, expected_error
from napari_cpnn.texts import shown as one_line
from napari_cpnn.untrusted import reading

#: Coverage of the intervals.
COVERAGE = 0.9

#: Least lower bound of the correlation at a trusted scale, and its one-sided confidence.
LEAST_PCC, CONFIDENCE = 0.3, 0.95

#: Least number of calibration spots.
LEAST_SPOTS = 20

#: Largest distance of a spot from the slide's origin in um, and largest value of a prediction or measurement.
_FARTHEST_UM, _MOST = 1e7, 1e6

#: Quantities in memory at a time.
_BLOCK = 2048

#: Resamples of blocks, and quantities that are resampled at a time: their resamples stay in the processor's cache.
_BOOTSTRAPS, _RESAMPLED = 200, 256


@dataclass(frozen=True, eq=False)
class HeldOutSpots:
    """Spots of a slide with the predictions of a model that had not seen them.

    Parameters
    ----------
    patient
        Whose slide it is.
    predicted, measured
        ``(n, Q)``, the genes of the model and then its cell types; NaN where a gene was not measured.
    places_um
        ``(n, 2)`` slide micrometres.
    """

    patient: str
    predicted: FloatArray
    measured: FloatArray
    places_um: FloatArray

    @classmethod
    def of_table(
        cls, table: AnnData, genes: Sequence[str], patient: str, shares: FloatArray | None = None
    ) -> HeldOutSpots:
        """Take the values of a table as :func:`~napari_cpnn.evaluation.predict_expression` returns it.

        Parameters
        ----------
        genes
            All genes of the model, in its order.
        shares
            ``(n, C)``, composition of the same spots by deconvolution, beside the predicted ``obsm["weights"]``; None:
            cell types are not calibrated.
        """
        column = {gene: i for i, gene in enumerate(table.var_names)}
        known = np.array([column.get(gene, -1) for gene in genes])
        predicted, measured = (
            np.where(known >= 0, np.asarray(values, dtype=np.float64)[:, known], np.nan)
            for values in (table.X, table.layers["measured"])
        )
        weights = np.asarray(table.obsm["weights"], dtype=np.float64)
        truth = np.full_like(weights, np.nan) if shares is None else np.asarray(shares, dtype=np.float64)
        mpp = np.asarray(table.uns["comparison"]["mpp"], dtype=np.float64)
        places = np.asarray(table.obsm["spatial"], dtype=np.float64)[:, ::-1] * mpp
        return cls(patient, np.hstack([predicted, weights]), np.hstack([measured, truth]), places)


def fit_trust(slides: Sequence[HeldOutSpots], n_genes: int | None = None) -> Trust:
    """Fit intervals, trusted scales, and where genes can be marked as high or low.

    Quantities with fewer than 20 measured spots are not calibrated: their interval is as wide as the measurements.

    Parameters
    ----------
    slides
        At least one; with two, places can be marked.
    n_genes
        How many of the quantities are genes; None: all.

    Raises
    ------
    TrainingError
        If there are fewer than 20 spots, or as many have no quantity with a prediction and a measurement; if shapes do
        not agree, or values are infinite.
    """
    slides = [_checked(slide) for slide in slides]
    if len({slide.predicted.shape[1] for slide in slides}) > 1:
        raise TrainingError("The slides have predictions of different numbers of genes and cell types.")
    n_spots = sum(len(slide.places_um) for slide in slides)
    if n_spots < LEAST_SPOTS:
        raise TrainingError(
            f"{n_spots} spots that the model has not seen are too few to calibrate intervals; {LEAST_SPOTS} are needed."
        )
    predicted = np.concatenate([slide.predicted for slide in slides])
    measured = np.concatenate([slide.measured for slide in slides])
    patients = [slide.patient for slide in slides]
    weights = np.concatenate(
        [np.full(len(s.places_um), 1 / max(len(s.places_um), 1) / patients.count(s.patient)) for s in slides]
    )
    trust = Trust(predicted.shape[1])
    good = np.isfinite(predicted) & np.isfinite(measured)
    if good.sum(axis=0).max(initial=0) < LEAST_SPOTS:
        raise TrainingError(
            f"No gene or cell type has a prediction and a measurement in {LEAST_SPOTS} spots, so nothing can be "
            "calibrated."
        )
    for columns in _alike(good):
        rows = good[:, columns[0]]
        if rows.sum() < LEAST_SPOTS:
            _leave_open(trust, columns)
            continue
        p, m = predicted[np.ix_(rows, columns)], measured[np.ix_(rows, columns)]
        for name, values in _interval(p, m, weights[rows]).items():
            trust.get_buffer(name)[..., columns] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    slides = [slide for slide in slides if len(slide.places_um) >= 2]
    pitches = [p for p in (pitch_of(slide.places_um) for slide in slides) if p > 0]
    pitch = float(np.median(pitches)) if pitches else 0.0
    pcc, scale = _scales(slides, pitch)
    if pitch:
        rates = _marking_rates(slides, pitch, n_genes)
        trust.false_share.copy_(torch.from_numpy(rates))
        trust.marked_um.copy_(torch.tensor([scale_of(radius, pitch) for radius in RADII]))
    trust.slope.copy_(torch.from_numpy(_slopes(slides)))
    trust.pcc.copy_(torch.from_numpy(pcc))
    trust.scale_um.copy_(torch.from_numpy(scale))
    trust.n_spots.fill_(n_spots)
    return trust


def _checked(slide: HeldOutSpots) -> HeldOutSpots:
    """Return the slide with arrays of float64; :class:`TrainingError` if they cannot be calibrated with."""
    owner = f"The held-out spots of {one_line(slide.patient)}"
    with reading(owner, TrainingError, "they must be tables of numbers"):
        predicted, measured, places = (
            np.asarray(values, dtype=np.float64) for values in (slide.predicted, slide.measured, slide.places_um)
        )
    if predicted.ndim != 2 or measured.shape != predicted.shape or places.shape != (len(predicted), 2):
        raise TrainingError(
            f"{owner} have predictions {predicted.shape}, measurements {measured.shape} and positions {places.shape}; "
            "they must be (n, Q), (n, Q) and (n, 2)."
        )
    if not (np.abs(places) < _FARTHEST_UM).all():
        raise TrainingError(f"{owner} have positions that are NaN, infinite or beyond any slide.")
    if (np.abs(predicted) > _MOST).any() or (np.abs(measured) > _MOST).any():
        raise TrainingError(f"{owner} have infinite values, or values that are neither expression nor shares.")
    return HeldOutSpots(slide.patient, predicted, measured, places)


def _alike(good: BoolArray) -> Iterator[IntArray]:
    """Yield indices of columns of ``good (n, Q)`` that are equal, at most `_BLOCK` at a time."""
    _, group = np.unique(np.packbits(good, axis=0), axis=1, return_inverse=True)
    for number in range(int(group.max()) + 1):
        columns = np.flatnonzero(group.ravel() == number)
        yield from (columns[i : i + _BLOCK] for i in range(0, len(columns), _BLOCK))


def _leave_open(trust: Trust, columns: IntArray) -> None:
    """Give quantities without measurements an unlimited interval."""
    trust.floor[columns] = 1.0
    trust.lower[:, columns], trust.upper[:, columns], trust.most[columns] = -OPEN, OPEN, OPEN


# The functions below take ``predicted`` and ``measured``, (n, q), and return one value or column for each quantity.


def _interval(predicted: FloatArray, measured: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    edges = np.quantile(predicted, np.arange(1, N_LEVELS) / N_LEVELS, axis=0)
    errors = np.abs(measured - predicted)
    spread, floor = _spread(predicted, errors, weights / weights.sum()), errors.mean(axis=0) / 4 + 1e-6
    expected = expected_error(predicted, spread, floor)
    level = (predicted[None] >= edges[:, None]).sum(axis=0)
    residuals, by_prediction = _Sorted((measured - predicted) / expected), _Sorted(predicted)
    ends, centers = np.empty((2, N_LEVELS, predicted.shape[1])), np.empty((N_LEVELS, predicted.shape[1]))
    inside = np.ones_like(level, dtype=bool)
    for k in reversed(range(N_LEVELS)):
        here = level == k
        # Tied predictions may leave a level without spots; it has those of the next higher one then.
        inside = np.where(here.any(axis=0), here, inside)
        ends[:, k] = _ends(predicted, measured, expected, residuals, weights[:, None] * inside)
        centers[k] = by_prediction.median(inside)
    # A prediction lies in its own interval.
    lower, upper = np.minimum(ends[0], 0.0), np.maximum(ends[1], 0.0)
    return {
        "centers": centers, "spread": spread, "floor": floor, "lower": lower, "upper": upper,
        "most": measured.max(axis=0),
    }  # fmt: skip


def _spread(predicted: FloatArray, errors: FloatArray, share: FloatArray) -> FloatArray:
    """Intercept and slope ``(2, q)`` of the weighted regression of absolute errors on predictions."""
    mean_p, mean_e = share @ predicted, share @ errors
    away = predicted - mean_p
    variance = share @ away**2
    slope = np.where(variance > 1e-12, (share @ (away * errors)) / np.maximum(variance, 1e-12), 0.0)
    return np.stack([mean_e - slope * mean_p, slope])


def _ends(
    predicted: FloatArray, measured: FloatArray, expected: FloatArray, residuals: _Sorted, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Ends of the central 90 % of normalised residuals, the upper one with the error that the lower one leaves.

    Spots without ``weights (n, q)`` do not count.
    """
    miss = 1 - COVERAGE
    total = weights.sum(axis=0) * (1 + 1 / (weights > 0).sum(axis=0))  # the new spot counts as one of them
    ordered = residuals.in_order(weights)
    low = residuals.reached(ordered, total * (1 - miss / 2), downwards=True)
    outside = measured < np.maximum(predicted + low * expected, 0) - 1e-9
    missed = (weights * outside).sum(axis=0) / total
    return low, residuals.reached(ordered, total * (1 - (miss - missed)))


class _Sorted:
    """Values ``(n, q)`` sorted within their columns, once for quantiles of several subsets of their rows."""

    def __init__(self, values: FloatArray) -> None:
        self._order = np.argsort(np.ascontiguousarray(values.T), axis=1)  # columns that are contiguous sort faster
        self._values = np.take_along_axis(values.T, self._order, axis=1)

    def in_order(self, rows: FloatArray) -> FloatArray:
        """Take what belongs to the values, ``(n, q)``, in their order, ``(q, n)``."""
        return np.take_along_axis(rows.T, self._order, axis=1)

    def reached(self, weights: FloatArray, wanted: FloatArray, downwards: bool = False) -> FloatArray:
        """Smallest value of each column with ``wanted`` weight (above 0) at or below it; else the largest with any.

        ``weights (q, n)`` are :meth:`in_order`. ``downwards`` begins at the largest value instead.
        """
        if downwards:
            weights = weights[:, ::-1]
        sums, last = np.cumsum(weights, axis=1), weights.shape[1] - 1
        # Of places with the same sum the first has the weight: a value without one is never chosen.
        limit = np.minimum(wanted - 1e-12, sums[:, -1])
        place = np.minimum((sums < limit[:, None]).sum(axis=1), last)
        return np.asarray(self._values[np.arange(len(place)), last - place if downwards else place])

    def median(self, chosen: BoolArray) -> FloatArray:
        """Median of the ``chosen (n, q)`` values of each column."""
        so_far = np.cumsum(np.take_along_axis(chosen.T, self._order, axis=1), axis=1)
        n, columns = so_far[:, -1], np.arange(len(so_far))
        ends = ((so_far <= (n[:, None] - 1) // 2).sum(axis=1), (so_far <= n[:, None] // 2).sum(axis=1))
        return np.asarray(np.mean([self._values[columns, end] for end in ends], axis=0))


def _scales(slides: Sequence[HeldOutSpots], pitch: float) -> tuple[FloatArray, FloatArray]:
    """Mean correlation over spots, and finest trusted scale in um, of each quantity."""
    n_quantities = slides[0].predicted.shape[1] if slides else 0
    scale, pcc = np.full(n_quantities, NOT_TESTED), np.zeros(n_quantities)
    if not pitch:
        return pcc, scale
    for radius in RADII:
        parts = []
        for slide in slides:
            blocks = blocks_at(slide.places_um, radius, pitch)
            if blocks is not None:
                parts.append((slide, blocks, neighbourhoods(slide.places_um, radius * pitch)))
        # Only a finest scale is looked for.
        open_ones = np.flatnonzero((scale == NOT_TESTED) | (scale == NO_SCALE)) if parts else np.arange(0)
        for start in range(0, len(open_ones), _RESAMPLED):
            columns = open_ones[start : start + _RESAMPLED]
            # A slide on which a gene was not measured does not count; one on which it is constant counts as 0.
            sums, n_known = np.zeros((len(columns), _BOOTSTRAPS)), np.zeros((len(columns), _BOOTSTRAPS), dtype=np.intp)
            for slide, blocks, mean in parts:
                r = _resampled(mean @ slide.predicted[:, columns], mean @ slide.measured[:, columns], blocks)
                known = np.isfinite(r)
                sums += np.where(known, r, 0)
                n_known += known
            sums /= np.maximum(n_known, 1)
            sums.sort(axis=1)  # much faster than np.quantile
            place = (1 - CONFIDENCE) * (_BOOTSTRAPS - 1)
            below, part = int(place), place % 1
            low = (1 - part) * sums[:, below] + part * sums[:, below + 1]
            tested = n_known.any(axis=1)
            scale[columns[tested]] = NO_SCALE
            scale[columns[tested & (low > LEAST_PCC)]] = scale_of(radius, pitch)
    values = np.array([pearson(slide.predicted, slide.measured) for slide in slides])
    counted = np.isfinite(values)
    return np.where(counted, values, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1), scale


def _slopes(slides: Sequence[HeldOutSpots]) -> FloatArray:
    """Slopes of measurements on predictions within slides, each patient and each of its slides of the same weight."""
    n_quantities = slides[0].predicted.shape[1] if slides else 0
    products, squares = np.zeros(n_quantities), np.zeros(n_quantities)
    patients = [slide.patient for slide in slides]
    for slide in slides:
        known = np.isfinite(slide.predicted) & np.isfinite(slide.measured)
        n = known.sum(axis=0)
        p, m = (np.where(known, values, 0.0) for values in (slide.predicted, slide.measured))
        p, m = (np.where(known, values - values.sum(axis=0) / np.maximum(n, 1), 0.0) for values in (p, m))
        share = (n >= LEAST_SPOTS) / np.maximum(n, 1) / patients.count(slide.patient)
        products += share * (p * m).sum(axis=0)
        squares += share * (p * p).sum(axis=0)
    # A prediction that is the same everywhere has no slope.
    slope = np.divide(products, squares, out=np.full(n_quantities, OPEN), where=squares > 1e-12)
    return np.asarray(np.where(np.abs(slope) <= OPEN, slope, OPEN))


def _marking_rates(slides: Sequence[HeldOutSpots], pitch: float, n_genes: int | None) -> FloatArray:
    """Shares of wrong places among marked ones, as :attr:`Trust.false_share`."""
    pcc = [pearson(slide.predicted[:, :n_genes], slide.measured[:, :n_genes]) for slide in slides]
    elsewhere = known_elsewhere(np.array(pcc))
    rates = []
    for radius in RADII:
        of_sections = []
        for slide, known in zip(slides, elsewhere, strict=True):
            if blocks_at(slide.places_um, radius, pitch) is not None:
                mean, group = neighbourhoods(slide.places_um, radius * pitch), group_of(known)
                finite = np.asarray(np.isfinite(slide.predicted + slide.measured).all(axis=0))
                genes = np.flatnonzero((group >= 0) & finite[:n_genes])
                p, m = (mean @ values[:, genes] for values in (slide.predicted, slide.measured))
                of_sections.append(section_rates(p, m, group[genes]))
        rates.append(combined_rates(of_sections))
    return np.stack(rates, axis=1)


def _resampled(predicted: FloatArray, measured: FloatArray, blocks: IntArray) -> FloatArray:
    """Correlations ``(q, bootstraps)`` over spots, with blocks drawn with replacement; 0 for a constant."""
    rng = np.random.default_rng(0)
    n_blocks = int(blocks.max()) + 1
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), _BOOTSTRAPS).astype(np.float64)
    # A block is drawn as a whole, so sums over its spots are all that is needed of it.
    in_block = sp.csr_matrix((np.ones(len(blocks)), (blocks, np.arange(len(blocks)))), shape=(n_blocks, len(blocks)))
    drawn /= (drawn @ in_block).sum(axis=1, keepdims=True)
    p, m = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    mean_p, mean_m, covariance, p_variance, m_variance = (
        (in_block @ values).T @ drawn.T for values in (p, m, p * m, p * p, m * m)
    )
    covariance -= mean_p * mean_m
    p_variance -= np.square(mean_p, out=mean_p)
    p_variance *= np.subtract(m_variance, np.square(mean_m, out=mean_m), out=m_variance)
    constant = p_variance <= 1e-20  # not NaN, which stays NaN
    covariance /= np.sqrt(np.maximum(p_variance, 1e-20, out=p_variance), out=p_variance)
    covariance[constant] = 0.0
    return np.asarray(covariance)
