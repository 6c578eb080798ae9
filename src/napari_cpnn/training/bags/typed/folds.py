"""Folds of bags in which no patient is in two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import TrainingError


def grouped_folds(
    patients: npt.ArrayLike, n_folds: int, seed: int = 0, outcome: npt.ArrayLike | None = None
) -> IntArray:
    """Fold ``(S,)`` of each bag: bags of a patient are together, and folds have about the same number of bags.

    Parameters
    ----------
    patients
        ``(S,)``, patient of each bag.
    outcome
        ``(S,)``, classes that each fold shall have in about the same proportions; constant within patients.

    Raises
    ------
    TrainingError
        With fewer patients than folds.

    Examples
    --------
    >>> from napari_cpnn.training.bags.typed import grouped_folds
    >>> fold = grouped_folds(["a", "b", "a", "c"], 3)
    >>> bool(fold[0] == fold[2]), len(set(fold.tolist()))
    (True, 3)
    """
    names, which, counts = np.unique(np.asarray(patients).astype(str), return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise TrainingError(f"{n_folds} folds need as many patients, and there are {len(names)}; take fewer folds.")
    classes = np.zeros(len(names), dtype=object)
    if outcome is not None:
        classes[which] = np.asarray(outcome).astype(str)
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of, sizes = np.zeros(len(names), dtype=np.intp), np.zeros(n_folds)
    for kind in sorted(set(classes.tolist()), key=str):
        mine, of_kind = [i for i in order if classes[i] == kind], np.zeros(n_folds)
        for i in sorted(mine, key=lambda i: -int(counts[i])):
            fold = int(np.lexsort((np.arange(n_folds), sizes, of_kind))[0])
            fold_of[i] = fold
            sizes[fold] += counts[i]
            of_kind[fold] += counts[i]
    return np.asarray(fold_of[which])
