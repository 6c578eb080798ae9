"""Slides that are in two groups under two names, so that a model is tested on what it has learnt from."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.slides import Slide
from napari_cpnn.spots import are_same_picture, counts_matrix

#: Spots with fewer counts may be equal by chance; share of the others by which two tables are of the same spots.
_LEAST_COUNTS, _SHARED = 20, 0.1


def warn_of_twins(samples: Sequence[tuple[Slide, AnnData]], labels: Sequence[str], groups: Sequence[str]) -> None:
    """Warn of two samples of different groups that have one picture or the same measured spots."""
    spots = [_fingerprints(table) for _, table in samples]
    for i, k in combinations(range(len(samples)), 2):
        if groups[i] == groups[k]:
            continue
        few = min(len(spots[i]), len(spots[k]))
        shared = few and len(np.intersect1d(spots[i], spots[k])) >= _SHARED * few
        if shared or are_same_picture(samples[i][0], samples[k][0]):
            what = "have the same measured spots" if shared else "show the same picture"
            warnings.warn(
                f"{labels[i]} and {labels[k]} {what} but are in different groups, so that models are tested on what "
                "they have learnt from; put both into one group, or leave one out.",
                CpnnWarning,
                stacklevel=3,
            )


def _fingerprints(spots: AnnData) -> npt.NDArray[np.uint64]:
    """Hash of the counts of each spot by gene name: the same whatever the order of genes and spots."""
    names = [hashlib.blake2b(str(gene).encode("utf-8", "replace"), digest_size=8).digest() for gene in spots.var_names]
    genes = np.frombuffer(b"".join(names), dtype=np.uint64)
    counts = counts_matrix(spots).tocsr()
    enough = np.asarray(counts.sum(axis=1)).ravel() >= _LEAST_COUNTS
    whole = counts[enough].astype(np.int64).astype(np.uint64)
    return np.unique(np.asarray(whole @ genes, dtype=np.uint64))
