"""Nested cross-validation of typed expression by patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.progress import Progress
from napari_cpnn.settings import TypedSettings
from napari_cpnn.studies.per_type import Robustness, typed_scores, within
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import TypedEnsemble, TypedLabels, grouped_folds, train_typed


@dataclass(frozen=True, eq=False)
class HeldOutTyped:
    """Predictions of bags by models that have not seen their patients.

    Parameters
    ----------
    expression
        ``(S, C, G)`` float32.
    shares
        ``(S, C)``.
    fold
        ``(S,)``.
    patients
        ``(S,)``.
    labels
        What was predicted.
    """

    expression: Float32Array
    shares: FloatArray
    fold: IntArray
    patients: tuple[str, ...]
    labels: TypedLabels

    def scores(self, robustness: Robustness | None = None, measured: FloatArray | None = None) -> pd.DataFrame:
        """:func:`~napari_cpnn.studies.typed_scores` against the labels, or against ``measured`` ``(S, C, G)``."""
        return typed_scores(
            self.expression,
            self.labels.expression if measured is None else measured,
            self.labels.bulk,
            self.patients,
            (self.labels.cell_types, self.labels.genes),
            self.labels.confidence,
            robustness,
            self.fold,
        )

    def share_scores(self) -> pd.Series[float]:
        """Pearson R of predicted and deconvolved shares of each type over bags, within folds."""
        predicted, measured = within(self.shares, self.fold), within(self.labels.shares, self.fold)
        r = [float(np.corrcoef(predicted[:, c], measured[:, c])[0, 1]) for c in range(predicted.shape[1])]
        return pd.Series(r, index=pd.Index(self.labels.cell_types, name="cell_type"), name="r")


def nested_typed(
    bags: Bags,
    labels: TypedLabels,
    settings: TypedSettings | None = None,
    n_folds: int = 5,
    progress: Progress | None = None,
) -> HeldOutTyped:
    """Predict every bag by an ensemble trained on other patients; penalties are chosen by inner patients alone.

    Labels are deconvolved once, from all bulk samples: they are what is predicted, and images play no part in them.

    Raises
    ------
    TrainingError
        With fewer patients than folds.

    Examples
    --------
    >>> import inspect
    >>> from napari_cpnn.studies import nested_typed
    >>> inspect.signature(nested_typed).parameters["n_folds"].default
    5
    """
    settings = settings or TypedSettings()
    fold = grouped_folds(bags.patients, n_folds, settings.seed)
    expression = np.zeros(labels.expression.shape, np.float32)
    shares = np.zeros(labels.shares.shape)
    for k in range(n_folds):
        if progress is not None:
            progress(f"fold {k + 1} of {n_folds}", k / n_folds)
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        model: TypedEnsemble = train_typed(bags.subset(train), labels.subset(train), settings)
        model.require_unseen(bags.patients[test])
        expression[test], shares[test] = model.predict(bags.subset(test)), model.shares(bags.subset(test))
    return HeldOutTyped(expression, shares, fold, tuple(str(p) for p in bags.patients), labels)
