"""Scores of typed expression: how well a gene is predicted, and what of it is specific of a cell type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import pearson


@dataclass(frozen=True)
class Robustness:
    """When a gene counts as robustly predicted.

    Parameters
    ----------
    least_r
        Correlations must be above it. (0.4: DeepPT, Path2Omics.)
    alpha
        Level of the one-sided test that R is above 0, after Holm's correction over the genes of a type.
    """

    least_r: float = 0.4
    alpha: float = 0.05


def typed_scores(
    predicted: npt.NDArray[np.floating],
    measured: npt.NDArray[np.floating],
    bulk: npt.NDArray[np.floating],
    patients: npt.ArrayLike,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    confidence: FloatArray | None = None,
    robustness: Robustness | None = None,
    folds: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Score each gene in each cell type, over patients (the mean of a patient's bags).

    Predictions of a cross-validation are compared within their ``folds``: all correlations are of deviations from the
    mean of the fold. What cannot be predicted is predicted by the mean of the training patients, which is the lower,
    the higher the held-out ones are; over folds that gives clearly negative correlations instead of none.

    Parameters
    ----------
    predicted, measured
        ``(S, C, G)``, log expression; ``measured`` is deconvolved, or a known truth.
    bulk
        ``(S, G)``, log expression of the whole sample.
    patients
        ``(S,)``.
    names
        Cell types and genes.
    confidence
        ``(G, C)`` of :class:`~napari_cpnn.TypedExpression`.
    robustness
        What counts as robust.
    folds
        ``(S,)``, fold in which a bag was held out; all bags of a patient have the same. ``None``: one model, no folds.

    Returns
    -------
    DataFrame
        One row per ``cell_type`` and ``gene``:

        ``r``
            Pearson R of predicted and measured.
        ``r_given_bulk``
            Partial correlation given the bulk of the gene: what the type's prediction knows beyond the bulk.
        ``specific_r``
            R of the deviations of the type from the mean over types.
        ``specificity``
            ``specific_r`` times the standard deviation of the measured deviation, relative to that of the type in
            which the gene deviates most. A correlation has no scale: a gene that varies in one type only deviates from
            the mean over types in *all* of them, less and the other way round, but with the same correlation.
        ``p``, ``p_holm``
            One-sided, of ``r``; corrected by Holm over the genes of the type.
        ``robust``
            ``r > least_r`` and ``p_holm < alpha``.
        ``confidence``, ``expected_r``
            Of the label, and ``specific_r`` times it: the R with the true expression to be expected, since errors of
            label and prediction are independent. NaN without confidences.

    Raises
    ------
    TrainingError
        If shapes do not fit, or there are fewer than four patients.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.studies import typed_scores
    >>> measured = np.random.default_rng(0).normal(size=(20, 2, 1))
    >>> patients = [f"P{i}" for i in range(20)]
    >>> scores = typed_scores(measured, measured, measured.mean(axis=1), patients, (("T-cells", "CAFs"), ("FAP",)))
    >>> scores["r"].round(3).tolist(), scores["robust"].tolist()
    ([1.0, 1.0], [True, True])
    """
    robustness = robustness or Robustness()
    cell_types, genes = names
    shape = (len(np.asarray(patients)), len(cell_types), len(genes))
    if predicted.shape != shape or measured.shape != shape or bulk.shape != (shape[0], shape[2]):
        raise TrainingError(f"Scores need tables {shape}, not {predicted.shape}, {measured.shape} and {bulk.shape}.")
    first, second, whole = (by_patient(values, patients) for values in (predicted, measured, bulk))
    n = len(first)
    if n < 4:
        raise TrainingError(f"Scores over patients need at least four, not {n}.")
    if folds is not None:
        fold = by_patient(np.asarray(folds), patients)
        first, second, whole = (within(values, fold) for values in (first, second, whole))
        n -= len(np.unique(fold)) - 1
    apart, true_apart = first - first.mean(axis=1, keepdims=True), second - second.mean(axis=1, keepdims=True)
    spread = true_apart.std(axis=0)
    share = spread / np.maximum(spread.max(axis=0), 1e-12)
    tables = []
    for c, cell_type in enumerate(cell_types):
        r = pearson(first[:, c], second[:, c])
        p = p_of(r, max(n, 3))
        corrected = holm(p)
        specific = pearson(apart[:, c], true_apart[:, c])
        known = np.full(len(genes), np.nan) if confidence is None else confidence[:, c]
        tables.append(
            pd.DataFrame(
                {
                    "cell_type": cell_type,
                    "gene": genes,
                    "r": r,
                    "r_given_bulk": partial(first[:, c], second[:, c], whole),
                    "specific_r": specific,
                    "specificity": specific * share[c],
                    "p": p,
                    "p_holm": corrected,
                    "robust": (r > robustness.least_r) & (corrected < robustness.alpha),
                    "confidence": known,
                    "expected_r": specific * known,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def summarise_typed(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per cell type: how many genes and what share are robust, and medians; counts do not compare types."""
    rows = []
    for cell_type, part in scores.groupby("cell_type", sort=False):
        known = part["r"].notna()
        rows.append(
            {
                "cell_type": cell_type,
                "n_genes": int(known.sum()),
                "n_robust": int(part["robust"].sum()),
                "share_robust": float(part.loc[known, "robust"].mean()) if known.any() else np.nan,
                **{f"median_{name}": _median(part[name]) for name in ("r", "r_given_bulk", "specific_r")},
            }
        )
    return pd.DataFrame(rows).set_index("cell_type")


def _median(values: pd.Series[float]) -> float:
    known = values.dropna()
    return float(known.median()) if len(known) else float("nan")


def by_patient(values: npt.NDArray[np.floating], patients: npt.ArrayLike) -> FloatArray:
    """Mean over the bags of each patient, patients in order of their names: ``(S, ...)`` -> ``(P, ...)``."""
    _, which, counts = np.unique(np.asarray(patients).astype(str), return_inverse=True, return_counts=True)
    total = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(total, which, np.asarray(values, dtype=np.float64))
    return total / counts.reshape(-1, *[1] * (values.ndim - 1))


def within(values: FloatArray, fold: npt.ArrayLike) -> FloatArray:
    """Deviations ``(P, ...)`` from the mean of the rows of the same fold ``(P,)``."""
    _, which, counts = np.unique(np.asarray(fold), return_inverse=True, return_counts=True)
    total = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(total, which, values)
    return values - (total / counts.reshape(-1, *[1] * (values.ndim - 1)))[which]


def partial(a: FloatArray, b: FloatArray, given: FloatArray) -> FloatArray:
    """Partial correlation of each column ``(N, G)`` of two tables, given the same column of a third."""
    ab, ag, bg = pearson(a, b), pearson(a, given), pearson(b, given)
    left = (1 - ag**2) * (1 - bg**2)
    result = np.full(len(ab), np.nan)
    np.divide(ab - ag * bg, np.sqrt(np.where(left > 1e-10, left, 1.0)), out=result, where=left > 1e-10)
    return np.asarray(np.clip(result, -1, 1))


def p_of(r: FloatArray, n: int) -> FloatArray:
    """One-sided p-value of Pearson correlations of ``n`` pairs being above 0; NaN stays NaN."""
    bounded = np.clip(r, -1 + 1e-15, 1 - 1e-15)
    return np.asarray(student.sf(bounded * np.sqrt((n - 2) / (1 - bounded**2)), n - 2))


def holm(p: FloatArray) -> FloatArray:
    """Holm's step-down correction ``(G,)``; NaN are no tests, and stay NaN."""
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    steps = (len(order) - np.arange(len(order))) * p[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
