"""How well nuclei agree with known ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import NucleiError


def detection_scores(found_um: npt.ArrayLike, true_um: npt.ArrayLike, within_um: float = 3.0) -> dict[str, float]:
    """Compare centres of nuclei with known ones: precision, recall and F1 of a one-to-one matching.

    As many pairs as possible are matched, each at most ``within_um`` apart (maximum bipartite matching).

    Parameters
    ----------
    found_um, true_um
        ``(N, 2)`` and ``(M, 2)``, um.
    within_um
        Largest distance of a match.

    Returns
    -------
    dict
        ``matched``, ``found``, ``true`` (numbers), ``precision``, ``recall`` and ``f1``; a ratio with nothing below it
        is NaN.

    Examples
    --------
    >>> from napari_cpnn.nuclei import detection_scores
    >>> detection_scores([[0, 0], [50, 50]], [[0, 2], [20, 20]])["f1"]
    0.5
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import KDTree

    found, true = (np.asarray(v, dtype=np.float64).reshape(-1, 2) for v in (found_um, true_um))
    if not (np.isfinite(found).all() and np.isfinite(true).all()):
        raise NucleiError("The centres of nuclei must be finite numbers.")
    matched = 0
    if len(found) and len(true):
        near = KDTree(found).sparse_distance_matrix(KDTree(true), within_um, output_type="coo_matrix")
        graph = csr_matrix((np.ones(near.nnz, np.int8), (near.row, near.col)), shape=near.shape)
        matched = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    total = len(found) + len(true)
    return {
        "matched": matched, "found": len(found), "true": len(true),
        "precision": _ratio(matched, len(found)), "recall": _ratio(matched, len(true)),
        "f1": _ratio(2 * matched, total),
    }  # fmt: skip


def _ratio(n: int, of: int) -> float:
    return n / of if of else float("nan")
