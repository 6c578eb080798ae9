"""An outcome study of the samples of a cohort that have typed expression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from napari_cpnn.errors import TrainingError
from napari_cpnn.studies.outcome import OutcomeStudy, feature_sets, outcome_study

if TYPE_CHECKING:
    from napari_cpnn.prototypes import TypedExpression


def cohort_outcome(
    table: pd.DataFrame,
    typed: TypedExpression,
    column: str,
    clinical: Sequence[str] = (),
    n_folds: int = 5,
    n_repeats: int = 5,
    seed: int = 0,
    positive: str | None = None,
) -> tuple[OutcomeStudy, int]:
    """Cross-validate how a column of a cohort follows from typed expression, bulk, abundance and clinical columns.

    Parameters
    ----------
    table
        One row per slide, with ``sample`` and ``patient`` (the table of :class:`~napari_cpnn.cohort.Cohort`).
    typed
        Deconvolved from bulk, or predicted from slides.
    column, clinical
        The outcome, with two values, and columns to compare with.
    n_folds, n_repeats, seed, positive
        As of :func:`outcome_study`.

    Returns
    -------
    tuple
        The study, and the number of samples with an outcome that are left out, as they have no typed expression.

    Raises
    ------
    TrainingError
        If a column is missing, no sample is left, or the typed expression is of a model that has seen these patients.
    """
    if missing := [name for name in (column, *clinical) if name not in table]:
        raise TrainingError(f"The cohort has no column {missing[0]}; it has {', '.join(map(str, table.columns))}.")
    rows = table.drop_duplicates("sample")
    rows = rows[rows[column].notna() & (rows[column].astype(str).str.strip() != "")]
    known = rows["sample"].astype(str).isin(typed.shares.index[typed.shares.notna().all(axis=1)].astype(str))
    n_left_out = int((~known).sum())
    rows = rows[known]
    if rows.empty:
        raise TrainingError(
            "No sample of the cohort with an outcome is in the typed expression; its samples must have the names of "
            f"the column 'sample', and are called such as {typed.samples[0]}."
        )
    if seen := sorted({*rows["patient"].astype(str)} & {*map(str, typed.trained_on)}):
        others = f" and {len(seen) - 1} other patients" if len(seen) > 1 else ""
        raise TrainingError(
            f"The typed expression was predicted by a model that was trained on {seen[0]}{others} of this cohort, so "
            "it says too much there; predict by a model that has not seen these patients."
        )
    index = [typed.samples.index(str(name)) for name in rows["sample"]]
    expression, shares = typed.stacked()[index].astype(float), typed.shares.to_numpy()[index]
    sets = feature_sets(expression, shares, typed.cell_types, rows[list(clinical)])
    patients = rows["patient"].astype(str).tolist()
    return outcome_study(sets, patients, rows[column].tolist(), n_folds, n_repeats, seed, positive), n_left_out
