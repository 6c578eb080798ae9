"""Marker genes of cell types: expressed in one type, and much less in the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.prototypes.prototypes import Prototypes

#: Added to both sides of a ratio, in counts per 10,000: without it genes that are hardly seen would lead every list.
PSEUDOCOUNT = 1.0
MARKER_COLUMNS = ("cell_type", "rank", "gene", "cp10k", "log2_fold_change", "next_type", "next_cp10k", "counts")


def marker_genes(
    prototypes: Prototypes,
    n: int = 5,
    min_fold_change: float = 2.0,
    min_cp10k: float = 1.0,
    min_counts: float = 10.0,
) -> pd.DataFrame:
    """As :meth:`napari_cpnn.Prototypes.markers`."""
    import pandas as pd

    if len(prototypes.cell_types) < 2:
        return pd.DataFrame(columns=list(MARKER_COLUMNS))
    level = 1e4 * prototypes.profiles.astype(np.float64)
    counts = _counts(prototypes.provenance, prototypes.cell_types)[:, None] * prototypes.profiles
    parts = []
    for c, name in enumerate(prototypes.cell_types):
        others = np.delete(level, c, axis=0)
        mean, highest, number = others.mean(axis=0), others.max(axis=0), others.argmax(axis=0)
        fold = np.log2((level[c] + PSEUDOCOUNT) / (mean + PSEUDOCOUNT))
        # Where the counts behind a value are not known, nothing can be asked of them.
        enough = (level[c] >= min_cp10k) & ~(counts[c] < min_counts)
        found = np.flatnonzero(enough & (level[c] > highest) & (fold >= np.log2(min_fold_change)))
        found = found[np.argsort(-fold[found], kind="stable")][:n]
        parts.append(
            pd.DataFrame(
                {
                    "cell_type": name,
                    "rank": np.arange(1, len(found) + 1),
                    "gene": [prototypes.genes[i] for i in found],
                    "cp10k": level[c, found],
                    "log2_fold_change": fold[found],
                    "next_type": [_without(prototypes.cell_types, c)[i] for i in number[found]],
                    "next_cp10k": highest[found],
                    "counts": counts[c, found],
                }
            )
        )
    return pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)


def _counts(provenance: dict[str, Any], cell_types: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """``(C,)``, summed counts that each profile rests on; NaN where they are not known."""
    known = provenance.get("counts_per_type", {})
    return np.array([float(known.get(name, np.nan)) for name in cell_types])


def _without(names: tuple[str, ...], place: int) -> tuple[str, ...]:
    return names[:place] + names[place + 1 :]
