"""Find marker genes of cell types: expressed in one type, and much less in the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.prototypes.prototypes import Prototypes

#: Added to both sides of a ratio, in counts per 10,000; otherwise rarely detected genes would rank first.
PSEUDOCOUNT = 1.0
MARKER_COLUMNS = ("cell_type", "rank", "gene", "cp10k", "log2_fold_change", "next_type", "next_cp10k", "counts")


def marker_genes(
    prototypes: Prototypes,
    n: int = 5,
    min_fold_change: float = 2.0,
    min_cp10k: float = 1.0,
    min_counts: float = 10.0,
) -> pd.DataFrame:
    """Return the table of :meth:`napari_cpnn.Prototypes.markers`."""
    import pandas as pd

    if len(prototypes.cell_types) < 2:
        return pd.DataFrame(columns=list(MARKER_COLUMNS))
    level = 1e4 * prototypes.profiles.astype(np.float64)
    # A gene can be a marker only of the type in which it is highest, so each gene is considered once.
    first, genes = level.argmax(axis=0), np.arange(level.shape[1])
    highest, total = level[first, genes], level.sum(axis=0)
    level[first, genes] = -1
    second = level.argmax(axis=0)
    next_level = level[second, genes]
    mean = (total - highest).clip(min=0) / (len(level) - 1)
    fold = np.log2((highest + PSEUDOCOUNT) / (mean + PSEUDOCOUNT))
    counts = highest / 1e4 * _counts(prototypes.provenance, prototypes.cell_types)[first]
    # If the number of counts is unknown, the criterion is skipped.
    good = (highest > next_level) & (highest >= min_cp10k) & ~(counts < min_counts) & (fold >= np.log2(min_fold_change))
    order = np.flatnonzero(good)[np.argsort(-fold[good], kind="stable")]
    of_type = [order[first[order] == c][:n] for c in range(len(level))]
    found = np.concatenate(of_type)
    values = (
        [prototypes.cell_types[c] for c in first[found]],
        np.concatenate([np.arange(1, len(part) + 1) for part in of_type]),
        [prototypes.genes[g] for g in found],
        highest[found],
        fold[found],
        [prototypes.cell_types[c] for c in second[found]],
        next_level[found],
        counts[found],
    )
    return pd.DataFrame(dict(zip(MARKER_COLUMNS, values, strict=True)))


def _counts(provenance: dict[str, Any], cell_types: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return the number of counts behind each profile, ``(C,)``; NaN if unknown."""
    known = provenance.get("counts_per_type", {})
    return np.array([float(known.get(name, np.nan)) for name in cell_types])
