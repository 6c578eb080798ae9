"""Find marker genes of cell types: expressed in one type, and much less in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.arrays import Float32Array

#: Added to both sides of a ratio, in counts per 10,000; otherwise rarely detected genes would rank first.
PSEUDOCOUNT = 1.0
MARKER_COLUMNS = ("cell_type", "rank", "gene", "cp10k", "log2_fold_change", "next_type", "next_cp10k", "counts")


def marker_genes(
    profiles: Float32Array,
    cell_types: Sequence[str],
    genes: Sequence[str],
    counts_per_type: Mapping[str, Any],
    *,
    n: int,
    min_fold_change: float,
    min_cp10k: float,
    min_counts: float,
) -> pd.DataFrame:
    """Return the table of :meth:`napari_cpnn.Prototypes.markers` for profiles ``(C, G)``."""
    import pandas as pd

    if len(cell_types) < 2:
        return pd.DataFrame(columns=list(MARKER_COLUMNS))
    level = 1e4 * profiles.astype(np.float64)
    # A gene can be a marker only of the type in which it is highest, so each gene is considered once.
    first, every = level.argmax(axis=0), np.arange(level.shape[1])
    highest, total = level[first, every], level.sum(axis=0)
    level[first, every] = -1
    second = level.argmax(axis=0)
    next_level = level[second, every]
    mean = (total - highest).clip(min=0) / (len(level) - 1)
    fold = np.log2((highest + PSEUDOCOUNT) / (mean + PSEUDOCOUNT))
    # Counts behind each profile; NaN if unknown.
    of_type = np.array([float(counts_per_type.get(name, np.nan)) for name in cell_types])
    counts = highest / 1e4 * of_type[first]
    # If the number of counts is unknown, the criterion is skipped.
    good = (highest > next_level) & (highest >= min_cp10k) & ~(counts < min_counts) & (fold >= np.log2(min_fold_change))
    order = np.flatnonzero(good)[np.argsort(-fold[good], kind="stable")]
    markers = [order[first[order] == c][:n] for c in range(len(level))]
    found = np.concatenate(markers)
    values = (
        [cell_types[c] for c in first[found]],
        np.concatenate([np.arange(1, len(part) + 1) for part in markers]),
        [genes[g] for g in found],
        highest[found],
        fold[found],
        [cell_types[c] for c in second[found]],
        next_level[found],
        counts[found],
    )
    return pd.DataFrame(dict(zip(MARKER_COLUMNS, values, strict=True)))
